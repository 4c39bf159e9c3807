//! A large blob in several ranges at the same time, handed on in order.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt, stream};
use ocikit_image::{Body, Result};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;

use super::part::Part;

/// When and how a blob is downloaded in several ranges at the same time.
///
/// One blob at a time is; others that are downloaded meanwhile come as they always do. So the bytes that wait for
/// their turn are at most `part` times `ahead`, however many blobs there are.
#[derive(Debug, Clone)]
pub struct ParallelOptions {
    /// From which size on.
    pub threshold: u64,
    /// How many bytes a range has.
    pub part: u64,
    /// How many ranges are under way beside the one that is handed on; 0 for never.
    pub ahead: usize,
}

impl Default for ParallelOptions {
    /// From 32 MiB on, in ranges of 4 MiB, three ahead.
    fn default() -> ParallelOptions {
        ParallelOptions { threshold: 32 << 20, part: 4 << 20, ahead: 3 }
    }
}

/// A part of a blob by its first range, which tells whether the registry knows ranges, and then the others.
pub(super) async fn open(part: Part, options: &ParallelOptions, permit: OwnedSemaphorePermit) -> Result<Body> {
    let mut rest = part.clone();
    let Some(first) = rest.split(options.part.max(1)) else { return Ok(Bytes::new().into()) };
    let opened = first.open().await?;
    let length = part.length(&opened);
    if !opened.ranged {
        // Everything is on its way already.
        return Ok(Body::new(length, part.stream(opened)));
    }
    let mut ahead = Ahead { rest, size: options.part.max(1), fetching: VecDeque::new(), _permit: permit };
    for _ in 0..options.ahead {
        ahead.fetch();
    }
    let others = stream::unfold(Some(ahead), |ahead| async {
        let mut ahead = ahead?;
        match ahead.next().await? {
            Ok(chunk) => Some((Ok(chunk), Some(ahead))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(Body::new(length, first.stream(opened).chain(others)))
}

/// The ranges that are under way.
struct Ahead {
    /// What nobody fetches yet.
    rest: Part,
    size: u64,
    fetching: VecDeque<Fetching>,
    _permit: OwnedSemaphorePermit,
}

impl Ahead {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(chunk) = self.fetching.front_mut()?.chunks.recv().await {
                return Some(chunk);
            }
            self.fetching.pop_front();
            self.fetch();
        }
    }

    /// Begins with the next range, if there is one.
    fn fetch(&mut self) {
        let Some(part) = self.rest.split(self.size) else { return };
        // It holds no more than the range has bytes.
        let (sender, chunks) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let opened = match part.open().await {
                Ok(opened) => opened,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let mut stream = std::pin::pin!(part.stream(opened));
            while let Some(chunk) = stream.next().await {
                if sender.send(chunk).is_err() {
                    return;
                }
            }
        });
        self.fetching.push_back(Fetching { chunks, task: task.abort_handle() });
    }
}

/// A range on its way, which ends when nobody wants it any more.
struct Fetching {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    task: AbortHandle,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}
