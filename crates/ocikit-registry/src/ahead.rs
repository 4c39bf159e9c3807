//! Asking for many blobs at once, before each of them is put.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use ocikit_spec::Digest;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::blobs;
use crate::client::Inner;
use crate::target::Target;

/// How many are asked for at the same time. More would each need a connection of its own where there is no HTTP/2.
const AT_ONCE: usize = 16;

/// Whether a blob is there, once that is known. It fails where it could not be found out, and then says nothing.
pub(crate) type Answer = oneshot::Receiver<bool>;

/// Questions whether blobs are there, under way to the registry.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    answers: HashMap<Digest, Answer>,
    task: Option<AbortHandle>,
}

impl Ahead {
    /// Asks for these.
    pub(crate) fn ask(inner: &Arc<Inner>, target: &Arc<Target>, blobs: Vec<(Digest, u64)>) -> Ahead {
        let (mut answers, mut questions) = (HashMap::new(), Vec::new());
        for (digest, size) in blobs {
            let (sender, receiver) = oneshot::channel();
            answers.insert(digest, receiver);
            questions.push((digest, size, sender));
        }
        let (inner, target) = (inner.clone(), target.clone());
        let task = tokio::spawn(async move {
            let ask = |(digest, size, sender): (Digest, u64, oneshot::Sender<bool>)| {
                let (inner, target) = (&inner, &target);
                async move {
                    // Whoever puts the blob asks again and is told what is wrong.
                    if let Ok(exists) =
                        blobs::exists_to_push(inner, target, &target.access_to_push(), &digest, size).await
                    {
                        let _ = sender.send(exists);
                    }
                }
            };
            stream::iter(questions).for_each_concurrent(AT_ONCE, ask).await;
        });
        Ahead { answers, task: Some(task.abort_handle()) }
    }

    /// The answer for a blob, if it was asked for; each is given once.
    pub(crate) fn take(&mut self, digest: &Digest) -> Option<Answer> {
        self.answers.remove(digest)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
