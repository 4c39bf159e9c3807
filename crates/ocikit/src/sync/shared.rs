use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ocikit_image::{Body, ByteRange, Name, Naming, Put, Result, Sink, Source};
use ocikit_registry::RemoteRepository;
use ocikit_spec::{Descriptor, Digest, Repository, Tag};
use tokio::sync::Mutex as AsyncMutex;

/// The blobs and documents that the images of a sync store in a repository. Each is stored by the handle that announced
/// it, because that one looks for it; once it is stored, there is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored(Arc<Mutex<HashMap<Digest, Entry>>>);

type Entry = Arc<AsyncMutex<Option<RemoteRepository>>>;

impl Stored {
    /// Returns the entry of a blob, and whether it is new.
    fn entry(&self, blob: &Descriptor, to: &RemoteRepository) -> (Entry, bool) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entries.len();
        let entry = entries.entry(blob.digest).or_insert_with(|| Arc::new(AsyncMutex::new(Some(to.clone())))).clone();
        (entry, entries.len() > before)
    }

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A target repository for one image. What several images share is looked for and uploaded once, although they are
/// copied at the same time.
#[derive(Debug)]
pub(super) struct SharedTarget {
    pub(super) to: RemoteRepository,
    pub(super) stored: Stored,
}

impl fmt::Display for SharedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to, f)
    }
}

#[async_trait]
impl Source for SharedTarget {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.to.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.to.open_unverified(descriptor, range).await
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.to.open_small(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.to.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.to.referrers(subject).await
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        self.to.repository(descriptor)
    }
}

#[async_trait]
impl Sink for SharedTarget {
    /// Announces only what no other image has announced: the repository looks for announced blobs early.
    async fn expect(&self, descriptors: &[Descriptor]) -> Result<()> {
        let new = descriptors.iter().filter(|blob| self.stored.entry(blob, &self.to).1).cloned();
        self.to.expect(&new.collect::<Vec<_>>()).await
    }

    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let (entry, _) = self.stored.entry(descriptor, &self.to);
        let mut entry = entry.lock().await;
        let Some(to) = &*entry else { return Ok(Put::Present) };
        let put = to.put(descriptor, from).await;
        match &put {
            Ok(_) => *entry = None,
            // The registry may have lost a blob: the next image looks for each of them again.
            Err(_) if descriptor.media_type.is_document() => self.stored.forget(),
            Err(_) => {}
        }
        put
    }

    async fn confirm(&self, root: &Descriptor) -> Result<()> {
        self.to.confirm(root).await
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        self.to.publish(root, naming).await
    }

    fn keeps_order(&self) -> bool {
        self.to.keeps_order()
    }

    async fn tagged(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        self.to.tagged(tag).await
    }

    async fn tagged_later(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        self.to.tagged_later(tag).await
    }

    async fn is_complete(&self, root: &Descriptor, naming: &Naming) -> Result<bool> {
        self.to.is_complete(root, naming).await
    }
}
