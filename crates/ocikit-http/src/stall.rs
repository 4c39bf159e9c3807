use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::body::StreamBody;
use crate::lock::lock;
use crate::request_error::{BoxError, RequestError};
use crate::timeouts::Timeouts;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

/// Maximum size of a piece that counts as progress when the connection takes it, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Multiple of [`Timeouts::silence`] for which the source of an upload may stall.
const STARVED_SOURCE_FACTOR: u32 = 10;

/// Detects that an upload makes no progress.
pub(super) struct StallWatch(Option<Arc<StallState>>);

#[derive(Default)]
struct StallState {
    chunks: AtomicU64,
    ended: AtomicBool,
    /// Whether the connection wants more bytes than the source has.
    waits_for_source: AtomicBool,
    /// How long the server may take to answer after the last byte.
    answer_timeout: Duration,
    problem: Mutex<Option<BoxError>>,
}

impl StallWatch {
    pub(super) fn none() -> StallWatch {
        StallWatch(None)
    }

    /// Returns whether there is a body to watch.
    pub(super) fn is_streamed(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn of(
        body: StreamBody,
        answer: Duration,
    ) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, StallWatch) {
        let StreamBody { length, chunks: mut body } = body;
        let answer_timeout = answer + Duration::from_secs(length >> 24);
        let state = Arc::new(StallState { answer_timeout, ..StallState::default() });
        let watching = state.clone();
        let source = state.clone();
        let body = stream::poll_fn(move |context| {
            let polled = body.poll_next_unpin(context);
            source.waits_for_source.store(polled.is_pending(), Ordering::Relaxed);
            polled
        });
        // A chunk counts as progress when the connection takes it, so chunks are split into small pieces.
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
        (body, StallWatch(Some(state)))
    }

    /// Returns the error of the source, if reading the body failed.
    pub(super) fn problem(&self) -> Option<BoxError> {
        self.0.as_ref().and_then(|state| lock(&state.problem).take())
    }

    /// Waits for an answer as long as the upload makes progress.
    pub(super) async fn watch<T>(
        &self,
        answer: impl Future<Output = T>,
        timeouts: &Timeouts,
    ) -> Result<T, RequestError> {
        let mut answer = std::pin::pin!(answer);
        let mut rounds = 0;
        loop {
            let (limit, before) = match &self.0 {
                None => (timeouts.answer, 0),
                Some(state) => {
                    let ended = state.ended.load(Ordering::Relaxed);
                    let limit = if ended { state.answer_timeout } else { timeouts.silence };
                    (limit, state.chunks.load(Ordering::Relaxed))
                }
            };
            if let Ok(answer) = tokio::time::timeout(limit, answer.as_mut()).await {
                return Ok(answer);
            }
            match &self.0 {
                Some(state) if state.chunks.load(Ordering::Relaxed) != before => rounds = 0,
                // The source stalls, not the server: a registry that the blob is downloaded from may have sent
                // `Retry-After`.
                Some(state) if state.waits_for_source.load(Ordering::Relaxed) && rounds < STARVED_SOURCE_FACTOR => {
                    rounds += 1;
                }
                _ => return Err(RequestError::Silent(limit * (rounds + 1))),
            }
        }
    }
}

/// Splits a chunk into pieces of at most [`PIECE_BYTES`] bytes, without copying.
struct Pieces(Option<Result<Bytes, BoxError>>);

impl Iterator for Pieces {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Some(Ok(chunk)) if chunk.len() > PIECE_BYTES => Some(Ok(chunk.split_to(PIECE_BYTES))),
            _ => self.0.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: &[u8] = b"piece";

    /// Returns a body of two chunks, the second of which is delayed.
    fn body(pause: Duration) -> StreamBody {
        let chunks = stream::iter([Duration::ZERO, pause]).then(|pause| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from_static(PIECE))
        });
        StreamBody { length: 2 * PIECE.len() as u64, chunks: chunks.boxed() }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_source_is_not_a_stall() {
        let timeouts = Timeouts::default();
        // A registry that is read from may request a delay, though not one longer than any allowed.
        for (pause, ends_well) in [(3 * timeouts.silence, true), (20 * timeouts.silence, false)] {
            let (sent, stall_watch) = StallWatch::of(body(pause), timeouts.answer);
            let outcome = stall_watch.watch(sent.count(), &timeouts).await;
            assert_eq!(outcome.is_ok(), ends_well, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_takes_no_bytes_is_a_stall() {
        let timeouts = Timeouts::default();
        let (sent, stall_watch) = StallWatch::of(body(Duration::ZERO), timeouts.answer);
        let mut sent = std::pin::pin!(sent);
        let stuck = async {
            sent.next().await;
            std::future::pending::<()>().await;
        };
        assert!(
            matches!(stall_watch.watch(stuck, &timeouts).await, Err(RequestError::Silent(time)) if time == timeouts.silence)
        );
    }
}
