use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures::TryStreamExt;
use ocikit_spec::{Descriptor, Digest, Document, Tag};

use super::blocking::blocking;
use super::disk::Disk;
use super::disk::Durability;
use super::draft::{Draft, Sealed};
use super::reader::Reader;
use super::state::{ByteReferences, ManifestEntry, RegistryIndex};
use super::upload::Uploads;
use crate::condition::Condition;
use crate::error::Result;
use crate::limits::MemoryBudget;
use crate::name::RepositoryName;
use crate::page::Page;
use crate::route::ManifestReference;
use crate::rules::Children;

/// The bytes and their index. Readers never wait for a write to the disk.
#[derive(Debug)]
pub(crate) struct Store {
    state: RwLock<RegistryIndex>,
    /// Locked during a change of both disk and index, so that both apply changes in the same order.
    changes: Mutex<()>,
    content: Content,
    pub(crate) uploads: Uploads,
}

#[derive(Debug)]
enum Content {
    Memory(RwLock<HashMap<Digest, Arc<[Bytes]>>>),
    Disk(Arc<Disk>),
}

/// A manifest to store.
#[derive(Debug)]
pub(crate) struct NewManifest {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) entry: ManifestEntry,
    /// The document and the rule for its children, if they must exist.
    pub(crate) children: Option<(Document, Children)>,
    pub(crate) tags: Vec<Tag>,
    /// The precondition of the request, and the reference that it applies to.
    pub(crate) condition: Option<(ManifestReference, Condition)>,
}

/// Why an object was not stored.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The bytes have this digest instead.
    Digest(Digest),
    /// These children of the manifest do not exist.
    Missing(Vec<Digest>),
    /// The precondition does not hold.
    Changed,
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Failed(error)
    }
}

impl Store {
    pub(crate) fn in_memory() -> Store {
        Store::new(RegistryIndex::default(), Content::Memory(RwLock::default()))
    }

    pub(crate) fn open(path: &Path, durability: Durability) -> Result<Store> {
        let (disk, state) = Disk::open(path, durability)?;
        Ok(Store::new(state, Content::Disk(Arc::new(disk))))
    }

    fn new(state: RegistryIndex, content: Content) -> Store {
        Store { state: RwLock::new(state), changes: Mutex::default(), content, uploads: Uploads::default() }
    }

    /// Returns the size of a blob of a repository.
    pub(crate) fn blob(&self, name: &RepositoryName, digest: &Digest) -> Option<u64> {
        self.read_state().blob(name, digest)
    }

    /// Returns the repositories that have a blob.
    pub(crate) fn repositories_with(&self, digest: &Digest) -> Vec<RepositoryName> {
        self.read_state().repositories_with(digest).cloned().collect()
    }

    /// Returns the manifest that a reference names.
    pub(crate) fn manifest(
        &self,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> Option<(Digest, ManifestEntry)> {
        self.read_state().manifest(name, reference).map(|(digest, entry)| (digest, entry.clone()))
    }

    /// Returns a page of the tags of a repository, and whether there are more; `None` if the repository does not exist.
    pub(crate) fn tags(&self, name: &RepositoryName, page: &Page, most: usize) -> Option<(Vec<Tag>, bool)> {
        let state = self.read_state();
        let (tags, more) = page.cut(state.tags(name)?, ToString::to_string, most);
        Some((tags.into_iter().cloned().collect(), more))
    }

    /// Returns a page of the repositories, and whether there are more.
    pub(crate) fn repositories(&self, page: &Page, most: usize) -> (Vec<RepositoryName>, bool) {
        let state = self.read_state();
        let (names, more) = page.cut(state.repositories(), ToString::to_string, most);
        (names.into_iter().cloned().collect(), more)
    }

    /// Returns the referrers of a subject in a repository.
    pub(crate) fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Vec<Descriptor> {
        self.read_state().referrers(name, subject)
    }

    /// Returns the bytes with this digest. The caller checks that the client may read them.
    pub(crate) async fn reader(self: &Arc<Self>, digest: Digest) -> io::Result<Reader> {
        match &self.content {
            Content::Memory(bytes) => {
                let found = bytes.read().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
                found.map(Reader::Memory).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Content::Disk(disk) => {
                let disk = disk.clone();
                Ok(Reader::File(Arc::new(blocking(move || disk.open_blob(&digest)).await?)))
            }
        }
    }

    /// Returns a whole document, whose size is limited.
    pub(crate) async fn read(self: &Arc<Self>, digest: Digest, size: u64) -> io::Result<Bytes> {
        let reader = self.reader(digest).await?;
        let chunks: Vec<Bytes> = reader.stream(0..size).try_collect().await?;
        Ok(match &chunks[..] {
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        })
    }

    /// Creates a draft. In memory, its bytes count against the given budget.
    pub(crate) fn draft(&self, memory: Option<&MemoryBudget>) -> Draft {
        match &self.content {
            Content::Memory(_) => Draft::in_memory(memory.map(MemoryBudget::share)),
            Content::Disk(disk) => Draft::in_directory(disk.unfinished()),
        }
    }

    /// Stores a draft as a blob of a repository, if its digest matches.
    pub(crate) async fn put_blob(
        self: &Arc<Self>,
        name: RepositoryName,
        draft: Draft,
        digest: Digest,
    ) -> Result<(), Refused> {
        self.change(move |store| {
            let size = draft.length();
            let sealed = store.seal_and_sync(draft, &digest)?;
            let _changes = store.lock_changes();
            store.store_bytes(sealed, &digest)?;
            store.on_disk(|disk| disk.add_blob(&name, &digest))?;
            store.write_state().add_blob(&name, digest, size);
            Ok(())
        })
        .await
    }

    /// Adds a blob of another repository to a repository, if the blob still exists.
    pub(crate) async fn mount(
        self: &Arc<Self>,
        from: RepositoryName,
        name: RepositoryName,
        digest: Digest,
    ) -> io::Result<bool> {
        self.change(move |store| {
            let _changes = store.lock_changes();
            let Some(size) = store.blob(&from, &digest) else { return Ok(false) };
            store.on_disk(|disk| disk.add_blob(&name, &digest))?;
            store.write_state().add_blob(&name, digest, size);
            Ok(true)
        })
        .await
    }

    /// Stores a manifest and sets its tags.
    pub(crate) async fn put_manifest(
        self: &Arc<Self>,
        name: RepositoryName,
        manifest: NewManifest,
    ) -> Result<(), Refused> {
        self.change(move |store| {
            let NewManifest { bytes, digest, entry, children, tags, condition } = manifest;
            let mut draft = store.draft(None);
            draft.expect(digest.algorithm());
            draft.append(&[bytes])?;
            let sealed = store.seal_and_sync(draft, &digest)?;
            let _changes = store.lock_changes();
            if let Some((reference, condition)) = &condition {
                let current = store.read_state().manifest(&name, reference).map(|(digest, _)| digest);
                if !condition.holds(current.as_ref()) {
                    return Err(Refused::Changed);
                }
            }
            if let Some((document, rule)) = &children {
                let missing = store.read_state().missing(&name, document, *rule);
                if !missing.is_empty() {
                    return Err(Refused::Missing(missing));
                }
            }
            store.store_bytes(sealed, &digest)?;
            store.on_disk(|disk| disk.add_manifest(&name, &digest, &entry))?;
            store.write_state().add_manifest(&name, digest, entry);
            tags.into_iter().try_for_each(|tag| store.set_tag(&name, tag, &digest))?;
            Ok(())
        })
        .await
    }

    /// Sets a tag and returns whether the manifest exists.
    pub(crate) async fn tag(self: &Arc<Self>, name: RepositoryName, tag: Tag, digest: Digest) -> io::Result<bool> {
        self.change(move |store| {
            let _changes = store.lock_changes();
            let is_there = store.read_state().manifest(&name, &ManifestReference::Digest(digest)).is_some();
            if is_there {
                store.set_tag(&name, tag, &digest)?;
            }
            Ok(is_there)
        })
        .await
    }

    /// Removes a blob from a repository and returns whether it existed.
    pub(crate) async fn delete_blob(self: &Arc<Self>, name: RepositoryName, digest: Digest) -> io::Result<bool> {
        self.change(move |store| {
            let _changes = store.lock_changes();
            store.on_disk(|disk| disk.remove_blob(&name, &digest))?;
            let references = store.write_state().remove_blob(&name, &digest);
            store.remove_unreferenced(references, &digest)
        })
        .await
    }

    /// Removes a manifest and its tags from a repository and returns whether it existed.
    pub(crate) async fn delete_manifest(self: &Arc<Self>, name: RepositoryName, digest: Digest) -> io::Result<bool> {
        self.change(move |store| {
            let _changes = store.lock_changes();
            store.on_disk(|disk| {
                let tags = store.read_state().tags_of(&name, &digest);
                tags.iter().try_for_each(|tag| disk.remove_tag(&name, tag))?;
                disk.remove_manifest(&name, &digest)
            })?;
            let references = store.write_state().remove_manifest(&name, &digest);
            store.remove_unreferenced(references, &digest)
        })
        .await
    }

    /// Removes a tag and returns whether it existed.
    pub(crate) async fn delete_tag(self: &Arc<Self>, name: RepositoryName, tag: Tag) -> io::Result<bool> {
        self.change(move |store| {
            let _changes = store.lock_changes();
            store.on_disk(|disk| disk.remove_tag(&name, &tag))?;
            Ok(store.write_state().remove_tag(&name, &tag))
        })
        .await
    }

    /// Runs a change; on a separate thread if it writes to a disk.
    async fn change<T: Send + 'static, E: From<io::Error> + Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        match &self.content {
            Content::Memory(_) => change(self),
            Content::Disk(_) => {
                let store = self.clone();
                blocking(move || change(&store)).await
            }
        }
    }

    /// Writes down a change, if the storage is on disk.
    fn on_disk(&self, change: impl FnOnce(&Disk) -> io::Result<()>) -> io::Result<()> {
        match &self.content {
            Content::Memory(_) => Ok(()),
            Content::Disk(disk) => change(disk),
        }
    }

    /// Completes a draft, if it has this digest.
    fn seal_and_sync(&self, mut draft: Draft, digest: &Digest) -> Result<Sealed, Refused> {
        let actual = draft.digest(digest.algorithm())?;
        if actual != *digest {
            return Err(Refused::Digest(actual));
        }
        let sealed = draft.seal()?;
        if let (Content::Disk(disk), Sealed::File(file)) = (&self.content, &sealed) {
            disk.sync(file)?;
        }
        Ok(sealed)
    }

    /// Stores bytes under a digest, unless they are already stored.
    fn store_bytes(&self, sealed: Sealed, digest: &Digest) -> io::Result<()> {
        if self.read_state().held(digest).is_some() {
            return Ok(());
        }
        match (&self.content, sealed) {
            (Content::Memory(bytes), Sealed::Memory(segments)) => {
                bytes.write().unwrap_or_else(PoisonError::into_inner).insert(*digest, segments.into());
                Ok(())
            }
            (Content::Disk(disk), Sealed::File(file)) => disk.store(file, digest),
            _ => Err(io::Error::other("the draft is of another storage")),
        }
    }

    fn set_tag(&self, name: &RepositoryName, tag: Tag, digest: &Digest) -> io::Result<()> {
        self.on_disk(|disk| disk.set_tag(name, &tag, digest))?;
        self.write_state().set_tag(name, tag, *digest);
        Ok(())
    }

    /// Deletes bytes without references.
    fn remove_unreferenced(&self, references: Option<ByteReferences>, digest: &Digest) -> io::Result<bool> {
        match (references, &self.content) {
            (None, _) => return Ok(false),
            (Some(ByteReferences::Remaining), _) => {}
            (Some(ByteReferences::None), Content::Disk(disk)) => disk.remove_bytes(digest)?,
            (Some(ByteReferences::None), Content::Memory(bytes)) => {
                bytes.write().unwrap_or_else(PoisonError::into_inner).remove(digest);
            }
        }
        Ok(true)
    }

    fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_state(&self) -> RwLockReadGuard<'_, RegistryIndex> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, RegistryIndex> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
