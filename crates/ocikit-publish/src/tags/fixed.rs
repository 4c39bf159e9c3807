use ocikit::Tag;

use super::error::TagError;
use super::set::{Because, Builder, PlannedTag, SkipReason};
use super::version::{Line, Release};
use crate::git::GitState;
use crate::sanitize::sanitize;

/// The fixed scheme of the container-image publisher plugin.
///
/// | given | tags |
/// |---|---|
/// | git tag `v1.2.3` | `1.2.3`, `1.2`, `1` |
/// | any other git tag | the tag |
/// | pull request 7 | `pr-7`, `pr-7-SHORTSHA` |
/// | branch | `BRANCH`, `BRANCH-SHORTSHA`; `latest` for the default branch |
///
/// Every context that is given adds its tags, in the order of the table. Names are [sanitized](sanitize). The short
/// commit has 7 characters.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FixedScheme {
    /// Whether a release also gets its git tag unchanged: `v1.2.3`.
    pub keep_v: bool,
    /// Whether a release also moves `latest`.
    pub latest_release: bool,
}

/// The number of characters of the short commit.
const SHORT_COMMIT_CHARS: usize = 7;

impl FixedScheme {
    pub(super) fn add(&self, git: &GitState, builder: &mut Builder) -> Result<(), TagError> {
        if git.tag.is_none() && git.pull_request.is_none() && git.branch.is_none() {
            return Err(TagError::NoContext);
        }
        let short = sanitize(&git.short_commit(SHORT_COMMIT_CHARS));
        if short.is_empty() {
            return Err(TagError::NoCommit { of: subject(git) });
        }
        let mut add = |value: &str, because, follows| builder.add(PlannedTag::of(value, value, because, follows)?);
        let mut is_pre_release = false;
        if let Some(git_tag) = &git.tag {
            match Release::of_tag(git_tag) {
                Some(release) => {
                    let Release { major, minor, patch } = release;
                    add(&format!("{major}.{minor}.{patch}"), Because::Version, None)?;
                    add(
                        &format!("{major}.{minor}"),
                        Because::MinorVersion,
                        Some((Line::Minor(major, minor), release)),
                    )?;
                    add(&major.to_string(), Because::MajorVersion, Some((Line::Major(major), release)))?;
                    if self.keep_v {
                        add(&sanitize(git_tag), Because::GitTag, None)?;
                    }
                    if self.latest_release {
                        add("latest", Because::LatestVersion, Some((Line::All, release)))?;
                    }
                }
                None => {
                    let version = git_tag.strip_prefix('v').unwrap_or(git_tag);
                    is_pre_release = semver::Version::parse(version).is_ok_and(|version| !version.pre.is_empty());
                    add(&named("the git tag", git_tag)?, Because::GitTag, None)?;
                }
            }
        }
        if let Some(number) = git.pull_request {
            add(&format!("pr-{number}"), Because::PullRequest, None)?;
            add(&format!("pr-{number}-{short}"), Because::PullRequestCommit, None)?;
        }
        if let Some(branch) = &git.branch {
            let branch = named("the branch", branch)?;
            add(&branch, Because::Branch, None)?;
            add(&format!("{branch}-{short}"), Because::BranchCommit, None)?;
            match (git.is_default_branch, is_pre_release) {
                (true, false) => add("latest", Because::DefaultBranch, None)?,
                (true, true) => builder.skip(Tag::latest(), "latest", SkipReason::PreRelease),
                (false, _) => {}
            }
        }
        Ok(())
    }
}

/// Returns what a job publishes, in words.
fn subject(git: &GitState) -> String {
    match (&git.tag, git.pull_request, &git.branch) {
        (Some(tag), ..) => format!("the git tag {tag}"),
        (None, Some(number), _) => format!("the pull request {number}"),
        (None, None, branch) => format!("the branch {}", branch.as_deref().unwrap_or_default()),
    }
}

/// Returns a name as a part of a tag. A name without any valid character fails.
fn named(what: &str, name: &str) -> Result<String, TagError> {
    let sanitized = sanitize(name);
    match sanitized.is_empty() {
        true => Err(TagError::Invalid {
            name: what.to_owned(),
            value: name.to_owned(),
            problem: "it has no character that a tag can begin with".to_owned(),
        }),
        false => Ok(sanitized),
    }
}
