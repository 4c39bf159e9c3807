//! What a CI system knows about the commit that is built.

use serde::{Deserialize, Serialize};

/// The event that started a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A commit or tag was pushed.
    Push,
    /// A pull or merge request was opened or changed.
    PullRequest,
    /// A merge queue tests a group of pull requests.
    MergeGroup,
    /// A user started the job.
    Dispatch,
    /// A schedule started the job.
    Schedule,
    /// No CI system started it.
    #[default]
    Local,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 6] =
        [Event::Push, Event::PullRequest, Event::MergeGroup, Event::Dispatch, Event::Schedule, Event::Local];

    /// Returns the name in configuration files and output.
    pub fn name(self) -> &'static str {
        match self {
            Event::Push => "push",
            Event::PullRequest => "pull_request",
            Event::MergeGroup => "merge_group",
            Event::Dispatch => "dispatch",
            Event::Schedule => "schedule",
            Event::Local => "local",
        }
    }

    /// Returns the job type, as signers select by it; `None` outside CI.
    pub fn job_type(self) -> Option<&'static str> {
        Some(match self {
            Event::Push => "postsubmit",
            Event::PullRequest => "presubmit",
            Event::MergeGroup => "merge_group",
            Event::Dispatch => "workflow_dispatch",
            Event::Schedule => "schedule",
            Event::Local => return None,
        })
    }

    /// Returns whether the commit is accepted: it is not that of a pull request or a merge queue.
    pub fn is_accepted(self) -> bool {
        match self {
            Event::Push | Event::Dispatch | Event::Schedule => true,
            Event::PullRequest | Event::MergeGroup | Event::Local => false,
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The git state of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GitState {
    /// The event.
    pub event: Event,
    /// The owner of the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The name of the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The commit; of a pull request the one that it is to be merged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_sha: Option<String>,
    /// The commit of a pull request or merge group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_sha: Option<String>,
    /// The full name of the ref, such as `refs/heads/main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ref: Option<String>,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Whether the branch is the default branch.
    pub is_default_branch: bool,
    /// The git tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The number of the pull or merge request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
}

impl GitState {
    /// Returns the commit that is built.
    pub fn commit(&self) -> Option<&str> {
        self.head_sha.as_deref().or(self.base_sha.as_deref())
    }

    /// Returns the first characters of the commit; the field has 8 in templates and 7 in the plugin's tags.
    pub fn short_commit(&self, length: usize) -> String {
        self.commit().unwrap_or_default().chars().take(length).collect()
    }

    /// Returns `owner/repository`.
    pub fn full_name(&self) -> Option<String> {
        Some(format!("{}/{}", self.owner.as_deref()?, self.repository.as_deref()?))
    }

    /// Sets branch and tag from the full name of a ref.
    pub fn set_ref(&mut self, full: &str) {
        if let Some(branch) = full.strip_prefix("refs/heads/") {
            self.branch = Some(branch.to_owned());
        }
        if let Some(tag) = full.strip_prefix("refs/tags/") {
            self.tag = Some(tag.to_owned());
        }
        self.base_ref = Some(full.to_owned());
    }
}
