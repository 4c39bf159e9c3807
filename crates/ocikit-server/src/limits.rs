use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits on the connections, memory and time that clients can use.
///
/// The upload of a blob has no time limit while it makes progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Maximum number of connections. Further clients wait. While they do, connections that are idle for 10 seconds are
    /// closed.
    pub max_connections: usize,
    /// Maximum number of upload sessions.
    pub max_uploads: usize,
    /// Maximum number of bytes of unfinished uploads in memory, for all sessions together. Uploads to a directory are not
    /// limited.
    pub max_upload_bytes: usize,
    /// Maximum number of bytes of manifests and forms in memory, for all requests together.
    pub max_document_bytes: usize,
    /// Time limit for a complete manifest or form.
    pub document_timeout: Duration,
    /// How long a request body may bring no byte.
    pub body_idle_timeout: Duration,
    /// How long a connection may be idle, take to send a request head, or not read a response.
    pub connection_idle_timeout: Duration,
}

ocikit_spec::setters! {
    ServerLimits {
        max_connections: usize,
        max_uploads: usize,
        max_upload_bytes: usize,
        max_document_bytes: usize,
        document_timeout: Duration,
        body_idle_timeout: Duration,
        connection_idle_timeout: Duration,
    }
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            // Together with one file for each, below the usual limit of 1024 open files per process.
            max_connections: 384,
            max_uploads: 1024,
            max_upload_bytes: 256 << 20,
            max_document_bytes: 48 << 20,
            document_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(120),
            // Go's clients close idle connections after 90 seconds. A longer timeout avoids closing a connection while
            // a request arrives on it.
            connection_idle_timeout: Duration::from_secs(120),
        }
    }
}

/// The memory budget that all requests share.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Semaphore>);

/// A part of the memory budget; dropping it returns it.
#[derive(Debug)]
pub(crate) struct Share {
    memory: MemoryBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> MemoryBudget {
        MemoryBudget(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Returns an empty share.
    pub(crate) fn share(&self) -> Share {
        Share { memory: self.clone(), permit: None }
    }
}

impl Share {
    /// Returns bytes of the share.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            drop(permit.split(bytes.min(permit.num_permits())));
        }
    }

    /// Adds bytes to the share, or fails if other requests hold too many.
    pub(crate) fn grow(&mut self, bytes: usize) -> io::Result<()> {
        let exhausted = || io::Error::from(io::ErrorKind::OutOfMemory);
        let count = u32::try_from(bytes).map_err(|_| exhausted())?;
        let more = self.memory.0.clone().try_acquire_many_owned(count).map_err(|_| exhausted())?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_shares_are_returned() {
        let memory = MemoryBudget::new(10);
        let (mut one, mut two) = (memory.share(), memory.share());
        one.grow(4).unwrap();
        one.grow(2).unwrap();
        assert!(two.grow(5).is_err());
        two.grow(4).unwrap();
        drop(one);
        two.grow(6).unwrap();
    }
}
