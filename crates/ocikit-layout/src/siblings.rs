use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::Digest;
use tokio::sync::OwnedMutexGuard;

use crate::folder::Folder;
use crate::listing::list_blobs;
use crate::roots::BLOBS;

/// The blobs of several layouts on one file system, which share equal ones: a blob that one of them has is hard-linked into
/// the others and is neither transferred nor stored again. Each layout stays complete, and removing a blob from one keeps it
/// in the others.
#[derive(Debug, Default)]
pub struct Siblings {
    /// A layout that has each blob.
    known: Mutex<HashMap<Digest, PathBuf>>,
    /// The blobs that are being written, so that no other layout transfers the same one at the same time.
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Siblings {
    /// Finds the blobs of all layouts in a directory. Without the directory there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the directory cannot be read. A layout that cannot be read shares nothing.
    pub async fn scan(directory: impl Into<PathBuf>) -> Result<Siblings> {
        let directory = directory.into();
        let known = blocking(move || {
            let failed = |error| Error::failed("read", directory.display(), error);
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
                entries => entries.map_err(failed)?,
            };
            let mut known = HashMap::new();
            for entry in entries {
                let layout = entry.map_err(failed)?.path();
                let blobs = list_blobs(&layout).unwrap_or_default();
                let digests = blobs.into_iter().filter_map(|(name, _)| Digest::from_blob_path(&name));
                for digest in digests {
                    known.entry(digest).or_insert_with(|| layout.clone());
                }
            }
            Ok(known)
        });
        Ok(Siblings { known: Mutex::new(known.await?), turns: Mutex::default() })
    }

    /// Waits until no other layout writes a blob.
    pub(crate) async fn turn(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(*digest).or_default().clone();
        turn.lock_owned().await
    }

    /// Links a blob into a directory of blobs. Returns whether a layout has it, and the file system supports that.
    pub(crate) fn link(&self, digest: &Digest, to: &Folder) -> bool {
        let layout = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        let linked = layout.map(|layout| link(&layout, digest, to));
        // It may have been removed, or be on another file system; then the blob is written.
        linked.is_some_and(|linked| linked.is_ok())
    }

    /// Records that a layout has a blob.
    pub(crate) fn add(&self, digest: Digest, layout: &Path) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(digest).or_insert_with(|| layout.to_owned());
    }
}

/// Links a blob of a layout, whose directories are not followed if they are symlinks.
fn link(layout: &Path, digest: &Digest, to: &Folder) -> io::Result<()> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let blobs = Folder::open(layout)?.folder(BLOBS)?.ok_or_else(missing)?;
    let from = blobs.folder(digest.algorithm().name())?.ok_or_else(missing)?;
    to.link_from(&from, digest.hex())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ocikit_image::{Memory, Put, Sink, testing};
    use ocikit_spec::{Descriptor, MediaType, Platform};

    use super::*;
    use crate::Dir;

    fn blob(memory: &Memory, bytes: &[u8]) -> Descriptor {
        Descriptor::new(MediaType::OCI_LAYER, memory.insert(bytes.to_vec()), bytes.len() as u64)
    }

    #[tokio::test]
    async fn equal_blobs_are_stored_once() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::new();
        let layer = blob(&memory, &[7; 5000]);
        let path = |name: &str| directory.path().join(name);
        let first = Dir::create(path("first")).await.unwrap();
        assert_eq!(first.put(&layer, &memory).await.unwrap(), Put::Copied);
        let siblings = Arc::new(Siblings::scan(directory.path()).await.unwrap());
        let empty = Memory::new();
        let second = Dir::create(path("second")).await.unwrap().linking(siblings.clone());
        // The source does not have it: it is not read.
        assert_eq!(second.put(&layer, &empty).await.unwrap(), Put::Mounted);
        let file = |name: &str| path(name).join(layer.digest.blob_path());
        assert_eq!(fs::read(file("second")).unwrap(), [7; 5000]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let inode = |name: &str| fs::metadata(file(name)).unwrap().ino();
            assert_eq!(inode("first"), inode("second"));
        }
        fs::remove_dir_all(path("first")).unwrap();
        assert_eq!(fs::read(file("second")).unwrap().len(), 5000);
        // A blob that is gone is written, and then shared again.
        let third = Dir::create(path("third")).await.unwrap().linking(siblings);
        assert_eq!(third.put(&layer, &memory).await.unwrap(), Put::Copied);
    }

    #[tokio::test]
    async fn damaged_blobs_are_not_shared() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let memory = Arc::new(Memory::new());
        let platform: Platform = "linux/amd64".parse().unwrap();
        let manifest = testing::image(&memory, 1, &platform, &[10]);
        let first = Dir::create(path("first")).await.unwrap();
        first.put(&manifest, &*memory).await.unwrap();
        let file = |name: &str| path(name).join(manifest.digest.blob_path());
        fs::write(file("first"), vec![b' '; manifest.size as usize]).unwrap();
        let siblings = Arc::new(Siblings::scan(directory.path()).await.unwrap());
        let second = Dir::create(path("second")).await.unwrap().linking(siblings);
        assert_eq!(second.put(&manifest, &*memory).await.unwrap(), Put::Copied);
        assert_eq!(Digest::sha256_of(&fs::read(file("second")).unwrap()), manifest.digest);
        assert_eq!(fs::read(file("first")).unwrap()[0], b' ', "the other layout is left as it is");
    }
}
