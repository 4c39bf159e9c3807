use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::{Algorithm, Digest};

use super::options::{Collected, GcOptions, Removed};
use super::reach::reachable;
use crate::Dir;
use crate::dir::lock;
use crate::folder::Folder;
use crate::listing::is_temporary;
use crate::roots::BLOBS;

pub(super) async fn collect(path: &Path, options: &GcOptions) -> Result<Collected> {
    let dir = Dir::open(path).await?;
    // From here on no image is listed and no blob is written that will be listed later.
    let _listing = lock_marker(path.to_owned()).await?;
    let _writing = lock_blobs(path.to_owned()).await?;
    let needed = reachable(&dir.roots().await?, &dir, dir.unlisted().await?, options).await?;
    let (path, options) = (path.to_owned(), options.clone());
    blocking(move || {
        let failed = |operation| {
            let path = path.display().to_string();
            move |error| Error::failed(operation, path, error)
        };
        let garbage = Garbage::find(&path, &needed, &options).map_err(failed("read"))?;
        let mut collected = Collected { kept: garbage.kept, ..Collected::default() };
        for (folder, files) in garbage.files {
            for (file, removed) in files {
                if !options.dry_run {
                    folder.remove(&file).map_err(failed("remove a file of"))?;
                }
                collected.removed.push(removed);
            }
        }
        collected.removed.sort_by(|one, other| one.name.cmp(&other.name));
        collected.freed = collected.removed.iter().map(|removed| removed.bytes).sum();
        Ok(collected)
    })
    .await
}

/// Waits for the lock of `index.json`, which is held until this is dropped.
async fn lock_marker(path: PathBuf) -> Result<File> {
    blocking(move || lock(&path).map_err(|error| Error::failed("lock", path.display(), error))).await
}

/// Takes the lock that excludes writers of blobs until this is dropped. Does not wait: a copy may take hours.
async fn lock_blobs(path: PathBuf) -> Result<Option<File>> {
    blocking(move || {
        let failed = |error| Error::failed("read", path.display(), error);
        let Some(blobs) = Folder::open(&path).and_then(|layout| layout.folder(BLOBS)).map_err(failed)? else {
            return Ok(None);
        };
        // Some systems cannot open directories as files.
        let Ok(blobs) = blobs.lockable() else { return Ok(None) };
        match blobs.try_lock() {
            Ok(()) => Ok(Some(blobs)),
            Err(fs::TryLockError::WouldBlock) => {
                let what = "another process is writing to it".to_owned();
                Err(Error::Unsupported { place: path.display().to_string(), what })
            }
            // Some file systems have no locks.
            Err(fs::TryLockError::Error(_)) => Ok(None),
        }
    })
    .await
}

/// The files that can be removed: regular files with the name of a digest or of a temporary file, in directories of the
/// layout itself. Any other file is not ours.
struct Garbage {
    /// The files by directory, each with its report.
    files: Vec<(Folder, Vec<(String, Removed)>)>,
    /// The number of blobs that are kept.
    kept: usize,
}

impl Garbage {
    /// Finds everything before anything is removed.
    fn find(path: &Path, needed: &HashSet<Digest>, options: &GcOptions) -> io::Result<Garbage> {
        let mut garbage = Garbage { files: Vec::new(), kept: 0 };
        let layout = Folder::open(path)?;
        let blobs = layout.folder(BLOBS)?;
        garbage.look_into(layout, "", needed, options)?;
        let Some(blobs) = blobs else { return Ok(garbage) };
        for algorithm in Algorithm::ALL {
            if let Some(folder) = blobs.folder(algorithm.name())? {
                garbage.look_into(folder, &format!("{BLOBS}/{}/", algorithm.name()), needed, options)?;
            }
        }
        Ok(garbage)
    }

    fn look_into(
        &mut self,
        folder: Folder,
        prefix: &str,
        needed: &HashSet<Digest>,
        options: &GcOptions,
    ) -> io::Result<()> {
        let mut files = Vec::new();
        for file in folder.names()? {
            let name = format!("{prefix}{file}");
            let digest = Digest::from_blob_path(&name);
            if digest.is_none() && !is_temporary(&file) {
                continue;
            }
            let Some(found) = folder.regular(&file)? else { continue };
            let goes = match &digest {
                Some(digest) => !needed.contains(digest),
                // A young temporary file may still be written.
                None => options.now.duration_since(found.modified).is_ok_and(|age| age > options.young),
            };
            if goes {
                files.push((file, Removed { name, digest, bytes: found.size }));
            } else {
                self.kept += usize::from(digest.is_some());
            }
        }
        self.files.push((folder, files));
        Ok(())
    }
}
