//! Azure DevOps: the variables of the image builder's pipeline (`JOB_TYPE`, …) if they are set, and else those of
//! <https://learn.microsoft.com/azure/devops/pipelines/build/variables>.

use super::error::CiError;
use super::variables::Variables;
use crate::git::{Event, GitState};

const JOB_TYPES: [(&str, Event); 5] = [
    ("presubmit", Event::PullRequest),
    ("postsubmit", Event::Push),
    ("workflow_dispatch", Event::Dispatch),
    ("schedule", Event::Schedule),
    ("merge_group", Event::MergeGroup),
];

const REASONS: [(&str, Event); 5] = [
    ("IndividualCI", Event::Push),
    ("BatchedCI", Event::Push),
    ("PullRequest", Event::PullRequest),
    ("Schedule", Event::Schedule),
    ("Manual", Event::Dispatch),
];

pub(super) fn git_state(variables: Variables<'_>) -> Result<GitState, CiError> {
    if variables.get("JOB_TYPE").is_none() {
        return native(variables);
    }
    let event = variables.event("JOB_TYPE", &JOB_TYPES)?;
    let mut git = GitState {
        event,
        owner: Some(variables.required("REPO_OWNER")?),
        repository: Some(variables.required("REPO_NAME")?),
        base_sha: Some(variables.required("PULL_BASE_SHA")?),
        ..GitState::default()
    };
    match event {
        Event::PullRequest => {
            let number = variables.number("PULL_NUMBER")?;
            let missing = || CiError::Missing { variable: "PULL_NUMBER".to_owned() };
            git.pull_request = Some(number.ok_or_else(missing)?);
            git.head_sha = Some(variables.required("PULL_PULL_SHA")?);
        }
        Event::MergeGroup => git.head_sha = variables.owned("PULL_PULL_SHA"),
        Event::Push | Event::Dispatch | Event::Schedule | Event::Local => {}
    }
    if let Some(full) = variables.get("BASE_REF") {
        git.set_ref(full);
    }
    Ok(git)
}

fn native(variables: Variables<'_>) -> Result<GitState, CiError> {
    let event = variables.event("BUILD_REASON", &REASONS)?;
    let full = variables.required("BUILD_REPOSITORY_NAME")?;
    let (owner, repository) = match full.rsplit_once('/') {
        Some((owner, repository)) => (Some(owner.to_owned()), repository.to_owned()),
        None => (variables.owned("SYSTEM_TEAMPROJECT"), full.clone()),
    };
    let commit = variables.required("BUILD_SOURCEVERSION")?;
    let mut git = GitState { event, owner, repository: Some(repository), ..GitState::default() };
    match event {
        Event::PullRequest => {
            // Repositories on GitHub have a number, those of Azure an id.
            let number = variables.number("SYSTEM_PULLREQUEST_PULLREQUESTNUMBER")?;
            git.pull_request = match number {
                Some(number) => Some(number),
                None => variables.number("SYSTEM_PULLREQUEST_PULLREQUESTID")?,
            };
            git.head_sha = variables.owned("SYSTEM_PULLREQUEST_SOURCECOMMITID").or(Some(commit));
            git.base_ref = variables.owned("SYSTEM_PULLREQUEST_TARGETBRANCH");
        }
        _ => {
            git.base_sha = Some(commit);
            git.set_ref(&variables.required("BUILD_SOURCEBRANCH")?);
        }
    }
    Ok(git)
}
