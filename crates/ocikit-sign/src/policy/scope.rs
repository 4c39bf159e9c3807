use std::fmt;

use ocikit_spec::Repository;

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
    /// Parses `*`, `ghcr.io/acme/*` or `ghcr.io/acme/app`. Names without a registry are on Docker Hub, as in
    /// references.
    pub(crate) fn parse(text: &str) -> Result<Scope> {
        if text == "*" {
            return Ok(Scope::All);
        }
        let refuse = |problem: String| Error::policy(PolicyFile::Policy, problem);
        let whole = |text: &str| text.parse::<Repository>().map(|repository| repository.to_string());
        match text.strip_suffix("/*") {
            Some(prefix) => {
                // With two more parts, a name on Docker Hub is not expanded to `library/NAME`.
                let probe = whole(&format!("{prefix}/x/x")).map_err(|error| refuse(format!("`{text}`: {error}")))?;
                Ok(Scope::Below(probe.strip_suffix("x/x").unwrap_or_default().to_owned()))
            }
            None => Ok(Scope::One(whole(text).map_err(|error| refuse(error.to_string()))?)),
        }
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
        ] {
            let found = Scope::parse(scope).unwrap().fits(Some(&repository.parse().unwrap()));
            assert_eq!(found, fits, "{scope} {repository}");
        }
        assert!(Scope::All.fits(None) && !Scope::parse("ghcr.io/*").unwrap().fits(None));
        for text in ["", "/*", "ghcr.io/acme*", "ghcr.io/*/app", "ghcr.io/acme/app:1", "**", "A/*/*"] {
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
