use ocikit::Tag;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::{MAX_TAGS, TagError};
use super::version::{Line, Release};

/// A computed tag.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedTag {
    /// The tag.
    pub tag: Tag,
    /// The name that the tag has in configuration and output.
    pub name: String,
    /// The validation that it passed, if it has one.
    pub validation: Option<String>,
    /// The reason for the tag.
    pub because: Because,
    /// The line of versions that the tag follows, with the version that it would point to.
    pub follows: Option<(Line, Release)>,
}

/// The reason for a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Because {
    /// The branch.
    Branch,
    /// The branch and the commit.
    BranchCommit,
    /// The branch is the default branch.
    DefaultBranch,
    /// The pull request.
    PullRequest,
    /// The pull request and the commit.
    PullRequestCommit,
    /// The git tag, which is a version.
    Version,
    /// The newest version of a minor version.
    MinorVersion,
    /// The newest version of a major version.
    MajorVersion,
    /// The newest version of all.
    LatestVersion,
    /// The git tag, which is no release.
    GitTag,
    /// A template.
    Template,
    /// The additional template of pull requests.
    AdditionalPullRequest,
    /// The default template of the event.
    Default,
}

impl Because {
    /// Returns the reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Because::Branch => "the branch",
            Because::BranchCommit => "the branch and the commit",
            Because::DefaultBranch => "the branch is the default branch",
            Because::PullRequest => "the pull request",
            Because::PullRequestCommit => "the pull request and the commit",
            Because::Version => "the version",
            Because::MinorVersion => "the minor version",
            Because::MajorVersion => "the major version",
            Because::LatestVersion => "the newest version",
            Because::GitTag => "the git tag, which is not a release",
            Because::Template => "a template",
            Because::AdditionalPullRequest => "the additional template of pull requests",
            Because::Default => "the default template of the event",
        }
    }
}

/// A tag that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedTag {
    /// The tag.
    pub tag: Tag,
    /// The name of the tag.
    pub name: String,
    /// Why it is not used.
    pub reason: SkipReason,
}

/// Why a tag is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// Another tag is the same.
    #[error("the tag `{0}` is the same")]
    Duplicate(
        /// The name of the other tag.
        String,
    ),
    /// A newer version is published.
    #[error("{0} is published, which is newer")]
    Newer(
        /// The tag of the newer version.
        Tag,
    ),
    /// A pre-release moves no other tag.
    #[error("a pre-release does not move it")]
    PreRelease,
}

/// The computed tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TagSet {
    /// The tags, the most important first if the scheme has such an order.
    pub tags: Vec<PlannedTag>,
    /// The tags that are not used.
    pub skipped: Vec<SkippedTag>,
}

impl PlannedTag {
    /// Plans a tag without a validation.
    pub(super) fn of(
        name: &str,
        value: &str,
        because: Because,
        follows: Option<(Line, Release)>,
    ) -> Result<PlannedTag, TagError> {
        Ok(PlannedTag { tag: tag(name, value)?, name: name.to_owned(), validation: None, because, follows })
    }

    /// Returns the newest of these tags that is a newer version of the line that this tag follows.
    pub(crate) fn newer(&self, existing: &[Tag]) -> Option<Tag> {
        let (line, release) = self.follows?;
        let others = existing.iter().filter_map(|tag| Some((tag, Release::of_tag(tag.as_str())?)));
        let others = others.filter(|(_, other)| line.has(*other) && *other > release);
        others.max_by_key(|(_, other)| *other).map(|(tag, _)| tag.clone())
    }
}

impl TagSet {
    /// Returns the tag file of the image builder: a JSON array of objects with `name`, `value` and, if there is one,
    /// `validation`.
    pub fn file(&self) -> String {
        let tag = |planned: &PlannedTag| match &planned.validation {
            None => json!({ "name": planned.name, "value": planned.tag.as_str() }),
            Some(validation) => {
                json!({ "name": planned.name, "value": planned.tag.as_str(), "validation": validation })
            }
        };
        Value::Array(self.tags.iter().map(tag).collect()).to_string()
    }

    /// Removes the tags that would be moved back: those for which `existing` has a newer version of the same line.
    #[must_use]
    pub fn never_back(self, existing: &[Tag]) -> TagSet {
        let TagSet { tags, mut skipped } = self;
        let mut kept = Vec::new();
        for planned in tags {
            match planned.newer(existing) {
                Some(newer) => {
                    let reason = SkipReason::Newer(newer);
                    skipped.push(SkippedTag { tag: planned.tag, name: planned.name, reason });
                }
                None => kept.push(planned),
            }
        }
        TagSet { tags: kept, skipped }
    }
}

/// Collects tags without duplicates.
#[derive(Debug, Default)]
pub(super) struct Builder {
    set: TagSet,
}

impl Builder {
    pub(super) fn add(&mut self, planned: PlannedTag) -> Result<(), TagError> {
        if self.set.tags.len() + self.set.skipped.len() >= MAX_TAGS {
            return Err(TagError::TooMany);
        }
        let known = self.set.tags.iter_mut().find(|known| known.tag == planned.tag);
        match known {
            Some(known) => {
                // A tag that is also wanted without a condition is not bound to versions.
                if planned.follows.is_none() {
                    known.follows = None;
                }
                let reason = SkipReason::Duplicate(known.name.clone());
                self.set.skipped.push(SkippedTag { tag: planned.tag, name: planned.name, reason });
            }
            None => self.set.tags.push(planned),
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, tag: Tag, name: &str, reason: SkipReason) {
        self.set.skipped.push(SkippedTag { tag, name: name.to_owned(), reason });
    }

    pub(super) fn finish(self) -> Result<TagSet, TagError> {
        if self.set.tags.is_empty() { Err(TagError::None) } else { Ok(self.set) }
    }
}

/// Returns a text as a tag.
pub(super) fn tag(name: &str, value: &str) -> Result<Tag, TagError> {
    value.parse().map_err(|error: ocikit::spec::Error| TagError::Invalid {
        name: name.to_owned(),
        value: value.to_owned(),
        problem: if value.is_empty() { "it is empty".to_owned() } else { error.to_string() },
    })
}
