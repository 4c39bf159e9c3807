use std::time::{Duration, SystemTime};

use ocikit_spec::Digest;

/// Options of garbage collection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GcOptions {
    /// Whether to report only.
    pub dry_run: bool,
    /// The current time. Temporary files that are older than [`GcOptions::young`] belong to processes that have ended.
    pub now: SystemTime,
    /// The age up to which a temporary file may still be in use.
    pub young: Duration,
    /// Whether indexes may list missing manifests, because only some platforms were copied. If not, a missing manifest
    /// is an error, because the blobs that it needs are unknown.
    pub sparse: bool,
}

ocikit_spec::setters! {
    GcOptions {
        dry_run: bool,
        now: SystemTime,
        young: Duration,
        sparse: bool,
    }
}

impl GcOptions {
    /// Returns options that remove blobs, and temporary files that are older than an hour.
    pub fn at(now: SystemTime) -> GcOptions {
        GcOptions { dry_run: false, now, young: Duration::from_secs(3600), sparse: false }
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Collected {
    /// The removed files, or entries of an archive, in order.
    pub removed: Vec<Removed>,
    /// The number of bytes that were freed, for an archive including headers and padding.
    pub freed: u64,
    /// The number of blobs that are kept.
    pub kept: usize,
}

/// A removed file or entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Its path in the layout.
    pub name: String,
    /// Its digest, if it is a blob.
    pub digest: Option<Digest>,
    /// Its size in bytes.
    pub bytes: u64,
}
