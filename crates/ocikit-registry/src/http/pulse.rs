use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use ocikit_image::{Body, Error, Result, bridge};

use super::fault::Fault;
use super::transport::{Timeouts, lock};

/// Watches a body on its way out.
pub(super) struct Pulse(Option<Arc<Beat>>);

#[derive(Default)]
struct Beat {
    chunks: AtomicU64,
    ended: AtomicBool,
    /// How long the server may think afterwards.
    thinking: Duration,
    problem: Mutex<Option<Error>>,
}

impl Pulse {
    pub(super) fn none() -> Pulse {
        Pulse(None)
    }

    pub(super) fn of(body: Body, answer: Duration) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, Pulse) {
        let length = body.length();
        let thinking = answer + Duration::from_secs(length >> 24);
        let beat = Arc::new(Beat { thinking, ..Beat::default() });
        let watching = beat.clone();
        // A chunk counts as moving when it is taken, so that none may be large.
        let pieces = body.flat_map(|chunk| stream::iter(Pieces(Some(chunk))));
        let mut sent = 0;
        let body = pieces.map(move |piece| {
            watching.chunks.fetch_add(1, Ordering::Relaxed);
            match piece {
                Ok(piece) => {
                    sent += piece.len() as u64;
                    watching.ended.store(sent >= length, Ordering::Relaxed);
                    Ok(piece)
                }
                Err(error) => {
                    *lock(&watching.problem) = Some(error);
                    Err(io::Error::other("the source failed"))
                }
            }
        });
        (body, Pulse(Some(beat)))
    }

    /// Why the body could not be read, if that is what happened.
    pub(super) fn problem(&self) -> Option<Error> {
        self.0.as_ref().and_then(|beat| lock(&beat.problem).take())
    }

    /// Waits for an answer as long as something moves.
    pub(super) async fn watch<T>(&self, answer: impl Future<Output = T>, timeouts: &Timeouts) -> Result<T, Fault> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let (limit, before) = match &self.0 {
                None => (timeouts.answer, 0),
                Some(beat) => {
                    let ended = beat.ended.load(Ordering::Relaxed);
                    let limit = if ended { beat.thinking } else { timeouts.silence };
                    (limit, beat.chunks.load(Ordering::Relaxed))
                }
            };
            if let Ok(answer) = tokio::time::timeout(limit, answer.as_mut()).await {
                return Ok(answer);
            }
            if self.0.as_ref().is_none_or(|beat| beat.chunks.load(Ordering::Relaxed) == before) {
                return Err(Fault::Silent(limit));
            }
        }
    }
}

/// A chunk in pieces of at most [`bridge::CHUNK`] bytes, none of them copied.
struct Pieces(Option<Result<Bytes>>);

impl Iterator for Pieces {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        match &mut self.0 {
            Some(Ok(chunk)) if chunk.len() > bridge::CHUNK => Some(Ok(chunk.split_to(bridge::CHUNK))),
            _ => self.0.take(),
        }
    }
}
