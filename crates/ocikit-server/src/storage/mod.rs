//! Where a registry keeps what it holds.

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

pub(crate) use draft::Draft;
pub(crate) use reader::Reader;
pub(crate) use state::Entry;
pub(crate) use store::{NewManifest, Refused, Store};
pub(crate) use upload::{Received, Stopped, Turn, Upload, Writer};

/// Where a registry keeps what it holds.
///
/// Clones are the same place: two servers with one storage are one registry with two addresses.
#[derive(Clone)]
pub struct Storage(Kind);

#[derive(Clone)]
enum Kind {
    Memory(Arc<Store>),
    Directory(Arc<Directory>),
}

struct Directory {
    path: PathBuf,
    durability: Durability,
    /// Open as long as a server is.
    open: Mutex<Weak<Store>>,
}

/// What a directory outlives without losing anything that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, whatever ended it.
    Crash,
    /// The end of the machine as well: whatever is acknowledged has reached the disk. Slower.
    PowerLoss,
}

impl Storage {
    /// Memory. It is kept as long as there is a clone of it, also while no server runs.
    pub fn memory() -> Storage {
        Storage(Kind::Memory(Arc::new(Store::in_memory())))
    }

    /// A directory, which outlives power loss; it is made if it is not there, and opened when the server starts.
    pub fn directory(path: impl Into<PathBuf>) -> Storage {
        Storage::directory_with(path, Durability::PowerLoss)
    }

    /// A directory that outlives what it has to.
    pub fn directory_with(path: impl Into<PathBuf>, durability: Durability) -> Storage {
        let directory = Directory { path: path.into(), durability, open: Mutex::default() };
        Storage(Kind::Directory(Arc::new(directory)))
    }

    /// The path of the directory, `None` for memory.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Memory(_) => None,
            Kind::Directory(directory) => Some(&directory.path),
        }
    }

    pub(crate) async fn open(&self) -> Result<Arc<Store>> {
        let directory = match &self.0 {
            Kind::Memory(store) => return Ok(store.clone()),
            Kind::Directory(directory) => directory.clone(),
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

/// Runs work that blocks on a thread made for it. A panic there goes on here.
pub(crate) async fn blocking<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(io::Error::other("the runtime is shutting down").into()),
        },
    }
}
