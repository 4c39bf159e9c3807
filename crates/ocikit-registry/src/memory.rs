use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ocikit_spec::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::endpoint::Endpoint;
use crate::http::transport::lock;

/// What a client knows of blobs in registries, so that it asks for none twice.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The repositories that hold a blob.
    held: Mutex<HashMap<Key, HashSet<String>>>,
    /// Held while a blob is on its way to a registry.
    flights: Mutex<HashMap<Key, Arc<AsyncMutex<()>>>>,
}

/// A blob in a registry.
type Key = (String, Digest);

impl Memory {
    /// Waits until nobody else sends this blob to this registry: then it may be there, or in a repository that it can
    /// be mounted from.
    pub(crate) async fn board(&self, endpoint: &Endpoint, digest: &Digest) -> Flight<'_> {
        let key = key(endpoint, digest);
        let seat = lock(&self.flights).entry(key.clone()).or_default().clone();
        Flight { key, memory: self, guard: Some(seat.lock_owned().await) }
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

/// The only one under way with a blob.
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
