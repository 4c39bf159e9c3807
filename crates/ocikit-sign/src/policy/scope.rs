use std::fmt;

use ocikit_spec::{Registry, Repository};

use crate::error::{Error, PolicyFile, Result};

/// The scope of a rule: the repositories that it applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All repositories, and images outside of a repository.
    All,
    /// Repositories whose full name has this prefix, which ends with a slash.
    Below(String),
    /// This repository.
    One(String),
}

impl Scope {
    /// Parses `*`, `ghcr.io`, `ghcr.io/acme/*` or `ghcr.io/acme/app`. A registry without a path means all of its repositories.
    /// Other names without a registry are on Docker Hub, as in references.
    ///
    /// A text that could mean two scopes is refused: with the wrong one, an image would pass by a later rule.
    pub(crate) fn parse(text: &str) -> Result<Scope> {
        if text == "*" {
            return Ok(Scope::All);
        }
        let refuse = |problem: String| Error::policy(PolicyFile::Policy, problem);
        let invalid = |error: ocikit_spec::Error| refuse(format!("`{text}`: {error}"));
        if let Some(prefix) = text.strip_suffix("/*") {
            // With two more parts, a name on Docker Hub is not expanded to `library/NAME`.
            let probe = format!("{prefix}/x/x").parse::<Repository>().map_err(invalid)?.to_string();
            return Ok(Scope::Below(probe.strip_suffix("x/x").unwrap_or_default().to_owned()));
        }
        if !text.contains('/') && Registry::is_name(text) {
            let registry: Registry = text.parse().map_err(invalid)?;
            let host = registry.host();
            // `alpine:3` can be a registry with a port, or a repository with a tag.
            if !host.contains(['.', ':']) && host != "localhost" {
                return Err(refuse(format!(
                    "`{text}` is a registry or a repository; write `{registry}/*` or `docker.io/library/{host}`"
                )));
            }
            return Ok(Scope::Below(format!("{registry}/")));
        }
        let repository: Repository = text.parse().map_err(|error: ocikit_spec::Error| refuse(error.to_string()))?;
        if repository.registry().is_docker_hub()
            && repository.path() == "library/library"
            && !text.ends_with("/library/library")
        {
            return Err(refuse(format!("`{text}` is ambiguous; write `docker.io/library/*` for the official images")));
        }
        Ok(Scope::One(repository.to_string()))
    }

    /// Returns whether the rule applies to an image in this repository, or outside of a repository.
    pub(crate) fn fits(&self, repository: Option<&Repository>) -> bool {
        match (self, repository) {
            (Scope::All, _) => true,
            (_, None) => false,
            (Scope::Below(prefix), Some(repository)) => repository.to_string().starts_with(prefix),
            (Scope::One(name), Some(repository)) => repository.to_string() == *name,
        }
    }

    /// Returns whether every repository in the other scope is in this one.
    pub(crate) fn covers(&self, other: &Scope) -> bool {
        match (self, other) {
            (Scope::All, _) => true,
            (_, Scope::All) => false,
            (Scope::Below(prefix), Scope::Below(name) | Scope::One(name)) => name.starts_with(prefix),
            (Scope::One(one), Scope::One(other)) => one == other,
            (Scope::One(_), Scope::Below(_)) => false,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::All => f.write_str("*"),
            Scope::Below(prefix) => write!(f, "{prefix}*"),
            Scope::One(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_match_whole_path_components() {
        for (scope, repository, fits) in [
            ("*", "ghcr.io/acme/app", true),
            ("ghcr.io/*", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/*", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/*", "ghcr.io/acme/app/deep", true),
            ("ghcr.io/acme/*", "ghcr.io/acmes/app", false),
            ("ghcr.io/acme/*", "ghcr.io/acme", false),
            ("ghcr.io/acme/app", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/app", "ghcr.io/acme/apps", false),
            ("alpine", "docker.io/library/alpine", true),
            ("index.docker.io/*", "alpine", true),
            ("docker.io/*", "acme/app", true),
            ("acme/*", "docker.io/acme/app", true),
            ("localhost:5000/*", "localhost:5000/a", true),
            ("localhost:05000/*", "LOCALHOST:5000/a", true),
            ("GHCR.io:443/acme/*", "ghcr.io./acme/app", true),
            ("ghcr.io/acme/app", "GHCR.IO:0443/acme/app", true),
            ("[2001:db8:0::1]/a", "[2001:DB8::1]:443/a", true),
            ("127.0.0.1:5000/*", "[::ffff:127.0.0.1]:5000/a", true),
            ("localhost:5000/*", "localhost:50001/a", false),
            ("library/*", "alpine", true),
            ("docker.io/library/library", "docker.io/library/library", true),
        ] {
            let found = Scope::parse(scope).unwrap().fits(Some(&repository.parse().unwrap()));
            assert_eq!(found, fits, "{scope} {repository}");
        }
        assert!(Scope::All.fits(None) && !Scope::parse("ghcr.io/*").unwrap().fits(None));
        for text in
            ["", "/*", "ghcr.io/acme*", "ghcr.io/*/app", "ghcr.io/acme/app:1", "**", "A/*/*", "ghcr.io/", "localhost/"]
        {
            assert!(Scope::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_registry_without_a_path_means_all_of_its_repositories() {
        for (scope, repository, shown) in [
            ("ghcr.io", "ghcr.io/acme/app", "ghcr.io/*"),
            ("GHCR.IO.:443", "ghcr.io/acme/app", "ghcr.io/*"),
            ("localhost", "localhost/a", "localhost/*"),
            ("LOCALHOST", "localhost/a", "localhost/*"),
            ("localhost:5000", "localhost:5000/a/b", "localhost:5000/*"),
            ("127.0.0.1", "127.0.0.1/a", "127.0.0.1/*"),
            ("127.0.0.1:05000", "127.0.0.1:5000/a", "127.0.0.1:5000/*"),
            ("[::1]", "[::1]/a", "[::1]/*"),
            ("[0:0::1]:5000", "[::1]:5000/a", "[::1]:5000/*"),
            ("docker.io", "alpine", "docker.io/*"),
            ("index.docker.io", "acme/app", "docker.io/*"),
        ] {
            let scope = Scope::parse(scope).unwrap();
            assert!(scope.fits(Some(&repository.parse().unwrap())), "{scope} {repository}");
            assert!(!scope.fits(Some(&"other.example/app".parse().unwrap())), "{scope}");
            assert_eq!(scope.to_string(), shown);
        }
        for text in [
            "registry:5000",
            "alpine:3",
            "alpine:3.22",
            "Alpine",
            "::1",
            "*.example.com",
            "ghcr.io*",
            "docker.io/library",
            "library",
            "https://ghcr.io",
        ] {
            assert!(Scope::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wider_scope_covers_a_narrower_one() {
        for (one, other, covers) in [
            ("*", "ghcr.io/acme/app", true),
            ("ghcr.io/*", "ghcr.io/acme/*", true),
            ("ghcr.io/acme/*", "ghcr.io/*", false),
            ("ghcr.io/acme/*", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/app", "ghcr.io/acme/app", true),
            ("ghcr.io/acme/app", "ghcr.io/acme/app/*", false),
            ("ghcr.io/*", "*", false),
        ] {
            assert_eq!(Scope::parse(one).unwrap().covers(&Scope::parse(other).unwrap()), covers, "{one} {other}");
        }
    }
}
