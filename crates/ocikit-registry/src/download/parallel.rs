//! A large blob in several ranges at the same time, handed on in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{BoxStream, Fuse};
use futures::{StreamExt, stream};
use ocikit_image::{Body, Result};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;

use super::part::Part;
use crate::client::Inner;

/// When and how a blob is downloaded in several ranges at the same time.
///
/// It helps where one connection does not fill the line, and costs where it does. So a large blob is asked for in one
/// piece, and how fast its first bytes come decides about what is behind the first two parts. How long the answer took to
/// begin does not count: that is distance, which more requests do not shorten.
///
/// One blob at a time may be downloaded like this; others come in one piece meanwhile. So the bytes that wait for
/// their turn are at most `part` times `ahead`, however many blobs there are.
#[derive(Debug, Clone)]
pub struct ParallelOptions {
    /// From which size on.
    pub threshold: u64,
    /// How many bytes a range has.
    pub part: u64,
    /// How many ranges are under way beside the one that is handed on; 0 for never.
    pub ahead: usize,
    /// Below how many bytes in a second a line is slow, all downloads that share it counted together.
    pub slow: u64,
}

impl Default for ParallelOptions {
    /// From 32 MiB on, in ranges of 4 MiB, three ahead, below 100 MiB in a second.
    fn default() -> ParallelOptions {
        ParallelOptions { threshold: 32 << 20, part: 4 << 20, ahead: 3, slow: 100 << 20 }
    }
}

/// A part of a blob by one answer, and what is behind its beginning in ranges if it comes slowly.
pub(super) async fn open(part: Part, options: &ParallelOptions, permit: OwnedSemaphorePermit) -> Result<Body> {
    let opened = part.open().await?;
    let length = part.length(&opened);
    if !opened.ranges {
        return Ok(Body::new(length, part.stream(opened)));
    }
    let beginning = options.part.max(1).saturating_mul(2);
    let download = Download {
        inner: part.inner.clone(),
        front: part.clone().stream(opened).boxed().fuse(),
        passed: 0,
        // Not zero, so that no speed is too fast to be called slow.
        waited: Duration::from_nanos(1),
        beginning,
        decide_at: beginning / 4 * 3,
        rest: Rest::Undecided(part),
        options: options.clone(),
        _permit: permit,
    };
    Ok(Body::new(
        length,
        stream::unfold(Some(download), |download| async {
            let mut download = download?;
            match download.next().await? {
                Ok(chunk) => Some((Ok(chunk), Some(download))),
                Err(error) => Some((Err(error), None)),
            }
        }),
    ))
}

struct Download {
    inner: Arc<Inner>,
    /// The answer that everything was asked for with.
    front: Fuse<BoxStream<'static, Result<Bytes>>>,
    passed: u64,
    /// How long the line made us wait between two chunks, which is not how long it took: who reads may be slow too.
    waited: Duration,
    /// How much of that answer is read where the rest comes in ranges.
    beginning: u64,
    decide_at: u64,
    rest: Rest,
    options: ParallelOptions,
    _permit: OwnedSemaphorePermit,
}

/// What is behind the beginning.
enum Rest {
    Undecided(Part),
    /// Comes with the same answer.
    Same,
    Parts(Ahead),
}

impl Download {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if let Rest::Parts(ahead) = &mut self.rest
            && self.passed >= self.beginning
        {
            // What was on its way behind the beginning is lost with its connection: less than a window of it.
            self.front = stream::empty().boxed().fuse();
            return ahead.next().await;
        }
        let asked = Instant::now();
        let mut chunk = match self.front.next().await? {
            Ok(chunk) => chunk,
            error @ Err(_) => return Some(error),
        };
        // The first wait was for the answer.
        if self.passed > 0 {
            self.waited += asked.elapsed();
        }
        if let Rest::Parts(_) = &self.rest {
            chunk.truncate(chunk.len().min((self.beginning - self.passed) as usize));
        }
        self.passed += chunk.len() as u64;
        if self.passed >= self.decide_at {
            self.decide();
        }
        Some(Ok(chunk))
    }

    /// Asks for the rest, some time before the beginning ends, if that is worth it.
    fn decide(&mut self) {
        let Rest::Undecided(part) = &self.rest else { return };
        let mut rest = part.clone();
        // A chunk may have gone beyond it.
        self.beginning = self.beginning.max(self.passed);
        rest.split(self.beginning);
        let together = self.passed as f64 * self.inner.downloads.load(Ordering::Relaxed).max(1) as f64;
        let slow = together < self.waited.as_secs_f64() * self.options.slow as f64;
        if !slow || rest.is_empty() {
            self.rest = Rest::Same;
            return;
        }
        let mut ahead = Ahead { rest, size: self.options.part.max(1), fetching: VecDeque::new() };
        for _ in 0..self.options.ahead {
            ahead.fetch();
        }
        self.rest = Rest::Parts(ahead);
    }
}

/// The ranges that are under way.
struct Ahead {
    /// What nobody fetches yet.
    rest: Part,
    size: u64,
    fetching: VecDeque<Fetching>,
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
        let Some(mut part) = self.rest.split(self.size) else { return };
        // It holds no more than the range has bytes.
        let (sender, chunks) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let opened = match part.open_anywhere().await {
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
