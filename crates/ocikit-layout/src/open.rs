use std::path::PathBuf;
use std::sync::Arc;

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result, Source};

use crate::{Dir, Tar};

/// Opens what is at a path for reading; its content tells what it is.
///
/// # Errors
///
/// [`Error::Failed`] if there is nothing, [`Error::Broken`] if it holds no images.
pub async fn open(path: impl Into<PathBuf>) -> Result<Arc<dyn Source>> {
    let path = path.into();
    let metadata = blocking({
        let path = path.clone();
        move || std::fs::metadata(&path).map_err(|error| crate::tar::cannot_open(&path, error))
    });
    match metadata.await? {
        metadata if metadata.is_dir() => Ok(Arc::new(Dir::open(path).await?)),
        metadata if metadata.is_file() => Ok(Arc::new(Tar::open(path).await?)),
        _ => Err(Error::broken(path.display(), "it is neither a file nor a directory; a pipe is read as `-`")),
    }
}
