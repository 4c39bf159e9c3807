//! Garbage collection: removes unreferenced blobs.

mod dir;
mod options;
mod reach;
mod tar;

use std::path::Path;

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};

use crate::tar::cannot_open;

pub use options::{Collected, GcOptions, Removed};

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
