//! What the readers of all formats share.

use std::sync::Arc;

use ocikit_archive::layer::{Budget, Entry, Tree};
use ocikit_image::bridge::blocking;
use ocikit_image::{Error as ImageError, Layer, Result as ImageResult};

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
pub(super) async fn usable_tree(entries: Arc<[Entry]>, layer: &Layer, budget: &Budget) -> ImageResult<Option<Tree>> {
    let (budget, place) = (budget.clone(), place(layer));
    blocking(move || match Tree::of_entries(&*entries, &budget) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.limit().is_some() => Err(tree_error(place, error)),
        Err(_) => Ok(None),
    })
    .await
}

/// Returns the name of a layer in errors.
pub(super) fn place(layer: &Layer) -> String {
    format!("layer {} in {}", layer.digest(), layer.source())
}
