//! GitLab CI: <https://docs.gitlab.com/ci/variables/predefined_variables/>.

use super::error::CiError;
use super::variables::Variables;
use crate::git::{Event, GitState};

const SOURCES: [(&str, Event); 10] = [
    ("push", Event::Push),
    ("merge_request_event", Event::PullRequest),
    ("external_pull_request_event", Event::PullRequest),
    ("schedule", Event::Schedule),
    ("web", Event::Dispatch),
    ("api", Event::Dispatch),
    ("trigger", Event::Dispatch),
    ("chat", Event::Dispatch),
    ("pipeline", Event::Dispatch),
    ("parent_pipeline", Event::Dispatch),
];

pub(super) fn git_state(variables: Variables<'_>) -> Result<GitState, CiError> {
    let event = variables.event("CI_PIPELINE_SOURCE", &SOURCES)?;
    let is_train = variables.get("CI_MERGE_REQUEST_EVENT_TYPE") == Some("merge_train");
    let event = if is_train { Event::MergeGroup } else { event };
    let commit = variables.required("CI_COMMIT_SHA")?;
    let mut git = GitState {
        event,
        owner: variables.owned("CI_PROJECT_NAMESPACE"),
        repository: variables.owned("CI_PROJECT_NAME"),
        ..GitState::default()
    };
    match event {
        Event::PullRequest | Event::MergeGroup => {
            let number = variables.number("CI_MERGE_REQUEST_IID")?;
            git.pull_request = number.filter(|_| event == Event::PullRequest);
            git.base_sha = variables.owned("CI_MERGE_REQUEST_DIFF_BASE_SHA");
            // With merged results the pipeline runs on a temporary merge commit.
            git.head_sha = variables.owned("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA").or(Some(commit));
            git.base_ref =
                variables.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME").map(|branch| format!("refs/heads/{branch}"));
        }
        Event::Push | Event::Dispatch | Event::Schedule | Event::Local => {
            git.base_sha = Some(commit);
            if let Some(tag) = variables.get("CI_COMMIT_TAG") {
                git.set_ref(&format!("refs/tags/{tag}"));
            }
            if let Some(branch) = variables.get("CI_COMMIT_BRANCH") {
                git.set_ref(&format!("refs/heads/{branch}"));
            }
            git.is_default_branch = git.branch.is_some() && git.branch == variables.owned("CI_DEFAULT_BRANCH");
        }
    }
    Ok(git)
}
