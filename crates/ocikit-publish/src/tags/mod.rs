//! The tags of an image, computed from the git state. Nothing here reads a registry, a clock or the environment.

mod environment;
mod error;
mod fixed;
mod named;
mod set;
mod version;
mod version_tags;

use jiff::Timestamp;

pub use environment::AllowedEnvironment;
pub use error::{MAX_TAGS, TagError};
pub use fixed::FixedScheme;
pub use named::{NamedTag, decode_base64};
pub use set::{Because, PlannedTag, SkipReason, SkippedTag, TagSet};
pub use version::{Line, Release};

use crate::git::{Event, GitState};
use named::Rendering;
pub(crate) use named::TagYaml;
use set::Builder;

/// The tags to compute. The parts are independent; each adds its tags in the order of the fields.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TagRequest {
    /// The fixed scheme of the container-image publisher plugin.
    pub fixed: Option<FixedScheme>,
    /// A version from other metadata: adds the version and `latest`.
    pub version: Option<String>,
    /// Templates.
    pub named: Vec<NamedTag>,
    /// A template that pull requests get in addition.
    pub additional_pull_request: Option<NamedTag>,
    /// More templates, which come after that of pull requests.
    pub more: Vec<NamedTag>,
    /// The default tags, one of which comes last.
    pub defaults: DefaultTags,
}

impl TagRequest {
    /// Returns whether nothing asks for a tag.
    pub fn is_empty(&self) -> bool {
        let TagRequest { fixed, version, named, additional_pull_request: _, more, defaults } = self;
        fixed.is_none() && version.is_none() && named.is_empty() && more.is_empty() && !defaults.any()
    }
}

/// The default tag for each kind of event.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DefaultTags {
    /// For accepted commits.
    pub commit: Option<NamedTag>,
    /// For pull requests.
    pub pull_request: Option<NamedTag>,
    /// For merge groups.
    pub merge_group: Option<NamedTag>,
}

impl DefaultTags {
    /// Returns whether any default is set.
    pub fn any(&self) -> bool {
        self.commit.is_some() || self.pull_request.is_some() || self.merge_group.is_some()
    }

    fn of(&self, event: Event) -> (&'static str, Option<&NamedTag>) {
        match event {
            Event::PullRequest => ("pull requests", self.pull_request.as_ref()),
            Event::MergeGroup => ("merge groups", self.merge_group.as_ref()),
            Event::Push | Event::Dispatch | Event::Schedule | Event::Local => ("commits", self.commit.as_ref()),
        }
    }
}

/// Computes the tags: valid, without duplicates, in order.
///
/// ```
/// use jiff::Timestamp;
/// use ocikit_publish::git::GitState;
/// use ocikit_publish::tags::{AllowedEnvironment, TagRequest, compute};
///
/// let mut git = GitState::default();
/// git.base_sha = Some("da39a3ee5e6b4b0d".to_owned());
/// let mut request = TagRequest::default();
/// request.named = vec!["latest".parse()?, "v=v{{ .ShortSHA }}".parse()?];
/// let set = compute(&request, &git, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH)?;
/// let tags: Vec<_> = set.tags.iter().map(|planned| planned.tag.as_str()).collect();
/// assert_eq!(tags, ["latest", "vda39a3ee"]);
/// # Ok::<(), ocikit_publish::tags::TagError>(())
/// ```
///
/// # Errors
///
/// [`TagError`] for the first tag that cannot be computed or is not a valid tag of the distribution specification
/// ("Pulling manifests"), and if there is no tag at all.
pub fn compute(
    request: &TagRequest,
    git: &GitState,
    environment: &AllowedEnvironment,
    time: Timestamp,
) -> Result<TagSet, TagError> {
    let mut builder = Builder::default();
    if let Some(scheme) = &request.fixed {
        scheme.add(git, &mut builder)?;
    }
    if let Some(version) = &request.version {
        version_tags::add(version, &mut builder)?;
    }
    let rendering = Rendering { git, environment, time };
    for named in &request.named {
        rendering.add(named, Because::Template, &mut builder)?;
    }
    if git.event == Event::PullRequest
        && let Some(additional) = &request.additional_pull_request
    {
        rendering.add(additional, Because::AdditionalPullRequest, &mut builder)?;
    }
    for named in &request.more {
        rendering.add(named, Because::Template, &mut builder)?;
    }
    match request.defaults.of(git.event) {
        (_, Some(default)) => rendering.add(default, Because::Default, &mut builder)?,
        (kind, None) if request.defaults.any() => return Err(TagError::NoDefault { kind }),
        _ => {}
    }
    builder.finish()
}

#[cfg(test)]
mod tests;
