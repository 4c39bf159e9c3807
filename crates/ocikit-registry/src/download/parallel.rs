//! Downloads a large blob in several concurrent ranges, and returns the bytes in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{BoxStream, Fuse};
use futures::{StreamExt, stream};
use ocikit_image::{Body, Result};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;

use super::part::Part;
use crate::options::ParallelOptions;
use crate::target::Target;

/// Returns the bytes of a part: from one answer, followed by concurrent ranges if that answer is slow.
pub(super) async fn open(part: Part, options: &ParallelOptions, permit: OwnedSemaphorePermit) -> Result<Body> {
    let opened = part.open().await?;
    let length = part.length(&opened);
    if !opened.ranges {
        return Ok(Body::new(length, part.stream(opened)));
    }
    let beginning = options.part.max(1).saturating_mul(2);
    let download = Download {
        target: part.target.clone(),
        front: part.clone().stream(opened).boxed().fuse(),
        passed: 0,
        // Not zero, since otherwise no throughput would count as slow.
        waited: Duration::from_nanos(1),
        beginning,
        decide_at: beginning / 4 * 3,
        rest: Rest::Undecided(part),
        options: options.clone(),
        _permit: permit,
    };
    Ok(Body::new(
        length,
        stream::try_unfold(download, |mut download| async {
            Ok(download.next().await.transpose()?.map(|chunk| (chunk, download)))
        }),
    ))
}

struct Download {
    target: Arc<Target>,
    /// The answer to the request for the complete part.
    front: Fuse<BoxStream<'static, Result<Bytes>>>,
    passed: u64,
    /// The time spent waiting for the network. The total time would include a slow reader.
    waited: Duration,
    /// Number of bytes that are taken from that answer if the rest is requested in ranges.
    beginning: u64,
    decide_at: u64,
    rest: Rest,
    options: ParallelOptions,
    _permit: OwnedSemaphorePermit,
}

/// How the bytes after `beginning` are downloaded.
enum Rest {
    Undecided(Part),
    /// With the same answer.
    SameAnswer,
    Ranges(RangeQueue),
}

impl Download {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if let Rest::Ranges(ahead) = &mut self.rest
            && self.passed >= self.beginning
        {
            // The bytes in transit beyond `beginning` are discarded with the connection: less than one TCP window.
            self.front = stream::empty().boxed().fuse();
            return ahead.next().await;
        }
        let asked = Instant::now();
        let mut chunk = match self.front.next().await? {
            Ok(chunk) => chunk,
            error @ Err(_) => return Some(error),
        };
        // The first wait includes the latency of the answer.
        if self.passed > 0 {
            self.waited += asked.elapsed();
        }
        if let Rest::Ranges(_) = &self.rest {
            chunk.truncate(chunk.len().min((self.beginning - self.passed) as usize));
        }
        self.passed += chunk.len() as u64;
        if self.passed >= self.decide_at {
            self.decide();
        }
        Some(Ok(chunk))
    }

    /// Decides how the rest is downloaded, and requests the first ranges before `beginning` is reached.
    fn decide(&mut self) {
        let Rest::Undecided(part) = &self.rest else { return };
        let mut rest = part.clone();
        // A chunk may extend beyond it.
        self.beginning = self.beginning.max(self.passed);
        rest.split(self.beginning);
        let together = self.passed as f64 * self.target.inner.downloads.load(Ordering::Relaxed).max(1) as f64;
        let slow = together < self.waited.as_secs_f64() * self.options.slow as f64;
        if !slow || rest.is_empty() {
            self.rest = Rest::SameAnswer;
            return;
        }
        let mut ahead = RangeQueue { rest, size: self.options.part.max(1), fetching: VecDeque::new() };
        for _ in 0..self.options.ahead {
            ahead.fetch();
        }
        self.rest = Rest::Ranges(ahead);
    }
}

/// The concurrent ranges.
struct RangeQueue {
    /// The bytes that are not requested yet.
    rest: Part,
    size: u64,
    fetching: VecDeque<FetchingRange>,
}

impl RangeQueue {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(chunk) = self.fetching.front_mut()?.chunks.recv().await {
                return Some(chunk);
            }
            self.fetching.pop_front();
            self.fetch();
        }
    }

    /// Requests the next range, if there is one.
    fn fetch(&mut self) {
        let Some(mut part) = self.rest.split(self.size) else { return };
        // Unbounded is safe: the range limits the number of bytes.
        let (sender, chunks) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
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
        self.fetching.push_back(FetchingRange { chunks, _task: task });
    }
}

/// A range that is being downloaded.
struct FetchingRange {
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    /// Aborted when dropped.
    _task: JoinSet<()>,
}
