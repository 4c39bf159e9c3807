use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ocikit_spec::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::endpoint::Endpoint;
use crate::http::transport::lock;

/// What a client knows of registries, so that it asks for nothing twice.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The repositories that hold a blob.
    held: Mutex<HashMap<Key, HashSet<String>>>,
    /// Held while a blob is on its way to a registry, or the index of a subject's referrers to a repository.
    flights: Mutex<HashMap<Key, Arc<AsyncMutex<()>>>>,
    /// Whether registries list referrers.
    referrers: Mutex<HashMap<String, bool>>,
    /// Whether registries answer a mount from the repository that it is for by whether they have the blob.
    mounts: Mutex<HashMap<String, bool>>,
}

/// A blob in a registry, or a subject in a repository.
type Key = (String, Digest);

impl Memory {
    /// Waits until nobody else sends this blob to this registry: then it may be there, or in a repository that it can
    /// be mounted from.
    pub(crate) async fn board(&self, endpoint: &Endpoint, digest: &Digest) -> Flight<'_> {
        self.board_as(key(endpoint, digest)).await
    }

    /// Waits until nobody else here writes the index of a subject's referrers.
    pub(crate) async fn board_index(&self, endpoint: &Endpoint, path: &str, subject: &Digest) -> Flight<'_> {
        self.board_as((endpoint.url(path).to_string(), *subject)).await
    }

    async fn board_as(&self, key: Key) -> Flight<'_> {
        let seat = lock(&self.flights).entry(key.clone()).or_default().clone();
        Flight { key, memory: self, guard: Some(seat.lock_owned().await) }
    }

    /// Whether a registry lists referrers, if that was seen.
    pub(crate) fn lists_referrers(&self, endpoint: &Endpoint) -> Option<bool> {
        lock(&self.referrers).get(endpoint.base.as_str()).copied()
    }

    /// Notes whether a registry lists referrers. One that once did is not believed when it says otherwise.
    pub(crate) fn note_referrers(&self, endpoint: &Endpoint, listed: bool) {
        *lock(&self.referrers).entry(endpoint.base.to_string()).or_default() |= listed;
    }

    /// Whether a registry answers a mount from the repository that it is for by whether it has the blob, if that was seen.
    pub(crate) fn mounts_from_itself(&self, endpoint: &Endpoint) -> Option<bool> {
        lock(&self.mounts).get(endpoint.base.as_str()).copied()
    }

    /// Notes whether it does.
    pub(crate) fn note_mounts(&self, endpoint: &Endpoint, mounts: bool) {
        lock(&self.mounts).insert(endpoint.base.to_string(), mounts);
    }

    pub(crate) fn holds(&self, endpoint: &Endpoint, path: &str, digest: &Digest) -> bool {
        lock(&self.held).get(&key(endpoint, digest)).is_some_and(|paths| paths.contains(path))
    }

    /// A repository of the same registry that holds a blob; always the same one of several.
    pub(crate) fn holder(&self, endpoint: &Endpoint, digest: &Digest) -> Option<String> {
        lock(&self.held).get(&key(endpoint, digest))?.iter().min().cloned()
    }

    pub(crate) fn remember(&self, endpoint: &Endpoint, path: &str, digest: &Digest) {
        lock(&self.held).entry(key(endpoint, digest)).or_default().insert(path.to_owned());
    }

    pub(crate) fn forget(&self, endpoint: &Endpoint, path: &str, digest: &Digest) {
        if let Some(paths) = lock(&self.held).get_mut(&key(endpoint, digest)) {
            paths.remove(path);
        }
    }

    /// Forgets everything about a repository, which turned out not to hold what it held.
    pub(crate) fn forget_all(&self, path: &str) {
        for paths in lock(&self.held).values_mut() {
            paths.remove(path);
        }
    }
}

fn key(endpoint: &Endpoint, digest: &Digest) -> Key {
    (endpoint.base.to_string(), *digest)
}

/// The only one under way with something.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    key: Key,
    memory: &'a Memory,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut flights = lock(&self.memory.flights);
        // Nobody else can take it while the map is locked.
        if flights.get(&self.key).is_some_and(|seat| Arc::strong_count(seat) == 1) {
            flights.remove(&self.key);
        }
    }
}
