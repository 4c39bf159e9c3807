use std::fmt;
use std::str::FromStr;

use ocikit_spec::{Error, Registry, Repository};

/// What a stored credential is for: a whole registry, or the repositories at and below a path in it.
///
/// podman reads and writes such entries too; docker ignores the ones with a path.
///
/// ```
/// use ocikit_registry::CredentialScope;
///
/// let scope: CredentialScope = "https://ghcr.io/acme".parse()?;
/// assert_eq!(scope.to_string(), "ghcr.io/acme");
/// assert_eq!((scope.registry().as_str(), scope.path()), ("ghcr.io", Some("acme")));
/// assert_eq!("https://index.docker.io/v1/".parse::<CredentialScope>()?.path(), None);
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialScope {
    registry: Registry,
    path: Option<String>,
}

impl CredentialScope {
    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the repository, or the namespace of repositories; `None` for the whole registry.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }
}

impl From<Registry> for CredentialScope {
    fn from(registry: Registry) -> CredentialScope {
        CredentialScope { registry, path: None }
    }
}

impl From<&Registry> for CredentialScope {
    fn from(registry: &Registry) -> CredentialScope {
        registry.clone().into()
    }
}

impl FromStr for CredentialScope {
    type Err = Error;

    /// Parses `HOST` or `HOST/PATH`, also as a URL.
    fn from_str(text: &str) -> Result<CredentialScope, Error> {
        let (host, path) = host_and_path(text);
        let registry: Registry = host.parse()?;
        let path = path.map(|path| Repository::new(registry.clone(), path).map(|found| found.path().to_owned()));
        Ok(CredentialScope { path: path.transpose()?, registry })
    }
}

/// Splits `HOST` or `HOST/PATH`, also as a URL.
pub(crate) fn host_and_path(text: &str) -> (&str, Option<&str>) {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    // The version of the API, as docker writes it, is no path.
    (host, Some(path.trim_end_matches('/')).filter(|path| !["", "v1", "v2"].contains(path)))
}

impl fmt::Display for CredentialScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            None => self.registry.fmt(f),
            Some(path) => write!(f, "{}/{path}", self.registry),
        }
    }
}
