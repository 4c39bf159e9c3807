use std::collections::BTreeSet;
use std::fmt;

use crate::name::RepositoryName;

/// An action in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// Reading blobs, manifests, tags and referrers.
    Pull,
    /// Writing.
    Push,
    /// Deleting.
    Delete,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Permission; 3] = [Permission::Pull, Permission::Push, Permission::Delete];

    fn name(self) -> &'static str {
        match self {
            Permission::Pull => "pull",
            Permission::Push => "push",
            Permission::Delete => "delete",
        }
    }
}

/// The resource of a scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Repository(RepositoryName),
    Catalog,
}

/// A granted or requested scope: `repository:acme/app:pull,push` or `registry:catalog:*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) resource: Resource,
    pub(crate) permissions: BTreeSet<Permission>,
}

impl Scope {
    pub(crate) fn repository(name: &RepositoryName, permissions: &[Permission]) -> Scope {
        let permissions = permissions.iter().copied().collect();
        Scope { resource: Resource::Repository(name.clone()), permissions }
    }

    pub(crate) fn catalog() -> Scope {
        Scope { resource: Resource::Catalog, permissions: BTreeSet::from([Permission::Pull]) }
    }

    /// Parses one scope. Unknown resource types and actions cannot be granted and are ignored.
    pub(crate) fn parse(text: &str) -> Option<Scope> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // Docker writes a class in parentheses, as in `repository(plugin)`. It is ignored.
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        match (kind, name) {
            ("registry", "catalog") => (actions == "*").then(Scope::catalog),
            ("repository", name) => {
                let permissions = match actions {
                    "*" => Permission::ALL.into(),
                    actions => {
                        let known = |action| Permission::ALL.into_iter().find(|known| known.name() == action);
                        actions.split(',').filter_map(known).collect()
                    }
                };
                Some(Scope { resource: Resource::Repository(name.parse().ok()?), permissions })
            }
            _ => None,
        }
    }

    /// Parses a space-separated list of scopes.
    pub(crate) fn parse_list(text: &str) -> impl Iterator<Item = Scope> {
        text.split(' ').filter_map(Scope::parse)
    }

    /// Returns whether this scope includes the other one.
    pub(crate) fn covers(&self, other: &Scope) -> bool {
        self.resource == other.resource && other.permissions.is_subset(&self.permissions)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.resource {
            Resource::Catalog => f.write_str("registry:catalog:*"),
            Resource::Repository(name) => {
                let actions: Vec<_> = self.permissions.iter().map(|permission| permission.name()).collect();
                write!(f, "repository:{name}:{}", actions.join(","))
            }
        }
    }
}

/// Returns scopes as a space-separated list, for challenges and token responses.
pub(crate) fn join(scopes: &[Scope]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_round_trip() {
        for (text, expected) in [
            ("repository:a/b:pull", Some("repository:a/b:pull")),
            ("repository:a/b:push,pull", Some("repository:a/b:pull,push")),
            ("repository:a/b:*", Some("repository:a/b:pull,push,delete")),
            ("repository:a/b:pull,fly", Some("repository:a/b:pull")),
            ("repository(plugin):a/b:pull", Some("repository:a/b:pull")),
            ("repository:a/b:", Some("repository:a/b:")),
            ("registry:catalog:*", Some("registry:catalog:*")),
            ("registry:catalog:pull", None),
            ("registry:other:*", None),
            ("repository:A:pull", None),
            ("repository:../a:pull", None),
            ("repository:a/b", None),
            ("repository", None),
            ("", None),
            (":::", None),
        ] {
            assert_eq!(Scope::parse(text).map(|scope| scope.to_string()).as_deref(), expected, "{text}");
        }
        let list: Vec<_> = Scope::parse_list("repository:a:pull  x repository:b:push").collect();
        assert_eq!(join(&list), "repository:a:pull repository:b:push");
    }

    #[test]
    fn scope_covers_smaller_scopes() {
        let scope = |text| Scope::parse(text).unwrap();
        assert!(scope("repository:a:pull,push").covers(&scope("repository:a:pull")));
        assert!(!scope("repository:a:pull").covers(&scope("repository:a:pull,push")));
        assert!(!scope("repository:a:pull").covers(&scope("repository:b:pull")));
        assert!(scope("registry:catalog:*").covers(&scope("registry:catalog:*")));
    }

    proptest::proptest! {
        #[test]
        fn any_scope_is_parsed_without_panic(text in "(repository|registry)?[a-z:(),/*]{0,30}|.*") {
            if let Some(scope) = Scope::parse(&text) {
                proptest::prop_assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
            }
        }
    }
}
