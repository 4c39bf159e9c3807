//! A large blob in several ranges at the same time, handed on in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{BoxStream, Fuse};
use futures::{StreamExt, stream};
use ocikit_image::{Body, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use super::part::{Opened, Part};

/// When and how a blob is downloaded in several ranges at the same time.
///
/// It helps where one connection does not fill the line, and costs where it does. So a large blob begins with a range
/// of twice the size of a part, and how fast that comes decides about the rest.
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
    /// Below how many bytes in a second one connection is slow.
    pub slow: u64,
}

impl Default for ParallelOptions {
    /// From 32 MiB on, in ranges of 4 MiB, three ahead, below 100 MiB in a second.
    fn default() -> ParallelOptions {
        ParallelOptions { threshold: 32 << 20, part: 4 << 20, ahead: 3, slow: 100 << 20 }
    }
}

/// A part of a blob by its first range, which tells whether the registry knows ranges and whether the line is slow,
/// and then the others.
pub(super) async fn open(part: Part, options: &ParallelOptions, permit: OwnedSemaphorePermit) -> Result<Body> {
    let mut rest = part.clone();
    let first_length = options.part.max(1).saturating_mul(2);
    let Some(first) = rest.split(first_length) else { return Ok(Bytes::new().into()) };
    let asked = Instant::now();
    let opened = first.open().await?;
    let length = part.length(&opened);
    if !opened.ranged {
        // Everything is on its way already.
        return Ok(Body::new(length, part.stream(opened)));
    }
    let download = Download {
        first: first.stream(opened).boxed().fuse(),
        passed: 0,
        waited: asked.elapsed(),
        decide_at: first_length / 4 * 3,
        rest: Rest::Undecided(rest),
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
    first: Fuse<BoxStream<'static, Result<Bytes>>>,
    passed: u64,
    /// How long the line made us wait, which is not how long it took: who reads may be slow too.
    waited: Duration,
    decide_at: u64,
    rest: Rest,
    options: ParallelOptions,
    _permit: OwnedSemaphorePermit,
}

/// What comes behind the first range.
enum Rest {
    Undecided(Part),
    /// One request for everything, its answer on the way.
    Asked(Part, OnItsWay),
    Whole(BoxStream<'static, Result<Bytes>>),
    Parts(Ahead),
}

impl Download {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let asked = Instant::now();
        if let Some(chunk) = self.first.next().await {
            self.waited += asked.elapsed();
            self.passed += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            if self.passed >= self.decide_at {
                self.decide();
            }
            return Some(chunk);
        }
        self.decide();
        if let Rest::Asked(part, answer) = &mut self.rest {
            match answer.opened().await {
                Ok(opened) => self.rest = Rest::Whole(part.clone().stream(opened).boxed()),
                Err(error) => return Some(Err(error)),
            }
        }
        match &mut self.rest {
            Rest::Whole(chunks) => chunks.next().await,
            Rest::Parts(ahead) => ahead.next().await,
            Rest::Undecided(_) | Rest::Asked(..) => None,
        }
    }

    /// Asks for the rest, some time before the first range ends.
    fn decide(&mut self) {
        let Rest::Undecided(rest) = &self.rest else { return };
        let rest = rest.clone();
        let slow = (self.passed as f64) < self.waited.as_secs_f64() * self.options.slow as f64;
        if slow {
            let mut ahead = Ahead { rest, size: self.options.part.max(1), fetching: VecDeque::new() };
            for _ in 0..self.options.ahead {
                ahead.fetch();
            }
            self.rest = Rest::Parts(ahead);
        } else if !rest.is_empty() {
            let asking = rest.clone();
            let answer = OnItsWay(tokio::spawn(async move { asking.open().await }));
            self.rest = Rest::Asked(rest, answer);
        }
    }
}

/// An answer to a request that was made ahead.
struct OnItsWay(JoinHandle<Result<Opened>>);

impl OnItsWay {
    async fn opened(&mut self) -> Result<Opened> {
        let stopped = |_| Error::failed("finish", "a request", std::io::Error::other("the runtime is shutting down"));
        (&mut self.0).await.map_err(stopped)?
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.abort();
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
