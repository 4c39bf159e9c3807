//! Handles the unread rest of a request body.
//!
//! A client whose request is refused may still be sending. If the server closed the connection, the client might not
//! see the response. So the rest is read and discarded, within limits, while the response is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::time::timeout;

/// Limits on the discarded bytes and the time for it, after which the connection is closed.
const MAX_DRAINED_BYTES: u64 = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Receives the rest of a body when its reader is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<Body>>>);

impl Leftover {
    /// Returns the rest of the body, if there is any.
    pub(crate) fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Lends a body to a reader, and returns where its rest will be.
pub(crate) fn lend(body: Body) -> (Body, Leftover) {
    let leftover = Leftover::default();
    if body.is_end_stream() {
        return (body, leftover);
    }
    (Body::new(Lent { body: Some(body), leftover: leftover.clone() }), leftover)
}

struct Lent {
    /// `None` once it has ended.
    body: Option<Body>,
    leftover: Leftover,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.leftover.0.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

/// Reads and discards the rest of a body.
pub(crate) async fn drain(body: Body) {
    let mut body = body.into_data_stream();
    let read = async {
        let mut read = 0;
        while let Some(Ok(bytes)) = body.next().await {
            read += bytes.len() as u64;
            if read > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    // A timeout is handled like a body that is too long.
    let _ = timeout(DRAIN_TIMEOUT, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        Body::from_stream(futures::stream::iter(["ab", "cd"].map(Ok::<_, std::io::Error>)))
    }

    async fn rest(leftover: Leftover) -> Option<Bytes> {
        Some(axum::body::to_bytes(leftover.take()?, 100).await.unwrap())
    }

    #[tokio::test]
    async fn unread_rest_is_returned() {
        let (lent, leftover) = lend(body());
        assert!(leftover.take().is_none(), "it is still lent");
        let mut lent = lent.into_data_stream();
        assert_eq!(lent.next().await.unwrap().unwrap(), "ab");
        drop(lent);
        assert_eq!(rest(leftover).await.unwrap(), "cd");

        let (lent, leftover) = lend(body());
        assert_eq!(axum::body::to_bytes(lent, 100).await.unwrap(), "abcd");
        assert_eq!(rest(leftover).await, None);
        assert!(lend(Body::empty()).1.take().is_none());
    }
}
