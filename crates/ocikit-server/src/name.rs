use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ocikit_spec::{Error, Registry, Repository};

/// The path of a repository within this registry, `<name>` in the specification: cheap to clone, safe as a file path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RepositoryName(Arc<str>);

impl RepositoryName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = Error;

    /// Reads a path by the grammar of `ocikit-spec`, which knows no empty part, no `..` and no leading `_`.
    fn from_str(text: &str) -> Result<RepositoryName, Error> {
        // Any registry serves: only the path is kept, and its grammar is the same everywhere.
        Repository::new(Registry::docker_hub(), text).map(|repository| RepositoryName(repository.path().into()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
