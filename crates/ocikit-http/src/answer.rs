use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use crate::address::Zone;
use crate::request_error::{RequestError, classify};
use crate::timeouts::TimeLimit;

/// Every this many bytes, a small document gets one second more.
const DOCUMENT_BYTES_PER_SECOND: usize = 64 << 10;

/// Bodies up to this size are read to the end to reuse the connection, which is cheaper than opening a new one.
const MAX_DRAINED_BYTES: u64 = 64 << 10;

/// An answer whose body has not been read yet.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The zone of the server; `None` behind a proxy.
    pub zone: Option<Zone>,
    pub(crate) response: reqwest::Response,
    pub(crate) silence: Duration,
    pub(crate) document: Duration,
    /// When the request was sent; for a streamed body, when the response began.
    pub(crate) begun: Instant,
}

impl Answer {
    /// Returns a header; `None` if it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the length of the body as the server states it.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Returns the body as a stream with a limit on its total time.
    ///
    /// # Errors
    ///
    /// [`RequestError::Slow`] for a small document that is not complete within [`Timeouts::document`](crate::Timeouts::document), however much it moves.
    pub fn chunks_within(self, limit: TimeLimit) -> BoxStream<'static, Result<Bytes, RequestError>> {
        let (begun, document) = (self.begun, self.document);
        let chunks = self.chunks().boxed();
        if limit == TimeLimit::None {
            return chunks;
        }
        let limited = stream::try_unfold((chunks, 0), move |(mut chunks, received)| async move {
            let allowed = document + Duration::from_secs((received / DOCUMENT_BYTES_PER_SECOND) as u64);
            let chunk = tokio::time::timeout_at(begun + allowed, chunks.next()).await;
            let chunk = chunk.map_err(|_| RequestError::Slow(allowed))?.transpose()?;
            Ok(chunk.map(|chunk| {
                let received = received + chunk.len();
                (chunk, (chunks, received))
            }))
        });
        limited.boxed()
    }

    /// Returns the body as a stream.
    fn chunks(self) -> impl Stream<Item = Result<Bytes, RequestError>> + Send + 'static {
        stream::try_unfold((self.response, self.silence), |(mut response, silence)| async move {
            let chunk = tokio::time::timeout(silence, response.chunk()).await;
            let chunk = chunk.map_err(|_| RequestError::Silent(silence))?.map_err(classify)?;
            Ok(chunk.map(|chunk| (chunk, (response, silence))))
        })
    }

    /// Reads and discards a short body, so that the connection can be reused.
    pub async fn drain(self) {
        if self.length().is_some_and(|length| length <= MAX_DRAINED_BYTES) {
            let _ = self.read(MAX_DRAINED_BYTES).await;
        }
    }

    /// Returns the body of a small document.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLong`] if it has more than this many bytes, [`RequestError::Slow`] if it is not complete
    /// within [`Timeouts::document`](crate::Timeouts::document).
    pub async fn read(self, max_bytes: u64) -> Result<Bytes, RequestError> {
        if self.length().is_some_and(|length| length > max_bytes) {
            return Err(RequestError::TooLong(max_bytes));
        }
        let mut chunks = self.chunks_within(TimeLimit::Document);
        let mut all = BytesMut::new();
        loop {
            let Some(chunk) = chunks.next().await.transpose()? else { return Ok(all.freeze()) };
            if (all.len() + chunk.len()) as u64 > max_bytes {
                return Err(RequestError::TooLong(max_bytes));
            }
            all.extend_from_slice(&chunk);
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}
