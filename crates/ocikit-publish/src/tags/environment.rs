use std::collections::{BTreeMap, BTreeSet};

/// The environment variables that templates may read.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AllowedEnvironment {
    /// The names that are allowed.
    pub allowed: BTreeSet<String>,
    /// The values of those that are set.
    pub values: BTreeMap<String, String>,
}

impl AllowedEnvironment {
    /// Takes the variables with these names from an environment.
    pub fn new(
        allowed: impl IntoIterator<Item = String>,
        environment: &BTreeMap<String, String>,
    ) -> AllowedEnvironment {
        let allowed: BTreeSet<_> = allowed.into_iter().collect();
        let found = |name: &String| Some((name.clone(), environment.get(name)?.clone()));
        AllowedEnvironment { values: allowed.iter().filter_map(found).collect(), allowed }
    }
}
