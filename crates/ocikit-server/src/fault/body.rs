//! Bodies with faults.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::stream::{self, Fuse, StreamExt, TryStreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("a fault cut the connection")]
pub(crate) struct Cut;

/// Number of pieces per second of a slow body.
const PIECES_PER_SECOND: u64 = 20;

/// What happens after the last byte.
pub(super) enum End {
    /// The connection is cut when all written bytes have been sent.
    Cut(Arc<Notify>),
    /// The handler sees the body end, and the flag suppresses the response.
    CutRequest(Arc<AtomicBool>),
    /// Nothing happens until shutdown.
    Stall(CancellationToken, Option<Arc<AtomicBool>>),
}

struct Broken {
    body: BodyDataStream,
    left: u64,
    end: End,
}

/// Returns a body that breaks off after this many bytes.
pub(super) fn broken(body: Body, after: u64, end: End) -> Body {
    let state = Broken { body: body.into_data_stream(), left: after, end };
    Body::from_stream(stream::unfold(Some(state), async |state| {
        let mut state = state?;
        if state.left == 0 {
            return Some((Err(state.end.reach().await), None));
        }
        match state.body.next().await? {
            Err(error) => Some((Err(io::Error::other(error)), None)),
            Ok(bytes) => {
                let length = state.left.min(bytes.len() as u64);
                state.left -= length;
                Some((Ok(bytes.slice(..length as usize)), Some(state)))
            }
        }
    }))
}

impl End {
    async fn reach(&self) -> io::Error {
        match self {
            End::Cut(flushed) => flushed.notified().await,
            End::CutRequest(cut) => cut.store(true, Ordering::SeqCst),
            End::Stall(closing, cut) => {
                closing.cancelled().await;
                if let Some(cut) = cut {
                    cut.store(true, Ordering::SeqCst);
                }
            }
        }
        io::Error::other(Cut)
    }
}

/// Returns a body with one changed byte.
pub(super) fn corrupt(body: Body, offset: u64) -> Body {
    // Each chunk is held back until the next one arrives, since the offset may be beyond the end and then means the
    // last byte.
    struct Corrupt {
        body: Fuse<BodyDataStream>,
        held: Option<Bytes>,
        /// The distance from here to the offset.
        within: u64,
        done: bool,
    }
    let state = Corrupt { body: body.into_data_stream().fuse(), held: None, within: offset, done: false };
    Body::from_stream(stream::unfold(state, async |mut state| {
        loop {
            let next = match state.body.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Err(error)) => return Some((Err(error), state)),
                Some(Ok(bytes)) => Some(bytes),
                None => None,
            };
            let is_last = next.is_none();
            let Some(current) = std::mem::replace(&mut state.held, next) else {
                if is_last {
                    return None;
                }
                continue;
            };
            if state.done || (state.within >= current.len() as u64 && !is_last) {
                state.within = state.within.saturating_sub(current.len() as u64);
                return Some((Ok(current), state));
            }
            state.done = true;
            let mut wrong = current.to_vec();
            let at = (state.within as usize).min(wrong.len() - 1);
            wrong[at] ^= 0x20;
            return Some((Ok(Bytes::from(wrong)), state));
        }
    }))
}

/// Returns a body that is sent slowly.
pub(super) fn slow(body: Body, bytes_per_second: u64) -> Body {
    let state = (body.into_data_stream(), Bytes::new(), pace(bytes_per_second));
    Body::from_stream(stream::unfold(state, async |(mut body, mut rest, (piece_bytes, pause))| {
        while rest.is_empty() {
            match body.next().await? {
                Ok(bytes) => rest = bytes,
                Err(error) => return Some((Err(error), (body, rest, (piece_bytes, pause)))),
            }
        }
        tokio::time::sleep(pause).await;
        let drop = rest.split_to(piece_bytes.min(rest.len()));
        Some((Ok(drop), (body, rest, (piece_bytes, pause))))
    }))
}

/// Returns the size of a piece in bytes and the pause between pieces.
fn pace(bytes_per_second: u64) -> (usize, Duration) {
    let rate = bytes_per_second.max(1);
    let piece_bytes = (rate / PIECES_PER_SECOND).max(1);
    (
        usize::try_from(piece_bytes).unwrap_or(usize::MAX),
        Duration::from_nanos(piece_bytes.saturating_mul(1_000_000_000) / rate),
    )
}

/// Returns the body without a known length; the connection is cut after it.
pub(super) fn of_unknown_length(body: Body, flushed: Arc<Notify>) -> Body {
    let cut = async move { Err(End::Cut(flushed).reach().await) };
    Body::from_stream(body.into_data_stream().map_err(io::Error::other).chain(stream::once(cut)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: &[&'static str]) -> Body {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok::<_, io::Error>(Bytes::from_static(chunk.as_bytes()))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    /// Returns the received text, and whether the body broke off.
    async fn collect(body: Body) -> (String, bool) {
        let mut stream = body.into_data_stream();
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Err(_) => return (text, true),
            }
        }
        (text, false)
    }

    #[tokio::test]
    async fn body_breaks_off_at_the_requested_point() {
        for (after, expected) in
            [(0, ("", true)), (1, ("a", true)), (4, ("abcd", true)), (6, ("abcdef", true)), (7, ("abcdef", false))]
        {
            let flag = Arc::new(AtomicBool::new(false));
            let (text, broke) = collect(broken(body(&["abc", "def"]), after, End::CutRequest(flag.clone()))).await;
            assert_eq!((text.as_str(), broke), expected, "{after}");
            assert_eq!(flag.load(Ordering::SeqCst), broke);
        }
    }

    #[tokio::test]
    async fn stall_ends_at_shutdown() {
        let closing = CancellationToken::new();
        let mut stream = broken(body(&["abc"]), 2, End::Stall(closing.clone(), None)).into_data_stream();
        assert_eq!(stream.next().await.unwrap().unwrap(), "ab");
        assert!(futures::poll!(stream.next()).is_pending());
        closing.cancel();
        assert!(stream.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn one_byte_is_changed() {
        for (offset, expected) in [(0, "AbcdeF"), (2, "abCdeF"), (4, "abcdEF"), (5, "abcdef"), (99, "abcdef")] {
            let (text, broke) = collect(corrupt(body(&["ab", "", "cd", "eF"]), offset)).await;
            assert_eq!((text.as_str(), broke), (expected, false), "{offset}");
        }
        assert_eq!(collect(corrupt(body(&[]), 0)).await, (String::new(), false));
    }

    #[tokio::test]
    async fn slow_body_arrives_completely() {
        assert_eq!(collect(slow(body(&["abc", "def"]), 1_000_000)).await, ("abcdef".to_owned(), false));
    }

    #[test]
    fn pace_matches_the_rate() {
        for (rate, piece_bytes, pause) in [(0, 1, 1000), (1, 1, 1000), (10, 1, 100), (20, 1, 50), (2000, 100, 50)] {
            assert_eq!(pace(rate), (piece_bytes, Duration::from_millis(pause)), "{rate}");
        }
    }
}
