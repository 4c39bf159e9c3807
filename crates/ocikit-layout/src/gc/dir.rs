use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::{Algorithm, Digest};

use super::reach::reachable;
use super::{Collected, GcOptions, Removed};
use crate::Dir;
use crate::dir::{BLOBS, lock};
use crate::folder::Folder;
use crate::listing::is_temporary;

pub(super) async fn collect(path: &Path, options: &GcOptions) -> Result<Collected> {
    let dir = Dir::open(path).await?;
    // Nobody lists an image from here on, and nobody puts blobs that are to be listed later.
    let _listing = lock_marker(path.to_owned()).await?;
    let _writing = nobody_writes(path.to_owned()).await?;
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

/// Waits until nobody changes `index.json`, and keeps it so until this is dropped.
async fn lock_marker(path: PathBuf) -> Result<File> {
    blocking(move || lock(&path).map_err(|error| Error::failed("lock", path.display(), error))).await
}

/// Sees to it that nobody puts blobs until this is dropped. It does not wait: a copy may take hours.
async fn nobody_writes(path: PathBuf) -> Result<Option<File>> {
    blocking(move || {
        let failed = |error| Error::failed("read", path.display(), error);
        let Some(blobs) = Folder::open(&path).and_then(|layout| layout.folder(BLOBS)).map_err(failed)? else {
            return Ok(None);
        };
        // Some systems do not open directories as files.
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

/// What may be removed: regular files that have the name of a digest or of a temporary file, in directories that are the
/// layout's own. Everything else belongs to somebody else.
struct Garbage {
    /// Directory by directory, each file with what is said of it.
    files: Vec<(Folder, Vec<(String, Removed)>)>,
    /// How many blobs stay.
    kept: usize,
}

impl Garbage {
    /// Looks at everything before anything goes.
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
                // A young one may still be written.
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
