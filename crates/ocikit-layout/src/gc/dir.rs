use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::Digest;

use super::reach::reachable;
use super::{Collected, GcOptions, Removed};
use crate::Dir;
use crate::inventory::{is_temporary, list, list_blobs};
use crate::roots::OCI_LAYOUT_FILE;

pub(super) async fn collect(path: &Path, options: &GcOptions) -> Result<Collected> {
    let dir = Dir::open(path).await?;
    // Nobody lists an image from here on, and nobody puts blobs that are to be listed later.
    let _listing = lock_marker(path.to_owned()).await?;
    let _writing = nobody_writes(path.to_owned()).await?;
    let needed = reachable(&dir.roots().await?, &dir).await?;
    let (path, options) = (path.to_owned(), options.clone());
    blocking(move || {
        let failed = |operation| {
            let path = path.display().to_string();
            move |error| Error::failed(operation, path, error)
        };
        let mut collected = Collected::default();
        for (name, bytes) in list_blobs(&path).map_err(failed("read"))? {
            let digest = Digest::from_blob_path(&name);
            if digest.is_some_and(|digest| needed.contains(&digest)) {
                collected.kept += 1;
            } else {
                collected.removed.push(Removed { name, digest, bytes });
            }
        }
        collected.removed.extend(stale(&path, &options).map_err(failed("read"))?);
        collected.removed.sort_by(|one, other| one.name.cmp(&other.name));
        collected.freed = collected.removed.iter().map(|removed| removed.bytes).sum();
        if !options.dry_run {
            for removed in &collected.removed {
                match fs::remove_file(path.join(&removed.name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove a file of")(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(collected)
    })
    .await
}

/// Waits until nobody changes `index.json`, and keeps it so until this is dropped.
async fn lock_marker(path: PathBuf) -> Result<File> {
    blocking(move || {
        let failed = |error| Error::failed("lock", path.display(), error);
        let marker = File::open(path.join(OCI_LAYOUT_FILE)).map_err(failed)?;
        marker.lock().map_err(failed)?;
        Ok(marker)
    })
    .await
}

/// Sees to it that nobody puts blobs until this is dropped. It does not wait: a copy may take hours.
async fn nobody_writes(path: PathBuf) -> Result<Option<File>> {
    blocking(move || {
        let blobs = match File::open(path.join("blobs")) {
            Ok(blobs) => blobs,
            // There are none, or this system does not open directories.
            Err(_) => return Ok(None),
        };
        match blobs.try_lock() {
            Ok(()) => Ok(Some(blobs)),
            Err(fs::TryLockError::WouldBlock) => {
                let what = "somebody is writing to it".to_owned();
                Err(Error::Unsupported { place: path.display().to_string(), what })
            }
            // Some file systems have no locks.
            Err(fs::TryLockError::Error(_)) => Ok(None),
        }
    })
    .await
}

/// Temporary files whose writers are gone.
fn stale(path: &Path, options: &GcOptions) -> io::Result<Vec<Removed>> {
    let mut found = Vec::new();
    let mut directories = vec![String::new()];
    directories.extend(list(&path.join("blobs"))?.into_iter().filter_map(|directory| {
        let is_directory = directory.file_type().is_ok_and(|kind| kind.is_dir());
        is_directory.then(|| format!("blobs/{}/", directory.file_name().display()))
    }));
    for directory in directories {
        for entry in list(&path.join(&directory))? {
            let name = format!("{directory}{}", entry.file_name().display());
            let Ok(metadata) = entry.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|modified| options.now.duration_since(modified).ok());
            if is_temporary(&name) && metadata.is_file() && age.is_some_and(|age| age > options.young) {
                found.push(Removed { name, digest: None, bytes: metadata.len() });
            }
        }
    }
    Ok(found)
}
