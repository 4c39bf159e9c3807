use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use crate::error::{Error, Result};
use crate::new_layer::NewLayer;

/// The number of layers that are changed in parallel. Each uses all processors for compression, and up to 200 MiB with
/// zstd on eight of them.
const MAX_PARALLEL_LAYERS: usize = 2;

/// The changed layers of one operation: a layer that several images have is changed once.
pub(crate) struct LayerPool<K> {
    known: Mutex<HashMap<K, Arc<OnceCell<NewLayer>>>>,
    slots: Semaphore,
}

impl<K: Eq + Hash> LayerPool<K> {
    pub(crate) fn new() -> LayerPool<K> {
        LayerPool { known: Mutex::default(), slots: Semaphore::new(MAX_PARALLEL_LAYERS) }
    }

    /// Returns the layer for a key; the work makes it, unless another image has it already.
    pub(crate) async fn once(&self, key: K, work: impl Future<Output = Result<NewLayer>> + Send) -> Result<NewLayer> {
        let cell = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let made = cell.get_or_try_init(|| async {
            let slot = self.slots.acquire().await;
            let _slot = slot.map_err(|error| Error::failed("change", "layers", std::io::Error::other(error)))?;
            work.await
        });
        made.await.cloned()
    }
}
