use std::time::Duration;

use ocikit::spec::with_causes;
use ocikit::{Descriptor, Digest, Error, Repository, Tag};

use crate::plan::Destination;
use crate::tags::{PlannedTag, SkippedTag};

/// The result of [`publish`](crate::publish()).
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// The descriptor of the image: the same everywhere.
    pub root: Descriptor,
    /// The destinations, in the order of the plan.
    pub targets: Vec<PublishedTarget>,
}

/// The result for one destination.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishedTarget {
    /// The destination.
    pub destination: Destination,
    /// The tags that point to the image, or should.
    pub tags: Vec<PublishedTag>,
    /// The tags that were not used, and why.
    pub skipped: Vec<SkippedTag>,
    /// What was transferred.
    pub transfer: Transfer,
    /// The times.
    pub times: Times,
    /// The signatures that were made, by the digest of their manifests.
    pub signatures: Vec<Digest>,
    /// Whether the image has a signature of the signer now.
    pub signed: bool,
    /// The attestations that were made, by the digest of their manifests.
    pub attestations: Vec<Digest>,
    /// Why the statement about the publication could not be stored, if it was asked for.
    pub statement_failed: Option<ocikit_sign::Error>,
}

/// How long a destination took, from the beginning of the publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Times {
    /// Until it had the whole image, read back.
    pub stored: Duration,
    /// Until its tags were read back.
    pub finished: Duration,
}

/// The numbers of blobs and documents, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Transfer {
    /// Those that were uploaded.
    pub uploaded: (usize, u64),
    /// Those that were mounted from another repository.
    pub mounted: (usize, u64),
    /// Those that existed.
    pub skipped: (usize, u64),
}

/// A tag after publishing.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishedTag {
    /// The tag as it was planned.
    pub planned: PlannedTag,
    /// What was found.
    pub state: TagState,
}

/// The state of a tag after publishing.
#[derive(Debug)]
#[non_exhaustive]
pub enum TagState {
    /// It was read back and points to the image.
    Verified,
    /// It could not be put or read back.
    Failed(Error),
    /// It points to something else, or to nothing: another client moved it.
    Moved(Option<Digest>),
    /// It belongs beside a tag that another client moved to something else, or removed. It may have been put before that.
    Outdated {
        /// The tag that it belongs beside.
        plain: Tag,
        /// What that tag points to.
        found: Option<Digest>,
    },
}

impl TagState {
    /// Returns why the tag does not point to the image, with the causes; `None` if it does.
    pub fn problem(&self) -> Option<String> {
        match self {
            TagState::Verified => None,
            TagState::Failed(error) => Some(with_causes(error)),
            TagState::Moved(Some(digest)) => Some(format!("it points to {digest}")),
            TagState::Moved(None) => Some("it does not exist".to_owned()),
            TagState::Outdated { plain, found: Some(digest) } => {
                Some(format!("another client moved the tag {plain} of the plain image to {digest}"))
            }
            TagState::Outdated { plain, found: None } => {
                Some(format!("another client removed the tag {plain} of the plain image"))
            }
        }
    }
}

impl Published {
    /// Returns the tags that do not point to the image, with their repositories.
    pub fn failed(&self) -> impl Iterator<Item = (&Repository, &PublishedTag)> {
        let tags = self.targets.iter().flat_map(|target| target.tags.iter().map(|tag| (&target.destination.push, tag)));
        tags.filter(|(_, tag)| !matches!(tag.state, TagState::Verified))
    }

    /// Returns the repositories that lack the statement about their publication, and why.
    pub fn without_statement(&self) -> impl Iterator<Item = (&Repository, &ocikit_sign::Error)> {
        self.targets.iter().filter_map(|target| Some((&target.destination.push, target.statement_failed.as_ref()?)))
    }

    /// Returns whether every repository has a signature of the signer.
    pub fn is_signed(&self) -> bool {
        self.targets.iter().all(|target| target.signed)
    }
}
