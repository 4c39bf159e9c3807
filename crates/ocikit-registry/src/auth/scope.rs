use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The scopes of a token: actions on resources, as token services spell them.
///
/// Distribution's "Token Scope Documentation": `repository:path:pull,push`; several are separated by spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Returns the scope for actions on a repository.
    pub(crate) fn repository(path: &str, actions: &[&str]) -> Scopes {
        let mut scopes = Scopes::default();
        scopes.add(format!("repository:{path}"), actions.iter().copied());
        scopes
    }

    pub(crate) fn pull(path: &str) -> Scopes {
        Scopes::repository(path, &["pull"])
    }

    pub(crate) fn push(path: &str) -> Scopes {
        Scopes::repository(path, &["pull", "push"])
    }

    pub(crate) fn delete(path: &str) -> Scopes {
        Scopes::repository(path, &["delete", "pull", "push"])
    }

    /// Returns the scope for the catalog of a registry.
    pub(crate) fn catalog() -> Scopes {
        let mut scopes = Scopes::default();
        scopes.add("registry:catalog".to_owned(), ["*"]);
        scopes
    }

    /// Parses the scopes of a challenge. The name of a resource contains colons if it includes a host with a port.
    pub(crate) fn parse(text: &str) -> Scopes {
        let mut scopes = Scopes::default();
        for scope in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                scopes.add(resource.to_owned(), actions.split(',').filter(|action| !action.is_empty()));
            }
        }
        scopes
    }

    fn add<'a>(&mut self, resource: String, actions: impl IntoIterator<Item = &'a str>) {
        self.0.entry(resource).or_default().extend(actions.into_iter().map(str::to_owned));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the union of both.
    pub(crate) fn with(&self, other: &Scopes) -> Scopes {
        let mut both = self.clone();
        for (resource, actions) in &other.0 {
            both.add(resource.clone(), actions.iter().map(String::as_str));
        }
        both
    }

    /// Returns the scopes to request after a challenge. If challenge and request name a resource in common, this is
    /// their union; otherwise the scopes of the challenge alone, since the registry knows the repository by another
    /// name.
    pub(crate) fn follow(&self, asked: &Scopes) -> Scopes {
        let is_shared = asked.0.keys().any(|resource| self.0.contains_key(resource));
        if is_shared || asked.is_empty() { self.with(asked) } else { asked.clone() }
    }

    /// Returns whether these scopes include the needed ones.
    pub(crate) fn cover(&self, needed: &Scopes) -> bool {
        needed.0.iter().all(|(resource, actions)| {
            self.0.get(resource).is_some_and(|granted| granted.contains("*") || actions.is_subset(granted))
        })
    }

    /// Returns the scopes one by one, as parameters of a token request.
    pub(crate) fn iter(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<_> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_round_trip() {
        for (text, shown) in [
            ("repository:a/b:pull", "repository:a/b:pull"),
            ("repository:a/b:push,pull", "repository:a/b:pull,push"),
            ("repository:b:pull repository:a:pull", "repository:a:pull repository:b:pull"),
            ("repository:host:5000/a:pull", "repository:host:5000/a:pull"),
            ("registry:catalog:*", "registry:catalog:*"),
            ("  repository:a:pull   repository:a:push ", "repository:a:pull,push"),
            ("", ""),
            ("nonsense", ""),
            ("a::", "a::"),
        ] {
            assert_eq!(Scopes::parse(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn challenge_overrides_requested_scopes() {
        for (have, asked, wanted) in [
            ("repository:a:pull,push", "repository:a:pull", "repository:a:pull,push"),
            ("repository:a:pull", "repository:a:pull,push", "repository:a:pull,push"),
            ("repository:a:pull", "repository:proxy/a:pull", "repository:proxy/a:pull"),
            ("repository:a:pull", "", "repository:a:pull"),
            ("", "registry:catalog:*", "registry:catalog:*"),
            ("repository:a:pull", "repository:a:pull other:x:y", "other:x:y repository:a:pull"),
        ] {
            assert_eq!(Scopes::parse(have).follow(&Scopes::parse(asked)).to_string(), wanted, "{have} then {asked}");
        }
    }

    #[test]
    fn cover_compares_actions_per_resource() {
        let push = Scopes::push("a");
        let mount = push.with(&Scopes::pull("b"));
        for (have, need, enough) in [
            (&push, &Scopes::pull("a"), true),
            (&Scopes::pull("a"), &push, false),
            (&mount, &push, true),
            (&push, &mount, false),
            (&Scopes::catalog(), &Scopes::catalog(), true),
            (&Scopes::parse("repository:a:*"), &push, true),
            (&Scopes::pull("ab"), &Scopes::pull("a"), false),
            (&Scopes::default(), &Scopes::default(), true),
        ] {
            assert_eq!(have.cover(need), enough, "{have} for {need}");
        }
    }
}
