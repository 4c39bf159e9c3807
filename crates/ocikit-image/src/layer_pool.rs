use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use crate::error::{Error, Result};
use crate::new_layer::NewLayer;

/// The number of layers that are changed in parallel. Each uses all processors for compression, and up to 200 MiB with
/// zstd on eight of them.
const MAX_PARALLEL_LAYERS: usize = 2;

/// The changed layers of one operation: a layer that several images have is changed once, and two are changed in parallel.
#[derive(Debug)]
pub struct LayerPool<K, V = NewLayer> {
    known: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
    slots: Semaphore,
}

impl<K: Eq + Hash, V: Clone> LayerPool<K, V> {
    /// Creates an empty pool.
    pub fn new() -> LayerPool<K, V> {
        LayerPool { known: Mutex::default(), slots: Semaphore::new(MAX_PARALLEL_LAYERS) }
    }

    /// Returns the layer for a key; the work makes it, unless another image has it already.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub async fn once(&self, key: K, work: impl Future<Output = Result<V>> + Send) -> Result<V> {
        let cell = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let made = cell.get_or_try_init(|| async {
            let slot = self.slots.acquire().await;
            let _slot = slot.map_err(|error| Error::failed("change", "layers", std::io::Error::other(error)))?;
            work.await
        });
        made.await.cloned()
    }
}

impl<K: Eq + Hash, V: Clone> Default for LayerPool<K, V> {
    fn default() -> LayerPool<K, V> {
        LayerPool::new()
    }
}
