//! Stores blobs, manifests and tags.

mod blocking;
mod disk;
mod draft;
mod reader;
mod state;
mod store;
mod upload;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use crate::error::{Error, Result};

pub(crate) use blocking::blocking;
pub use disk::Durability;
pub(crate) use draft::Draft;
pub(crate) use reader::Reader;
pub(crate) use state::ManifestEntry;
pub(crate) use store::{NewManifest, Refused, Store};
pub(crate) use upload::{Received, Stopped, Turn, Upload, Writer};

/// The storage of a registry.
///
/// Clones share one storage: two servers with it are one registry with two addresses.
#[derive(Clone)]
pub struct Storage(StorageKind);

#[derive(Clone)]
enum StorageKind {
    Memory(Arc<Store>),
    Directory(Arc<Directory>),
}

struct Directory {
    path: PathBuf,
    durability: Durability,
    /// Set while a server uses the directory.
    open: Mutex<Weak<Store>>,
}

impl Storage {
    /// Creates storage in memory. It exists as long as a clone of it, also without a running server.
    pub fn memory() -> Storage {
        Storage(StorageKind::Memory(Arc::new(Store::in_memory())))
    }

    /// Uses a directory, with [`Durability::PowerLoss`]. It is created if necessary, and opened when the server starts.
    pub fn directory(path: impl Into<PathBuf>) -> Storage {
        Storage::directory_with(path, Durability::PowerLoss)
    }

    /// Uses a directory, with a durability.
    pub fn directory_with(path: impl Into<PathBuf>, durability: Durability) -> Storage {
        let directory = Directory { path: path.into(), durability, open: Mutex::default() };
        Storage(StorageKind::Directory(Arc::new(directory)))
    }

    /// Returns the path of the directory; `None` for memory.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            StorageKind::Memory(_) => None,
            StorageKind::Directory(directory) => Some(&directory.path),
        }
    }

    pub(crate) async fn open(&self) -> Result<Arc<Store>> {
        let directory = match &self.0 {
            StorageKind::Memory(store) => return Ok(store.clone()),
            StorageKind::Directory(directory) => directory.clone(),
        };
        let mut open = directory.open.lock().await;
        if let Some(store) = open.upgrade() {
            return Ok(store);
        }
        let (path, durability) = (directory.path.clone(), directory.durability);
        let opened = blocking(move || Ok::<_, io::Error>(Store::open(&path, durability))).await;
        let store = Arc::new(opened.map_err(|source| Error::Storage { place: directory.path.clone(), source })??);
        *open = Arc::downgrade(&store);
        Ok(store)
    }
}

impl Default for Storage {
    fn default() -> Storage {
        Storage::memory()
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            None => f.write_str("Storage (memory)"),
            Some(path) => write!(f, "Storage ({})", path.display()),
        }
    }
}
