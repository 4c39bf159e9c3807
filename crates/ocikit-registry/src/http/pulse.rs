use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use ocikit_image::{Body, Error, Result, bridge};

use super::fault::Fault;
use super::transport::{Timeouts, lock};

/// How many times longer than anybody else a source may be silent.
const STARVING: u32 = 10;

/// Watches a body on its way out.
pub(super) struct Pulse(Option<Arc<Beat>>);

#[derive(Default)]
struct Beat {
    chunks: AtomicU64,
    ended: AtomicBool,
    /// Whether more is wanted than the source has yet.
    starving: AtomicBool,
    /// How long the server may think afterwards.
    thinking: Duration,
    problem: Mutex<Option<Error>>,
}

impl Pulse {
    pub(super) fn none() -> Pulse {
        Pulse(None)
    }

    /// Returns whether there is a body to watch.
    pub(super) fn is_streamed(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn of(body: Body, answer: Duration) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, Pulse) {
        let length = body.length();
        let thinking = answer + Duration::from_secs(length >> 24);
        let beat = Arc::new(Beat { thinking, ..Beat::default() });
        let watching = beat.clone();
        let (mut body, source) = (body, beat.clone());
        let body = stream::poll_fn(move |context| {
            let polled = body.poll_next_unpin(context);
            source.starving.store(polled.is_pending(), Ordering::Relaxed);
            polled
        });
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
        let mut rounds = 0;
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
            match &self.0 {
                Some(beat) if beat.chunks.load(Ordering::Relaxed) != before => rounds = 0,
                // That nothing comes is not the server's fault: the source may be waiting where it was asked to.
                Some(beat) if beat.starving.load(Ordering::Relaxed) && rounds < STARVING => rounds += 1,
                _ => return Err(Fault::Silent(limit * (rounds + 1))),
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

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: &[u8] = b"piece";

    /// A body whose second chunk is this long in coming.
    fn body(pause: Duration) -> Body {
        let chunks = stream::iter([Duration::ZERO, pause]).then(|pause| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from_static(PIECE))
        });
        Body::new(2 * PIECE.len() as u64, chunks)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_source_is_not_silent() {
        let timeouts = Timeouts::default();
        // As long as a registry that we read from may ask us to wait, and longer than anybody does.
        for (pause, ends_well) in [(3 * timeouts.silence, true), (20 * timeouts.silence, false)] {
            let (sent, pulse) = Pulse::of(body(pause), timeouts.answer);
            let outcome = pulse.watch(sent.count(), &timeouts).await;
            assert_eq!(outcome.is_ok(), ends_well, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_what_is_there_is() {
        let timeouts = Timeouts::default();
        let (sent, pulse) = Pulse::of(body(Duration::ZERO), timeouts.answer);
        let mut sent = std::pin::pin!(sent);
        let stuck = async {
            sent.next().await;
            std::future::pending::<()>().await;
        };
        assert!(matches!(pulse.watch(stuck, &timeouts).await, Err(Fault::Silent(time)) if time == timeouts.silence));
    }
}
