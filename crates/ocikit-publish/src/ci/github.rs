//! GitHub Actions: <https://docs.github.com/actions/reference/variables-reference> and the payloads of webhooks.

use serde::Deserialize;

use super::error::CiError;
use super::variables::Variables;
use crate::git::{Event, GitState};

const EVENTS: [(&str, Event); 5] = [
    ("pull_request_target", Event::PullRequest),
    ("push", Event::Push),
    ("workflow_dispatch", Event::Dispatch),
    ("schedule", Event::Schedule),
    ("merge_group", Event::MergeGroup),
];

#[derive(Deserialize)]
struct Payload {
    repository: Option<Repository>,
    head_commit: Option<Commit>,
    after: Option<String>,
    #[serde(rename = "ref")]
    full_ref: Option<String>,
    pull_request: Option<PullRequest>,
    merge_group: Option<MergeGroup>,
}

#[derive(Deserialize)]
struct Repository {
    name: Option<String>,
    default_branch: Option<String>,
    owner: Option<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    login: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
}

#[derive(Deserialize)]
struct PullRequest {
    number: u64,
    base: Side,
    head: Side,
}

#[derive(Deserialize)]
struct Side {
    sha: String,
    #[serde(rename = "ref")]
    branch: Option<String>,
}

#[derive(Deserialize)]
struct MergeGroup {
    head_sha: String,
}

pub(super) fn git_state(
    variables: Variables<'_>,
    read: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
) -> Result<GitState, CiError> {
    let event = variables.event("GITHUB_EVENT_NAME", &EVENTS)?;
    let path = variables.required("GITHUB_EVENT_PATH")?;
    let bytes = read(&path).map_err(|source| CiError::Event { path, source })?;
    let payload: Payload = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let mut git = GitState { event, ..GitState::default() };
    if let Some(repository) = &payload.repository {
        git.repository.clone_from(&repository.name);
        git.owner = repository.owner.as_ref().and_then(|owner| owner.login.clone().or_else(|| owner.name.clone()));
    }
    if let (None, Some((owner, name))) =
        (&git.repository, variables.get("GITHUB_REPOSITORY").and_then(|full| full.split_once('/')))
    {
        (git.owner, git.repository) = (Some(owner.to_owned()), Some(name.to_owned()));
    }
    match event {
        Event::PullRequest => {
            let pull_request = payload.pull_request.ok_or_else(|| wrong("it has no `pull_request`".to_owned()))?;
            git.pull_request = Some(pull_request.number).filter(|number| *number > 0);
            (git.base_sha, git.head_sha) = (Some(pull_request.base.sha), Some(pull_request.head.sha));
            git.base_ref = pull_request.base.branch.map(|branch| format!("refs/heads/{branch}"));
            return Ok(git);
        }
        Event::Push => {
            // A deleted branch has no commit; its `after` is all zeros.
            let after = payload.after.filter(|after| after.bytes().any(|digit| digit != b'0'));
            let commit = payload.head_commit.map(|commit| commit.id).or(after);
            git.base_sha = Some(commit.ok_or_else(|| wrong("it has no commit; was the branch deleted?".to_owned()))?);
            if let Some(full) = payload.full_ref.or_else(|| variables.owned("GITHUB_REF")) {
                git.set_ref(&full);
            }
        }
        _ => {
            git.base_sha = Some(variables.required("GITHUB_SHA")?);
            git.set_ref(&variables.required("GITHUB_REF")?);
        }
    }
    if let Event::MergeGroup = event {
        let group = payload.merge_group.ok_or_else(|| wrong("it has no `merge_group`".to_owned()))?;
        git.head_sha = Some(group.head_sha);
        // The branch is that of the queue.
        git.branch = None;
    }
    let default = payload.repository.and_then(|repository| repository.default_branch);
    git.is_default_branch = git.branch.is_some() && git.branch == default;
    Ok(git)
}

fn wrong(problem: String) -> CiError {
    CiError::Payload { problem }
}
