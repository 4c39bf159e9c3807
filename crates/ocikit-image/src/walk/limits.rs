//! The limits of every walk, in one place.
//!
//! Documents and lists of referrers are untrusted input, so a walk is bounded in depth, in number and in memory. The limits
//! of a single document, such as its size and the length of its lists, are in `document.rs` of `ocikit-spec`.

use std::sync::atomic::{AtomicU64, Ordering};

use ocikit_spec::{Descriptor, Digest, MAX_DOCUMENT_BYTES};

use crate::error::{Error, Result};
use crate::source::Source;

/// The maximum number of steps from a root to a document: nested indexes, and referrers of referrers. Real images need
/// at most 3: an index in an index, and the signature of an SBOM.
pub const MAX_DEPTH: usize = 16;

/// The maximum number of documents below one root: the largest index that can be parsed has 25,000 entries.
pub const MAX_DOCUMENTS: usize = 50_000;

/// The maximum total size in bytes of the documents below one root, because a caller may keep all of them. Real images
/// have a few hundred KiB.
pub const MAX_DOCUMENTS_BYTES: u64 = 32 << 20;

/// The maximum total size in bytes of the new documents of one change: manifests, configs and indexes, which are kept in
/// memory until they are stored.
pub const MAX_NEW_DOCUMENTS_BYTES: u64 = 64 << 20;

/// The maximum number of referrers of one root and of everything below it: as many as one list of referrers can have.
pub const MAX_REFERRERS: usize = 25_000;

/// The number of documents and lists of referrers that are read in parallel.
pub const MAX_PARALLEL_READS: usize = 8;

/// The maximum total size in bytes of the documents that are read before the caller asks for them, unless it is a
/// single one.
pub const MAX_READ_AHEAD_BYTES: u64 = MAX_DOCUMENT_BYTES;

/// The limits of one walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of steps from a start to a document.
    pub depth: usize,
    /// The maximum number of documents.
    pub documents: usize,
    /// The maximum total size of the documents in bytes, without those that the caller had read before.
    pub bytes: u64,
    /// The maximum number of referrers, including those under fallback tags.
    pub referrers: usize,
}

impl Limits {
    /// The limits of one image and its referrers.
    pub const IMAGE: Limits =
        Limits { depth: MAX_DEPTH, documents: MAX_DOCUMENTS, bytes: MAX_DOCUMENTS_BYTES, referrers: MAX_REFERRERS };

    /// The limits of a whole layout or archive, for a caller that keeps no documents. The number of documents is that
    /// of the place.
    pub const PLACE: Limits =
        Limits { depth: MAX_DEPTH, documents: usize::MAX, bytes: u64::MAX, referrers: usize::MAX };

    /// Returns these limits with another number of documents.
    #[must_use]
    pub fn with_documents(self, documents: usize) -> Limits {
        Limits { documents, ..self }
    }
}

/// Returns the error for indexes or referrers that are nested deeper than [`MAX_DEPTH`].
pub fn too_deep(digest: &Digest, place: impl ToString) -> Error {
    Error::broken(place, format!("{digest} is nested more than {MAX_DEPTH} levels deep"))
}

/// Returns the error for more documents or referrers than a limit allows.
pub fn too_many(limit: usize, what: &str, digest: &Digest, place: impl ToString) -> Error {
    Error::broken(place, format!("{digest} has more than {limit} {what}"))
}

/// The total size of the documents that were read.
#[derive(Debug)]
pub(crate) struct Meter {
    read: AtomicU64,
    max: u64,
}

impl Meter {
    pub(crate) fn new(max: u64) -> Meter {
        Meter { read: AtomicU64::new(0), max }
    }

    /// Adds a document before it is read. Its size is at most that of the descriptor, because reading fails otherwise.
    pub(crate) fn add(&self, document: &Descriptor, root: &Digest, place: &dyn Source) -> Result<()> {
        let add = |read: u64| Some(read.saturating_add(document.size));
        let before = self.read.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or_default();
        if before.saturating_add(document.size) <= self.max {
            return Ok(());
        }
        let what = format!("the documents and referrers of {root} exceed the limit of {} bytes", self.max);
        Err(Error::Unsupported { place: place.to_string(), what })
    }
}
