use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What clients may take of the server: connections, memory and time.
///
/// The upload of a blob may take as long as it makes progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time. Further clients wait. While they do, connections on which nothing moved for
    /// 10 seconds are closed.
    pub max_connections: usize,
    /// Upload sessions at the same time.
    pub max_uploads: usize,
    /// Bytes of unfinished uploads that are held in memory at the same time, for all sessions. Uploads to a directory are
    /// not limited.
    pub max_upload_bytes: usize,
    /// Bytes of manifests and forms that are held in memory at the same time, for all requests.
    pub max_document_bytes: usize,
    /// How long a manifest or form may take to arrive as a whole.
    pub document_timeout: Duration,
    /// How long the body of a request may bring no byte.
    pub body_idle_timeout: Duration,
    /// How long a connection may lie idle, take to bring the head of a request, or not read its answer.
    pub connection_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Together with a file for each, below the 1024 open files that a process usually has.
            max_connections: 384,
            max_uploads: 1024,
            max_upload_bytes: 256 << 20,
            max_document_bytes: 64 << 20,
            document_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(120),
            // Longer than the 90 seconds after which Go's clients give up idle connections, so that it is not the server
            // that hangs up on a request on its way.
            connection_idle_timeout: Duration::from_secs(120),
        }
    }
}

/// Memory that all requests share.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

/// A part of the shared memory; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Memory {
        Memory(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Returns an empty share.
    pub(crate) fn share(&self) -> Share {
        Share { memory: self.clone(), permit: None }
    }
}

impl Share {
    /// Gives back bytes of the share.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            drop(permit.split(bytes.min(permit.num_permits())));
        }
    }

    /// Adds bytes to the share, or fails if the requests under way hold too many.
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
    fn dropped_shares_are_given_back() {
        let memory = Memory::new(10);
        let (mut one, mut two) = (memory.share(), memory.share());
        one.grow(4).unwrap();
        one.grow(2).unwrap();
        assert!(two.grow(5).is_err());
        two.grow(4).unwrap();
        drop(one);
        two.grow(6).unwrap();
    }
}
