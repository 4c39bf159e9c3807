//! Jenkins: the variables of multibranch pipelines and the git plugin.

use super::error::CiError;
use super::variables::Variables;
use crate::git::{Event, GitState};

pub(super) fn git_state(variables: Variables<'_>) -> Result<GitState, CiError> {
    let url = variables.required("GIT_URL")?;
    let (owner, repository) = repository_of(&url)
        .ok_or(CiError::Malformed { variable: "GIT_URL".to_owned(), expected: "the URL of a repository" })?;
    let commit = variables.required("GIT_COMMIT")?;
    let mut git = GitState { owner: Some(owner), repository: Some(repository), ..GitState::default() };
    match variables.number("CHANGE_ID")? {
        Some(number) => {
            git.event = Event::PullRequest;
            git.pull_request = Some(number);
            variables.required("CHANGE_BRANCH")?;
            git.head_sha = Some(commit);
            git.base_sha = Some(variables.required("CHANGE_BASE_SHA")?);
            git.base_ref = variables.get("CHANGE_TARGET").map(|branch| format!("refs/heads/{branch}"));
        }
        None => {
            git.event = Event::Push;
            git.base_sha = Some(commit);
            git.tag = variables.owned("TAG_NAME");
            // For a build of a tag, `BRANCH_NAME` is the tag.
            let branch = variables.get("BRANCH_NAME").or_else(|| {
                let branch = variables.get("GIT_BRANCH")?;
                Some(branch.strip_prefix("origin/").unwrap_or(branch))
            });
            git.branch = branch.filter(|_| git.tag.is_none()).map(str::to_owned);
            git.is_default_branch = git.branch.is_some() && variables.get("BRANCH_IS_PRIMARY") == Some("true");
        }
    }
    Ok(git)
}

/// Returns owner and name of a repository: the last two components of its URL, which may be `https://HOST/…`,
/// `ssh://…` or `USER@HOST:…`, with or without `.git`.
fn repository_of(url: &str) -> Option<(String, String)> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => url.split_once(':')?.1,
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let (before, repository) = path.rsplit_once('/')?;
    let owner = before.rsplit('/').next()?;
    (!owner.is_empty() && !repository.is_empty()).then(|| (owner.to_owned(), repository.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_found_in_urls() {
        for url in [
            "https://github.com/acme/app.git",
            "https://github.com/acme/app",
            "git@github.com:acme/app.git",
            "ssh://git@github.com:22/acme/app.git",
            "https://host/deep/acme/app/",
        ] {
            assert_eq!(repository_of(url), Some(("acme".to_owned(), "app".to_owned())), "{url}");
        }
        let tricky = repository_of("https://github.com/my.github.io/legit-repo");
        assert_eq!(tricky, Some(("my.github.io".to_owned(), "legit-repo".to_owned())));
        for url in ["", "app", "https://host", "https://host/app", "host:app"] {
            assert_eq!(repository_of(url), None, "{url}");
        }
    }
}
