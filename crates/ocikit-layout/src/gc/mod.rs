//! Dropping what nothing leads to.

mod dir;
mod reach;
mod tar;

use std::path::Path;
use std::time::{Duration, SystemTime};

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::Digest;

use crate::tar::cannot_open;

/// How to collect garbage.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// What time it is: temporary files that are older than [`GcOptions::young`] were left by somebody who is gone.
    pub now: SystemTime,
    /// How long a temporary file may belong to a process that still writes it.
    pub young: Duration,
    /// Whether indexes may list manifests that are not here, as those do of which only some platforms were copied.
    /// Otherwise one that is missing is an error, since what it needs cannot be told.
    pub sparse: bool,
}

impl GcOptions {
    /// Collects, and leaves temporary files alone for an hour.
    pub fn at(now: SystemTime) -> GcOptions {
        GcOptions { dry_run: false, now, young: Duration::from_secs(3600), sparse: false }
    }
}

/// What went, or would go.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// File by file, or entry by entry of an archive, in order.
    pub removed: Vec<Removed>,
    /// How many bytes less the place takes; of an archive with headers and padding.
    pub freed: u64,
    /// How many blobs stay.
    pub kept: usize,
}

/// Something that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its path in the layout.
    pub name: String,
    /// Its digest, if it is a blob.
    pub digest: Option<Digest>,
    /// How long it was.
    pub bytes: u64,
}

/// Removes from a layout, a directory or an archive, what its list of roots does not lead to: of a directory only regular
/// files that have the name of a digest, below `blobs`, and old temporary files of this program; symlinks are not followed. What is kept stays byte for
/// byte; a process that is killed leaves everything that is needed.
///
/// A layout that somebody of this program writes to is left alone; an archive that somebody edits is waited for.
///
/// # Errors
///
/// [`Error::NotFound`], [`Error::Mismatch`] and [`Error::Document`] if a document that is needed is missing or damaged: what
/// it leads to cannot be told, so nothing goes. [`Error::Failed`] if `blobs` or a directory in it is a symlink.
/// [`Error::Unsupported`] for docker archives and for a layout that is being written to.
pub async fn gc(path: impl AsRef<Path>, options: &GcOptions) -> Result<Collected> {
    let path = path.as_ref().to_owned();
    let metadata = blocking({
        let path = path.clone();
        move || std::fs::metadata(&path).map_err(|error| cannot_open(&path, error))
    });
    match metadata.await? {
        metadata if metadata.is_dir() => dir::collect(&path, options).await,
        metadata if metadata.is_file() => tar::collect(&path, options).await,
        _ => Err(Error::pipe(path.display())),
    }
}
