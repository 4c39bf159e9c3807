//! Garbage collection: removes unreferenced blobs.

mod dir;
mod reach;
mod tar;

use std::path::Path;
use std::time::{Duration, SystemTime};

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::Digest;

use crate::tar::cannot_open;

/// Options of garbage collection.
#[derive(Debug, Clone)]
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

impl GcOptions {
    /// Returns options that remove blobs, and temporary files that are older than an hour.
    pub fn at(now: SystemTime) -> GcOptions {
        GcOptions { dry_run: false, now, young: Duration::from_secs(3600), sparse: false }
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default)]
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
pub struct Removed {
    /// Its path in the layout.
    pub name: String,
    /// Its digest, if it is a blob.
    pub digest: Option<Digest>,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Removes unreferenced blobs from a layout or archive. In a directory only regular files below `blobs` with the name
/// of a digest, and old temporary files of this program, are removed; symlinks are not followed. Everything else is
/// unchanged, and if the process is killed, nothing that is needed is missing.
///
/// A layout that this program is writing to is not changed; an archive that is being edited is waited for.
///
/// # Errors
///
/// [`Error::NotFound`], [`Error::Mismatch`] and [`Error::Document`] if a needed document is missing or damaged: the
/// blobs that it needs are then unknown, so nothing is removed. [`Error::Failed`] if `blobs` or a directory in it is a
/// symlink. [`Error::Unsupported`] for docker archives and for a layout that is being written to.
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
