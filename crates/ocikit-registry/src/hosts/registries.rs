//! `registries.conf`, version 2: which registries are blocked, renamed, or mirrored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::{Error, Result};
use ocikit_spec::{Registry, Repository};
use serde::Deserialize;

/// What a `registries.conf` says, version 2 of containers-registries.conf(5).
///
/// Short names are none of its business here: a name without a registry is one of Docker Hub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    rules: Vec<Rule>,
}

/// What is said of the repositories that begin like this.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// A registry and perhaps the beginning of a path, or `*.` and a domain.
    prefix: String,
    blocked: bool,
    insecure: bool,
    /// What stands in place of the prefix.
    location: Option<String>,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    serves: Serves,
}

/// What a place is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Serves {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// Where a repository is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) repository: Repository,
    /// Whether it may be spoken to without checking its certificate, and without TLS.
    pub(crate) insecure: bool,
    pub(crate) serves: Serves,
}

/// What is to be known of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Whether the registry itself is to be spoken to without checks.
    pub(crate) insecure: bool,
    /// Where to read, in this order.
    pub(crate) reads: Vec<Place>,
}

impl RegistriesConf {
    /// Reads a configuration from its text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with the line.
    pub fn parse(text: &str) -> Result<RegistriesConf, String> {
        let document: Form = toml::from_str(text).map_err(|error| error.to_string())?;
        if document.registries.is_some() {
            return Err("it is in the first format, with `[registries.search]`, which is not read".to_owned());
        }
        let rules = document.registry.into_iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(RegistriesConf { rules })
    }

    /// Reads a file and the `*.conf` files of directories, those of each in the order of their names; later ones replace
    /// what earlier ones say of the same prefix. What does not exist is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] and [`Error::Broken`], naming the file.
    pub fn read(file: &Path, directories: &[PathBuf]) -> Result<RegistriesConf> {
        let mut whole = RegistriesConf::default();
        let mut paths = vec![file.to_owned()];
        for directory in directories {
            paths.extend(list(directory)?);
        }
        for path in paths {
            let text = match crate::files::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(|error| Error::failed("read", path.display(), error))?,
            };
            let part = RegistriesConf::parse(&text).map_err(|problem| Error::broken(path.display(), problem))?;
            whole.rules.retain(|rule| part.rules.iter().all(|newer| newer.prefix != rule.prefix));
            whole.rules.extend(part.rules);
        }
        Ok(whole)
    }

    /// Where a repository is read from.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`], and [`Error::Broken`] if it would be read from what is no repository.
    pub(crate) fn routes(&self, repository: &Repository) -> Result<Routes> {
        let name = repository.to_string();
        let matching = self.rules.iter().filter_map(|rule| Some((rule.matched(&name)?, rule)));
        let Some((matched, rule)) = matching.max_by_key(|(matched, rule)| (*matched, !rule.prefix.starts_with('*')))
        else {
            let place = Place { repository: repository.clone(), insecure: false, serves: Serves::All };
            return Ok(Routes { insecure: false, reads: vec![place] });
        };
        if rule.blocked {
            return Err(Error::Blocked { place: name, by: "`registries.conf`" });
        }
        let place = |location: Option<&str>, insecure, serves| {
            let renamed = location.map_or(Ok(repository.clone()), |location| {
                let text = format!("{location}{}", &name[matched..]);
                text.parse()
                    .map_err(|error| Error::broken(format!("the location of {name} in `registries.conf`"), error))
            });
            Ok(Place { repository: renamed?, insecure, serves })
        };
        let mirrors = rule.mirrors.iter().map(|mirror| place(Some(&mirror.location), mirror.insecure, mirror.serves));
        let itself = std::iter::once_with(|| place(rule.location.as_deref(), rule.insecure, Serves::All));
        Ok(Routes { insecure: rule.insecure, reads: mirrors.chain(itself).collect::<Result<_>>()? })
    }
}

impl Rule {
    fn new(form: RuleForm) -> Result<Rule, String> {
        let location = form.location.map(|location| location.trim_end_matches('/').to_owned());
        let prefix = form.prefix.or_else(|| location.clone()).ok_or("a registry has neither prefix nor location")?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        if prefix.is_empty() || prefix.contains("://") {
            return Err(format!("`{prefix}` is not the beginning of a repository's name"));
        }
        if prefix.starts_with("*.") && (prefix.contains('/') || location.is_some()) {
            return Err(format!("`{prefix}` stands for many registries, so that it can have no path and no location"));
        }
        let mirrors = form.mirror.into_iter().map(|mirror| {
            let by_digest = form.mirror_by_digest_only.unwrap_or_default();
            let serves = mirror.pull_from_mirror.unwrap_or(if by_digest { Serves::DigestOnly } else { Serves::All });
            let location = mirror.location.trim_end_matches('/').to_owned();
            Mirror { location, insecure: mirror.insecure, serves }
        });
        let mirrors = mirrors.collect();
        Ok(Rule { prefix: canonical(&prefix), blocked: form.blocked, insecure: form.insecure, location, mirrors })
    }

    /// How much of a repository's name is this prefix.
    fn matched(&self, name: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let registry = name.split('/').next().unwrap_or_default();
            // As in containers/image, a domain stands for its registries at every port.
            let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
            return [registry, host].into_iter().find(|name| name.ends_with(domain)).map(str::len);
        }
        let rest = name.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(self.prefix.len())
    }
}

/// A prefix with its registry by the one name that it has here.
fn canonical(prefix: &str) -> String {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let domain =
            domain.parse::<Registry>().map_or_else(|_| domain.to_ascii_lowercase(), |domain| domain.to_string());
        return format!("*.{domain}");
    }
    let (host, path) = prefix.split_once('/').map_or((prefix, None), |(host, path)| (host, Some(path)));
    match (host.parse::<Registry>(), path) {
        (Ok(registry), Some(path)) => format!("{registry}/{path}"),
        (Ok(registry), None) => registry.to_string(),
        (Err(_), _) => prefix.to_owned(),
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries,
    };
    let paths = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut paths = paths.map_err(|error| Error::failed("read", directory.display(), error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    Ok(paths)
}

#[derive(Deserialize)]
struct Form {
    #[serde(default)]
    registry: Vec<RuleForm>,
    /// The table of the first format.
    registries: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RuleForm {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    insecure: bool,
    mirror_by_digest_only: Option<bool>,
    #[serde(default)]
    mirror: Vec<MirrorForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorForm {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Serves>,
}

#[cfg(test)]
mod tests {
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
        let place = |place: &Place| {
            let insecure = if place.insecure { "!" } else { "" };
            match place.serves {
                Serves::All => format!("{}{insecure}", place.repository),
                serves => format!("{}{insecure} {serves:?}", place.repository),
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
            ("[registries.search]\nregistries = []", "first format"),
            ("[[registry]]\nblocked = true", "neither prefix nor location"),
            ("[[registry]]\nprefix = \"https://x\"", "not the beginning"),
            ("[[registry]]\nprefix = \"*.x/y\"", "many registries"),
            ("[[registry]]\nprefix = \"x\"\nblocked = \"yes\"", "line 3"),
            ("[[registry]]\nprefix = \"x\"\n[[registry.mirror]]\nlocation=\"y\"\npull-from-mirror=\"z\"", "line 5"),
            ("[[registry", "line 1"),
        ] {
            let found = RegistriesConf::parse(text).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
        let conf = RegistriesConf::parse("[[registry]]\nprefix = \"x.y\"\nlocation = \"NOT A NAME\"").unwrap();
        assert!(matches!(conf.routes(&"x.y/z".parse().unwrap()), Err(Error::Broken { .. })));
    }

    #[test]
    fn later_files_replace_what_is_said_of_a_prefix() {
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
