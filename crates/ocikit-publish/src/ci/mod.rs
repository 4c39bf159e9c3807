//! CI systems: what they say about the commit, and how a job hands results to the next one.
//!
//! The environment is a map, so that everything here can be tested with recorded environments.

mod azure;
mod command;
mod error;
mod github;
mod gitlab;
mod jenkins;
mod output;
mod variables;

use std::collections::BTreeMap;

use serde::Serialize;

pub use error::CiError;
pub use output::{Delimiter, OutputError, dotenv, group_end, group_start, mask, set_variables, step_outputs};
pub use variables::Variables;

use crate::git::GitState;

/// A CI system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum System {
    /// GitHub Actions.
    GithubActions,
    /// GitLab CI.
    GitlabCi,
    /// Azure DevOps pipelines.
    AzureDevops,
    /// Jenkins.
    Jenkins,
    /// None: a shell.
    #[default]
    None,
}

impl System {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            System::GithubActions => "GitHub Actions",
            System::GitlabCi => "GitLab CI",
            System::AzureDevops => "Azure DevOps",
            System::Jenkins => "Jenkins",
            System::None => "none",
        }
    }

    /// Determines the system from an environment.
    ///
    /// # Errors
    ///
    /// [`CiError::Unknown`] if `CI=true` and no system is recognized.
    pub fn detect(environment: &BTreeMap<String, String>) -> Result<System, CiError> {
        let variables = Variables(environment);
        let is = |name: &str| variables.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let has = |name: &str| variables.get(name).is_some();
        let is_ci = is("CI");
        Ok(match () {
            () if is("GITHUB_ACTIONS") => System::GithubActions,
            () if is("GITLAB_CI") => System::GitlabCi,
            () if is("TF_BUILD") || (is_ci && has("BUILD_BUILDID")) => System::AzureDevops,
            // A shell on the controller has `JENKINS_HOME` too.
            () if has("JENKINS_URL") || (is_ci && has("JENKINS_HOME")) => System::Jenkins,
            () if is_ci => return Err(CiError::Unknown),
            () => System::None,
        })
    }
}

/// A job of a CI system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Environment {
    /// The system.
    pub system: System,
    /// The git state.
    pub git: GitState,
}

impl Environment {
    /// Reads the git state of a job from its environment. `read` returns the content of a file: GitHub Actions describes
    /// the event in one. Outside CI the state is empty.
    ///
    /// # Errors
    ///
    /// [`CiError`] if a variable is missing or malformed, or the event is not supported.
    pub fn read(
        environment: &BTreeMap<String, String>,
        read: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Environment, CiError> {
        let variables = Variables(environment);
        let system = System::detect(environment)?;
        let git = match system {
            System::GithubActions => github::git_state(variables, read)?,
            System::GitlabCi => gitlab::git_state(variables)?,
            System::AzureDevops => azure::git_state(variables)?,
            System::Jenkins => jenkins::git_state(variables)?,
            System::None => GitState::default(),
        };
        Ok(Environment { system, git })
    }
}

#[cfg(test)]
mod tests;
