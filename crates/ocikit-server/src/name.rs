use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ocikit_spec::{Error, Registry, Repository};

/// The name of a repository within this registry, `<name>` in the specification: cheap to clone, and safe as a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RepositoryName(Arc<str>);

impl RepositoryName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = Error;

    /// Parses a name by the grammar of `ocikit-spec`, which excludes empty components, `..` and a leading `_`.
    fn from_str(text: &str) -> Result<RepositoryName, Error> {
        // The registry does not matter: only the path is kept, and its grammar is the same for all registries.
        Repository::new(Registry::docker_hub(), text).map(|repository| RepositoryName(repository.path().into()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
