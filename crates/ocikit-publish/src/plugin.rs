//! The environment of the container-image publisher plugin: `PLP_ARTIFACT_PATH` and others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ocikit::Repository;
use ocikit::registry::{Credential, Secret};

use crate::git::{Event, GitState};

/// What the environment of the plugin asks for.
#[derive(Clone)]
#[non_exhaustive]
pub struct PluginJob {
    /// The archive.
    pub artifact: PathBuf,
    /// The repository.
    pub repository: Repository,
    /// The credential for every request.
    pub credential: Credential,
    /// The git state.
    pub git: GitState,
}

impl fmt::Debug for PluginJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PluginJob { artifact, repository, git, .. } = self;
        let mut debug = f.debug_struct("PluginJob");
        debug.field("artifact", artifact).field("repository", repository).field("git", git).finish_non_exhaustive()
    }
}

/// Why the environment of the plugin is not complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// A variable is not set, or empty.
    #[error("cannot publish: the environment variable {0} is not set")]
    Missing(&'static str),
    /// There is neither a branch, a tag nor a pull request.
    #[error("cannot publish: at least one of PLP_BRANCH_NAME, PLP_TAG_NAME and PLP_PULL_REQUEST_NUMBER must be set")]
    NoContext,
    /// A variable has a value that cannot be used.
    #[error("cannot publish: {variable}: {problem}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// The problem.
        problem: String,
    },
}

/// The variables that must be set.
const REQUIRED: [&str; 5] =
    ["PLP_ARTIFACT_PATH", "PLP_IMAGE_REPOSITORY", "PLP_COMMIT_SHA", "PLP_REGISTRY_USERNAME", "PLP_REGISTRY_PASSWORD"];

impl PluginJob {
    /// Returns whether an environment is meant for the plugin: it has any of the required variables.
    pub fn is_meant(environment: &BTreeMap<String, String>) -> bool {
        REQUIRED.iter().any(|name| environment.contains_key(*name))
    }

    /// Reads the environment. An empty variable counts as unset. `PLP_MERGE_REQUEST_NUMBER` is another name of
    /// `PLP_PULL_REQUEST_NUMBER`.
    ///
    /// # Errors
    ///
    /// [`PluginError`]; no message contains a credential.
    pub fn read(environment: &BTreeMap<String, String>) -> Result<PluginJob, PluginError> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let [artifact, repository, commit, username, password] =
            REQUIRED.map(|name| get(name).ok_or(PluginError::Missing(name)));
        let artifact = PathBuf::from(artifact?);
        let repository = repository?;
        let (commit, username, password) = (commit?, username?, password?);
        let number = get("PLP_PULL_REQUEST_NUMBER").map(|number| ("PLP_PULL_REQUEST_NUMBER", number));
        let number = number.or_else(|| Some(("PLP_MERGE_REQUEST_NUMBER", get("PLP_MERGE_REQUEST_NUMBER")?)));
        let pull_request = match number {
            None => None,
            Some((variable, text)) => {
                let number = text.parse().ok().filter(|number: &u64| *number > 0);
                let invalid = || PluginError::Invalid { variable, problem: format!("`{text}` is not a number") };
                Some(number.ok_or_else(invalid)?)
            }
        };
        let (branch, tag) = (get("PLP_BRANCH_NAME"), get("PLP_TAG_NAME"));
        if branch.is_none() && tag.is_none() && pull_request.is_none() {
            return Err(PluginError::NoContext);
        }
        let invalid = |problem: String| PluginError::Invalid { variable: "PLP_IMAGE_REPOSITORY", problem };
        let last = repository.rsplit('/').next().unwrap_or_default();
        if repository.contains('@') || (repository.contains('/') && last.contains(':')) {
            return Err(invalid(format!("`{repository}` has a tag or digest; the tags come from the git state")));
        }
        let repository = repository.parse().map_err(|error: ocikit::spec::Error| invalid(error.to_string()))?;
        let event = if pull_request.is_some() { Event::PullRequest } else { Event::Push };
        let is_default_branch = environment.get("PLP_IS_DEFAULT_BRANCH").is_some_and(|value| value == "true");
        let git = GitState {
            event,
            base_sha: Some(commit),
            branch,
            is_default_branch,
            tag,
            pull_request,
            ..GitState::default()
        };
        let credential = Credential::Password { username, password: Secret::new(password) };
        Ok(PluginJob { artifact, repository, credential, git })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: &[(&str, Option<&str>)]) -> Result<PluginJob, PluginError> {
        let mut environment: BTreeMap<String, String> = [
            ("PLP_ARTIFACT_PATH", "/build/container-image.tar"),
            ("PLP_IMAGE_REPOSITORY", "ghcr.io/acme/app"),
            ("PLP_COMMIT_SHA", "6c22711aabb"),
            ("PLP_REGISTRY_USERNAME", "canary-user"),
            ("PLP_REGISTRY_PASSWORD", "canary-password"),
            ("PLP_BRANCH_NAME", "main"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, value) in change {
            match value {
                Some(value) => environment.insert((*name).to_owned(), (*value).to_owned()),
                None => environment.remove(*name),
            };
        }
        PluginJob::read(&environment)
    }

    #[test]
    fn plp_14_merge_requests_are_pull_requests() {
        let alias = [("PLP_BRANCH_NAME", None), ("PLP_MERGE_REQUEST_NUMBER", Some("7"))];
        let job = read(&alias).unwrap();
        assert_eq!((job.git.pull_request, job.git.event), (Some(7), Event::PullRequest));
        let both = [("PLP_PULL_REQUEST_NUMBER", Some("8")), ("PLP_MERGE_REQUEST_NUMBER", Some("7"))];
        assert_eq!(read(&both).unwrap().git.pull_request, Some(8));
    }

    #[test]
    fn plp_17_missing_variables_are_named() {
        for name in REQUIRED {
            for value in [None, Some("")] {
                assert_eq!(read(&[(name, value)]).unwrap_err(), PluginError::Missing(name));
            }
        }
        assert_eq!(read(&[("PLP_BRANCH_NAME", Some(""))]).unwrap_err(), PluginError::NoContext);
        for (name, value) in [
            ("PLP_IMAGE_REPOSITORY", "ghcr.io/acme/app:1"),
            ("PLP_IMAGE_REPOSITORY", "ghcr.io/Acme/App"),
            ("PLP_PULL_REQUEST_NUMBER", "x"),
        ] {
            let error = read(&[(name, Some(value))]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot publish: {name}: ")), "{error}");
        }
        for value in ["True", "1", ""] {
            assert!(!read(&[("PLP_IS_DEFAULT_BRANCH", Some(value))]).unwrap().git.is_default_branch);
        }
    }

    #[test]
    fn plp_20_credentials_are_not_printed() {
        let text = format!("{:?}", read(&[]).unwrap());
        assert!(!text.contains("canary"), "{text}");
    }
}
