//! Reading `registries.conf`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::{Error, Result};
use ocikit_spec::Registry;
use serde::Deserialize;

use super::{Mirror, MirrorScope, RegistriesConf, Rule};

/// Why a `registries.conf` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRegistriesConf {
    /// It is not TOML, or has keys of other types.
    #[error("{problem}")]
    Syntax {
        /// The problem, with its line.
        problem: String,
    },
    /// It is in the old format.
    #[error("it is in version 1, with `[registries.search]`, which is not supported")]
    Version1,
    /// A registry has no name.
    #[error("a registry has neither prefix nor location")]
    NoPrefix,
    /// A prefix cannot be the beginning of a repository name.
    #[error("`{prefix}` is not a prefix of a repository name")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// A prefix for many registries has what only one can have.
    #[error("`{prefix}` matches many registries, so it cannot have a path or a location")]
    Pattern {
        /// The prefix.
        prefix: String,
    },
}

impl RegistriesConf {
    /// Parses a configuration.
    ///
    /// # Errors
    ///
    /// [`InvalidRegistriesConf`].
    pub fn parse(text: &str) -> Result<RegistriesConf, InvalidRegistriesConf> {
        let document: Document =
            toml::from_str(text).map_err(|error| InvalidRegistriesConf::Syntax { problem: error.to_string() })?;
        if document.registries.is_some() {
            return Err(InvalidRegistriesConf::Version1);
        }
        let rules = document.registry.into_iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(RegistriesConf { rules })
    }

    /// Reads a file and the `*.conf` files of directories, in alphabetical order within each directory. A later file
    /// replaces the settings of an earlier one for the same prefix. A missing file counts as empty.
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
            let text = match ocikit_http::files::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(|error| Error::failed("read", path.display(), error))?,
            };
            let part = RegistriesConf::parse(&text).map_err(|problem| Error::broken(path.display(), problem))?;
            whole.rules.retain(|rule| part.rules.iter().all(|newer| newer.prefix != rule.prefix));
            whole.rules.extend(part.rules);
        }
        Ok(whole)
    }
}

impl Rule {
    fn new(table: RuleTable) -> Result<Rule, InvalidRegistriesConf> {
        let location = table.location.map(|location| location.trim_end_matches('/').to_owned());
        let prefix = table.prefix.or_else(|| location.clone()).ok_or(InvalidRegistriesConf::NoPrefix)?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        if prefix.is_empty() || prefix.contains("://") {
            return Err(InvalidRegistriesConf::Prefix { prefix });
        }
        if prefix.starts_with("*.") && (prefix.contains('/') || location.is_some()) {
            return Err(InvalidRegistriesConf::Pattern { prefix });
        }
        let mirrors = table.mirror.into_iter().map(|mirror| {
            let by_digest = table.mirror_by_digest_only.unwrap_or_default();
            let scope =
                mirror.pull_from_mirror.unwrap_or(if by_digest { MirrorScope::DigestOnly } else { MirrorScope::All });
            let location = mirror.location.trim_end_matches('/').to_owned();
            Mirror { location, insecure: mirror.insecure, scope }
        });
        let mirrors = mirrors.collect();
        Ok(Rule { prefix: canonical(&prefix), blocked: table.blocked, insecure: table.insecure, location, mirrors })
    }
}

/// Returns a prefix with the canonical name of its registry.
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
struct Document {
    #[serde(default)]
    registry: Vec<RuleTable>,
    /// The table of the old format.
    registries: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RuleTable {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    insecure: bool,
    mirror_by_digest_only: Option<bool>,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<MirrorScope>,
}
