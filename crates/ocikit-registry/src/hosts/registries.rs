//! `registries.conf`, version 2: blocked registries, replaced locations, and mirrors.

#![cfg_attr(not(feature = "registries-conf"), allow(dead_code, reason = "only a file makes rules"))]

#[cfg(feature = "registries-conf")]
mod file;

use ocikit_image::{Error, Result};
use ocikit_spec::{Registry, Repository};
use serde::Deserialize;

#[cfg(feature = "registries-conf")]
pub use file::InvalidRegistriesConf;

/// The contents of a `registries.conf`, version 2 of containers-registries.conf(5).
///
/// Short-name aliases are not read: a name without a registry is one of Docker Hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    rules: Vec<Rule>,
}

/// The settings for all repositories with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// A registry and optionally the start of a path, or `*.` and a domain.
    prefix: String,
    blocked: bool,
    insecure: bool,
    /// The replacement of the prefix.
    location: Option<String>,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    scope: MirrorScope,
}

/// The requests that a mirror receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MirrorScope {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// A location to read a repository from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadLocation {
    pub(crate) repository: Repository,
    /// Whether certificates are not verified and plain HTTP is allowed.
    pub(crate) insecure: bool,
    pub(crate) scope: MirrorScope,
}

/// The locations of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Routes {
    /// The `insecure` setting of the registry itself.
    pub(crate) insecure: bool,
    /// The locations to read from, in this order.
    pub(crate) reads: Vec<ReadLocation>,
}

impl RegistriesConf {
    /// Checks that a registry may be contacted with a request that is for none of its repositories.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`] if the whole registry is blocked.
    pub(crate) fn check(&self, registry: &Registry) -> Result<()> {
        self.rule(&registry.to_string()).map(drop)
    }

    /// Returns the rule for a repository or a registry, and how many bytes of its name the rule matches; `None` if there
    /// is no rule.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`].
    fn rule(&self, name: &str) -> Result<Option<(usize, &Rule)>> {
        let matching = self.rules.iter().filter_map(|rule| Some((rule.matched(name)?, rule)));
        match matching.max_by_key(|(matched, rule)| (*matched, !rule.prefix.starts_with('*'))) {
            Some((_, rule)) if rule.blocked => Err(Error::Blocked { place: name.to_owned(), by: "`registries.conf`" }),
            found => Ok(found),
        }
    }

    /// Returns the locations of a repository.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`], and [`Error::Broken`] if a location is not a valid repository name.
    pub(crate) fn routes(&self, repository: &Repository) -> Result<Routes> {
        let name = repository.to_string();
        let Some((matched, rule)) = self.rule(&name)? else {
            let place = ReadLocation { repository: repository.clone(), insecure: false, scope: MirrorScope::All };
            return Ok(Routes { insecure: false, reads: vec![place] });
        };
        let place = |location: Option<&str>, insecure, scope| {
            let renamed = location.map_or(Ok(repository.clone()), |location| {
                let text = format!("{location}{}", &name[matched..]);
                text.parse()
                    .map_err(|error| Error::broken(format!("the location of {name} in `registries.conf`"), error))
            });
            Ok(ReadLocation { repository: renamed?, insecure, scope })
        };
        let mirrors = rule.mirrors.iter().map(|mirror| place(Some(&mirror.location), mirror.insecure, mirror.scope));
        let itself = std::iter::once_with(|| place(rule.location.as_deref(), rule.insecure, MirrorScope::All));
        Ok(Routes { insecure: rule.insecure, reads: mirrors.chain(itself).collect::<Result<_>>()? })
    }
}

impl Rule {
    /// Returns how many bytes of a repository's name match this rule; `None` if it does not match.
    fn matched(&self, name: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let registry = name.split('/').next().unwrap_or_default();
            // As in containers/image, a domain matches its registries at every port.
            let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
            return [registry, host].into_iter().find(|name| name.ends_with(domain)).map(str::len);
        }
        let rest = name.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(self.prefix.len())
    }
}

#[cfg(test)]
#[cfg(feature = "registries-conf")]
mod tests {
    use std::fs;

    use super::*;

    const TEXT: &str = r#"
        unqualified-search-registries = ["docker.io"]

        [[registry]]
        prefix = "example.com"
        location = "internal.example.net/cache"

        [[registry]]
        prefix = "example.com/foo/"
        insecure = true
        location = "example.com/foo"
        [[registry.mirror]]
        location = "one.example.net/foo"
        [[registry.mirror]]
        location = "two.example.net:5000"
        insecure = true
        pull-from-mirror = "digest-only"

        [[registry]]
        location = "Blocked.example.org.:0443"
        blocked = true

        [[registry]]
        location = "[2001:DB8:0:0::1]:05000"
        blocked = true

        [[registry]]
        prefix = "*.Example.ORG"
        insecure = true
        unknown-key = 1

        [[registry]]
        location = "docker.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "mirror.example.net/hub"
        [[registry.mirror]]
        location = "tags.example.net/hub"
        pull-from-mirror = "tag-only"
    "#;

    fn shown(repository: &str) -> String {
        let conf = RegistriesConf::parse(TEXT).unwrap();
        let routes = match conf.routes(&repository.parse().unwrap()) {
            Ok(routes) => routes,
            Err(error) => return error.to_string(),
        };
        let place = |place: &ReadLocation| {
            let insecure = if place.insecure { "!" } else { "" };
            match place.scope {
                MirrorScope::All => format!("{}{insecure}", place.repository),
                scope => format!("{}{insecure} {scope:?}", place.repository),
            }
        };
        routes.reads.iter().map(place).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_longest_prefix_decides() {
        for (repository, reads) in [
            ("ghcr.io/a/b", "ghcr.io/a/b"),
            ("example.com/bar", "internal.example.net/cache/bar"),
            ("example.com/foobar/x", "internal.example.net/cache/foobar/x"),
            ("example.com.au/bar", "example.com.au/bar"),
            (
                "example.com/foo/x/y",
                "one.example.net/foo/x/y, two.example.net:5000/x/y! DigestOnly, example.com/foo/x/y!",
            ),
            ("a.example.org/x", "a.example.org/x!"),
            ("example.org/x", "example.org/x"),
            (
                "alpine",
                "mirror.example.net/hub/library/alpine DigestOnly, tags.example.net/hub/library/alpine TagOnly, \
                 docker.io/library/alpine",
            ),
            ("a.example.org:5000/x", "a.example.org:5000/x!"),
            ("blocked.example.org/x", "blocked.example.org/x is blocked by `registries.conf`"),
            ("BLOCKED.example.org:443/x", "blocked.example.org/x is blocked by `registries.conf`"),
            ("blocked.example.org./x", "blocked.example.org/x is blocked by `registries.conf`"),
            ("[2001:db8::1]:5000/x", "[2001:db8::1]:5000/x is blocked by `registries.conf`"),
        ] {
            assert_eq!(shown(repository), reads);
        }
        let none = RegistriesConf::default().routes(&"ghcr.io/a".parse().unwrap()).unwrap();
        assert_eq!(none.reads.len(), 1);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, problem) in [
            ("[registries.search]\nregistries = []", "version 1"),
            ("[[registry]]\nblocked = true", "neither prefix nor location"),
            ("[[registry]]\nprefix = \"https://x\"", "not a prefix"),
            ("[[registry]]\nprefix = \"*.x/y\"", "many registries"),
            ("[[registry]]\nprefix = \"x\"\nblocked = \"yes\"", "line 3"),
            ("[[registry]]\nprefix = \"x\"\n[[registry.mirror]]\nlocation=\"y\"\npull-from-mirror=\"z\"", "line 5"),
            ("[[registry", "line 1"),
        ] {
            let found = RegistriesConf::parse(text).unwrap_err().to_string();
            assert!(found.contains(problem), "{found}");
        }
        let conf = RegistriesConf::parse("[[registry]]\nprefix = \"x.y\"\nlocation = \"NOT A NAME\"").unwrap();
        assert!(matches!(conf.routes(&"x.y/z".parse().unwrap()), Err(Error::Broken { .. })));
    }

    #[test]
    fn later_files_replace_settings_of_a_prefix() {
        let directory = tempfile::TempDir::new().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let read = || RegistriesConf::read(&directory.path().join("registries.conf"), &[directory.path().to_owned()]);
        assert_eq!(read().unwrap(), RegistriesConf::default());
        write("b.conf", "[[registry]]\nlocation = \"x.y\"\nblocked = true");
        write("a.conf", "[[registry]]\nlocation = \"x.y\"\n[[registry]]\nlocation = \"z.y\"\nblocked = true");
        write("ignored.txt", "nonsense");
        let conf = read().unwrap();
        for name in ["x.y/a", "z.y/a"] {
            assert!(conf.routes(&name.parse().unwrap()).is_err());
        }
        write("c.conf", "nonsense");
        assert!(read().unwrap_err().to_string().contains("c.conf"));
    }
}
