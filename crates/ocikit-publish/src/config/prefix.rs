use std::fmt;
use std::str::FromStr;

use ocikit::{Registry, Repository};

/// A registry, or a path in it, to which the name of an image is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    registry: Registry,
    path: String,
}

impl Prefix {
    /// Returns the repository of an image.
    ///
    /// # Errors
    ///
    /// If path and name together are not a repository name.
    pub fn repository(&self, name: &str) -> Result<Repository, ocikit::spec::Error> {
        let path = [&*self.path, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Repository::new(self.registry.clone(), &path)
    }
}

impl FromStr for Prefix {
    type Err = ocikit::spec::Error;

    fn from_str(text: &str) -> Result<Prefix, ocikit::spec::Error> {
        let (registry, path) = text.split_once('/').unwrap_or((text, ""));
        let prefix = Prefix { registry: registry.parse()?, path: path.trim_end_matches('/').to_owned() };
        if !prefix.path.is_empty() {
            prefix.repository("")?;
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.registry)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}
