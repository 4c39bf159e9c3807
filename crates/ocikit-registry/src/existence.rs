//! Checks for many blobs concurrently, before each of them is put.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use ocikit_spec::Digest;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::blobs;
use crate::target::Target;

/// Maximum number of concurrent checks. Over HTTP/1.1 each needs a connection of its own.
const MAX_CONCURRENT_CHECKS: usize = 16;

/// Receives whether a blob exists. The channel closes without a value if the check failed.
pub(crate) type ExistsReceiver = oneshot::Receiver<bool>;

/// The checks whether blobs exist that are in progress.
#[derive(Debug, Default)]
pub(crate) struct ExistenceChecks {
    receivers: HashMap<Digest, ExistsReceiver>,
    /// Aborted when dropped.
    _task: JoinSet<()>,
}

impl ExistenceChecks {
    /// Starts a check for each of these blobs.
    pub(crate) fn start(target: &Arc<Target>, blobs: Vec<(Digest, u64)>) -> ExistenceChecks {
        let (mut receivers, mut checks) = (HashMap::new(), Vec::new());
        for (digest, size) in blobs {
            let (sender, receiver) = oneshot::channel();
            receivers.insert(digest, receiver);
            checks.push((digest, size, sender));
        }
        let target = target.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let check = |(digest, size, sender): (Digest, u64, oneshot::Sender<bool>)| {
                let target = &target;
                async move {
                    // An error is dropped here: the task that puts the blob repeats the check and reports it.
                    if let Ok(exists) = blobs::exists_to_push(target, &target.access_to_push(), &digest, size).await {
                        let _ = sender.send(exists);
                    }
                }
            };
            stream::iter(checks).for_each_concurrent(MAX_CONCURRENT_CHECKS, check).await;
        });
        ExistenceChecks { receivers, _task: task }
    }

    /// Returns the receiver for a blob, if a check was started; once per blob.
    pub(crate) fn take(&mut self, digest: &Digest) -> Option<ExistsReceiver> {
        self.receivers.remove(digest)
    }
}
