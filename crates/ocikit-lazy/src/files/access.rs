//! What the readers of all formats share.

use std::sync::Arc;

use ocikit_archive::layer::Tree;
use ocikit_image::{Error as ImageError, Result as ImageResult};

/// The files that a table lists; `None` if it is not usable, so that files are read from the tar.
pub(super) type Usable<T> = Option<Arc<T>>;

/// Where the files of a layer are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// In tables of contents and ztocs, so that a list of files or a single file needs a small part of a layer. A table is
    /// the one that the manifest names, and parts of files are checked against its digests; that it lists what the layer has is
    /// not known.
    Tables,
    /// In the layers themselves, which are read to their ends. Layers of Nydus have no other list of files than the bootstrap.
    Contents,
}

/// Returns the error for files that a layer cannot have, or that exceed a limit.
pub(super) fn tree_error(place: String, error: ocikit_archive::Error) -> ImageError {
    match error.limit() {
        Some(limit) => ImageError::Unsupported { place, what: limit.to_string() },
        None => ImageError::broken(place, error),
    }
}

/// Returns the files of a table; `None` if no layer can have them, so that they are read from the tar.
pub(super) fn usable_tree(tree: ocikit_archive::Result<Tree>, place: String) -> ImageResult<Option<Tree>> {
    match tree {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.limit().is_some() => Err(tree_error(place, error)),
        Err(_) => Ok(None),
    }
}
