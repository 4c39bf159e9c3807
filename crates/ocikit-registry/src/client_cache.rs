use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ocikit_http::lock;
use ocikit_spec::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::endpoint::Endpoint;

/// What a client has learned about registries, shared by all its repositories, so that no request is repeated.
#[derive(Debug, Default)]
pub(crate) struct ClientCache {
    /// The repositories that have a blob.
    held: Mutex<HashMap<BlobKey, HashSet<String>>>,
    /// Locked while a blob is uploaded to a registry, while the referrers index of a subject is edited, or while a task
    /// finds out whether a registry has the referrers API.
    inflight: Mutex<HashMap<BlobKey, Arc<AsyncMutex<()>>>>,
    /// Whether each registry has the referrers API.
    referrers: Mutex<HashMap<String, bool>>,
    /// Whether each registry answers a mount from the target repository itself with 201 if, and only if, the blob
    /// exists.
    mounts: Mutex<HashMap<String, bool>>,
}

/// A blob in a registry, or a subject in a repository.
type BlobKey = (String, Digest);

impl ClientCache {
    /// Waits until no other task uploads this blob to this registry. After that it may exist, or may be mounted from
    /// another repository.
    pub(crate) async fn acquire(&self, endpoint: &Endpoint, digest: &Digest) -> InflightGuard<'_> {
        self.acquire_key(key(endpoint, digest)).await
    }

    /// Waits until no other task of this client edits the referrers index of a subject.
    pub(crate) async fn acquire_index(&self, endpoint: &Endpoint, path: &str, subject: &Digest) -> InflightGuard<'_> {
        self.acquire_key((endpoint.url(path).reveal().to_owned(), *subject)).await
    }

    /// Waits until no other task finds out whether a registry has the referrers API; `None` if it is known. The first of
    /// many concurrent checks then learns it for all.
    pub(crate) async fn acquire_referrers_check(&self, endpoint: &Endpoint) -> Option<InflightGuard<'_>> {
        if self.lists_referrers(endpoint).is_some() {
            return None;
        }
        let key = (format!("{} referrers", endpoint.base.reveal()), Digest::sha256_of(b""));
        Some(self.acquire_key(key).await).filter(|_| self.lists_referrers(endpoint).is_none())
    }

    async fn acquire_key(&self, key: BlobKey) -> InflightGuard<'_> {
        let mutex = lock(&self.inflight).entry(key.clone()).or_default().clone();
        InflightGuard { key, cache: self, guard: Some(mutex.lock_owned().await) }
    }

    /// Returns whether a registry has the referrers API; `None` if unknown.
    pub(crate) fn lists_referrers(&self, endpoint: &Endpoint) -> Option<bool> {
        lock(&self.referrers).get(endpoint.base.reveal()).copied()
    }

    /// Records whether a registry has the referrers API. Once it had, a later "no" is ignored.
    pub(crate) fn note_referrers(&self, endpoint: &Endpoint, listed: bool) {
        *lock(&self.referrers).entry(endpoint.base.reveal().to_owned()).or_default() |= listed;
    }

    /// Returns whether a registry answers a mount from the target repository itself by whether the blob exists; `None`
    /// if unknown.
    pub(crate) fn mounts_from_itself(&self, endpoint: &Endpoint) -> Option<bool> {
        lock(&self.mounts).get(endpoint.base.reveal()).copied()
    }

    /// Records whether a registry answers a mount from the target repository itself by whether the blob exists.
    pub(crate) fn note_mounts(&self, endpoint: &Endpoint, mounts: bool) {
        lock(&self.mounts).insert(endpoint.base.reveal().to_owned(), mounts);
    }

    pub(crate) fn holds(&self, endpoint: &Endpoint, path: &str, digest: &Digest) -> bool {
        lock(&self.held).get(&key(endpoint, digest)).is_some_and(|paths| paths.contains(path))
    }

    /// Returns a repository of the same registry that has a blob: the first one in alphabetical order, so that runs are
    /// reproducible.
    pub(crate) fn repository_with(&self, endpoint: &Endpoint, digest: &Digest) -> Option<String> {
        lock(&self.held).get(&key(endpoint, digest))?.iter().min().cloned()
    }

    pub(crate) fn record(&self, endpoint: &Endpoint, path: &str, digest: &Digest) {
        lock(&self.held).entry(key(endpoint, digest)).or_default().insert(path.to_owned());
    }

    pub(crate) fn forget(&self, endpoint: &Endpoint, path: &str, digest: &Digest) {
        if let Some(paths) = lock(&self.held).get_mut(&key(endpoint, digest)) {
            paths.remove(path);
        }
    }

    /// Forgets all blobs of a repository, after one of them turned out to be missing.
    pub(crate) fn forget_all(&self, path: &str) {
        for paths in lock(&self.held).values_mut() {
            paths.remove(path);
        }
    }
}

fn key(endpoint: &Endpoint, digest: &Digest) -> BlobKey {
    (endpoint.base.reveal().to_owned(), *digest)
}

/// Exclusive access to a key of the in-flight table.
#[derive(Debug)]
pub(crate) struct InflightGuard<'a> {
    key: BlobKey,
    cache: &'a ClientCache,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for InflightGuard<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut inflight = lock(&self.cache.inflight);
        // No other task can clone the lock while the map is locked.
        if inflight.get(&self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            inflight.remove(&self.key);
        }
    }
}
