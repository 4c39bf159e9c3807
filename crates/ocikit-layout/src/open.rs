use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result, Source};

use crate::docker::MANIFEST_JSON;
use crate::roots::INDEX_JSON;
use crate::tar::{NO_INDEX_JSON, cannot_open, entry, read_index};
use crate::{Dir, DockerArchive, Tar};

/// Opens what is at a path for reading; its content tells what it is.
///
/// # Errors
///
/// [`Error::Failed`] if there is nothing, [`Error::Broken`] if it holds no images.
pub async fn open(path: impl Into<PathBuf>) -> Result<Arc<dyn Source>> {
    let path = path.into();
    let metadata = blocking({
        let path = path.clone();
        move || fs::metadata(&path).map_err(|error| cannot_open(&path, error))
    });
    match metadata.await? {
        metadata if metadata.is_dir() => Ok(Arc::new(Dir::open(path).await?)),
        metadata if metadata.is_file() => open_archive(path).await,
        _ => Err(Error::broken(path.display(), "it is neither a file nor a directory; a pipe is read as `-`")),
    }
}

/// Opens an archive of either kind: one that has both lists is read as an OCI archive, which says more.
///
/// # Errors
///
/// [`Error::Failed`] if the file cannot be opened; [`Error::Broken`] if it is not a tar, is truncated, or holds no images.
pub async fn open_archive(path: impl Into<PathBuf>) -> Result<Arc<dyn Source>> {
    Ok(match archive_at(&path.into()).await? {
        Archive::Oci(tar) => Arc::new(tar),
        Archive::Docker(archive) => Arc::new(archive),
    })
}

/// An archive of either kind.
pub(crate) enum Archive {
    Oci(Tar),
    Docker(DockerArchive),
}

pub(crate) async fn archive_at(path: &Path) -> Result<Archive> {
    let path = path.to_owned();
    blocking(move || {
        let file = File::open(&path).map_err(|error| cannot_open(&path, error))?;
        archive(&path, file)
    })
    .await
}

fn archive(path: &Path, file: File) -> Result<Archive> {
    let index = read_index(path, &file)?;
    if let Some(roots) = entry(&file, &index, INDEX_JSON, path)? {
        return Ok(Archive::Oci(Tar::with(path.to_owned(), file, index, roots)?));
    }
    match entry(&file, &index, MANIFEST_JSON, path)? {
        Some(list) => Ok(Archive::Docker(DockerArchive::of(path.to_owned(), file, &index, &list)?)),
        None => Err(Error::broken(path.display(), NO_INDEX_JSON)),
    }
}
