use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt, stream};
use ocikit_http::{Lane, Method, RequestError, TimeLimit};
use ocikit_image::{Error, Result};
use ocikit_spec::Digest;

use crate::blobs::MIN_BULK_BYTES;
use crate::target::Target;
use crate::{problem, range};

/// The bytes of a blob that remain to be downloaded.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) target: Arc<Target>,
    /// Other locations, for when `target` fails for good.
    pub(super) others: VecDeque<Arc<Target>>,
    pub(super) digest: Digest,
    /// Whether this is the complete blob and nothing was received yet, so that no `Range` header is needed.
    pub(super) whole: bool,
    pub(super) position: u64,
    pub(super) end: u64,
    /// The limit on the total time of each response.
    pub(super) limit: TimeLimit,
}

/// An answer whose body has not been read yet.
pub(super) struct Opened {
    /// Whether the answer contains the requested range, and not the whole blob.
    pub(super) ranged: bool,
    /// Whether the registry states that it supports ranges.
    pub(super) ranges: bool,
    /// The size of the blob, as the registry states it.
    pub(super) total: Option<u64>,
    chunks: Chunks,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, RequestError>> + Send>>;

impl Part {
    /// Requests the remaining bytes.
    pub(super) async fn open(&self) -> Result<Opened> {
        let Part { target, digest, .. } = self;
        let wanted = self.end - self.position;
        let mut request = target.request(Method::GET, target.blob(digest));
        if !self.whole {
            request = request.header("range", &range::request(self.position, wanted));
        }
        request.limit = self.limit;
        request.lane = if wanted >= MIN_BULK_BYTES { Lane::Bulk } else { Lane::Small };
        let reply = target.call(&target.access(), request).await?;
        match reply.answer.status {
            206 if !self.whole => {
                let header = reply.answer.header("content-range").unwrap_or_default();
                if range::answered(header).is_some_and(|starts| starts != self.position) {
                    let problem = format!("it sent another range of {digest} than requested");
                    return Err(Error::protocol(&target.place, problem));
                }
                let total = range::total(header);
                Ok(Opened { ranged: true, ranges: true, total, chunks: reply.answer.chunks_within(self.limit) })
            }
            200 => {
                let ranges = self.whole && reply.answer.header("accept-ranges") == Some("bytes");
                let total = reply.answer.length();
                Ok(Opened { ranged: false, ranges, total, chunks: reply.answer.chunks_within(self.limit) })
            }
            // The blob ends before the range starts.
            416 => Ok(Opened { ranged: true, ranges: false, total: None, chunks: stream::empty().boxed() }),
            _ => Err(target.error(reply, &digest.to_string()).await),
        }
    }

    /// Requests the remaining bytes from this location or, if it fails, from the others.
    pub(super) async fn open_anywhere(&mut self) -> Result<Opened> {
        loop {
            match self.open().await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    if !self.switch_location() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Switches to the next location. Returns whether there is one.
    fn switch_location(&mut self) -> bool {
        let next = self.others.pop_front();
        let is_there = next.is_some();
        self.target = next.unwrap_or_else(|| self.target.clone());
        is_there
    }

    /// Returns the number of bytes to expect. It differs from the requested number only for a complete blob, where the
    /// registry's statement counts.
    pub(super) fn length(&self, opened: &Opened) -> u64 {
        let wanted = self.end - self.position;
        opened.total.filter(|_| self.whole).unwrap_or(wanted)
    }

    /// Returns the bytes of an answer and, if it breaks off, of the answers to further requests.
    pub(super) fn stream(self, opened: Opened) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let (ranged, chunks) = (opened.ranged, self.wanted(opened));
        let state = Resumed { part: self, chunks: Some(chunks), ranged, fresh: true, failures: 0 };
        stream::try_unfold(state, |mut state| async { Ok(state.next().await.transpose()?.map(|chunk| (chunk, state))) })
    }

    /// Returns the requested bytes of an answer.
    fn wanted(&self, opened: Opened) -> Chunks {
        match (self.whole, opened.ranged) {
            (true, _) => opened.chunks,
            (false, true) => cut_out(opened.chunks, 0, self.end - self.position),
            // A registry that does not support ranges sends the whole blob.
            (false, false) => cut_out(opened.chunks, self.position, self.end - self.position),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.position >= self.end
    }

    /// Splits off the first `length` bytes as a part of their own.
    pub(super) fn split(&mut self, length: u64) -> Option<Part> {
        let end = self.position.saturating_add(length).min(self.end);
        let first = Part { whole: false, end, ..self.clone() };
        self.position = end;
        self.whole = false;
        (first.position < end).then_some(first)
    }
}

/// A download that is resumed after it breaks off.
struct Resumed {
    part: Part,
    /// `None` between two requests.
    chunks: Option<Chunks>,
    /// Whether the answer contains a range, which may be shorter than requested.
    ranged: bool,
    /// Whether no byte of the current answer has been received.
    fresh: bool,
    /// Number of failures since the last received byte.
    failures: u32,
}

impl Resumed {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            let fault = match &mut self.chunks {
                None => match self.part.open_anywhere().await {
                    Ok(opened) => {
                        (self.ranged, self.fresh) = (opened.ranged, true);
                        self.chunks = Some(self.part.wanted(opened));
                        continue;
                    }
                    Err(error) => return Some(Err(error)),
                },
                Some(chunks) => match chunks.next().await {
                    Some(Ok(chunk)) => {
                        self.part.position += chunk.len() as u64;
                        self.part.whole = false;
                        self.fresh = false;
                        // Otherwise a server that sends one byte per response would never end.
                        if self.part.limit == TimeLimit::None {
                            self.failures = 0;
                        }
                        return Some(Ok(chunk));
                    }
                    // RFC 9110, section 15.3.7: an answer may contain only a part of the range.
                    None if self.ranged && !self.fresh && !self.part.is_empty() => {
                        self.chunks = None;
                        continue;
                    }
                    // The registry considers the body complete. The verification of the digest detects a body that is
                    // too short.
                    None => return None,
                    Some(Err(fault)) => fault,
                },
            };
            if self.part.position >= self.part.end {
                return None;
            }
            self.failures += 1;
            self.chunks = None;
            let http = &self.part.target.inner.http;
            let is_slow = matches!(fault, RequestError::Slow(_));
            let url = self.part.target.blob(&self.part.digest);
            if is_slow || !http.back_off(&Method::GET, &url, self.failures, None).await {
                let place = self.part.target.clone();
                if self.part.switch_location() {
                    self.failures = 0;
                    continue;
                }
                return Some(Err(problem::unreachable(fault, &place.place)));
            }
        }
    }
}

/// Skips the first bytes of a stream, and ends it after `take` more.
fn cut_out(chunks: Chunks, skip: u64, take: u64) -> Chunks {
    let state = (chunks, skip, take);
    Box::pin(stream::unfold(state, |(mut chunks, mut skip, mut left)| async move {
        while left > 0 {
            let mut chunk = match chunks.next().await? {
                Ok(chunk) => chunk,
                Err(fault) => return Some((Err(fault), (chunks, skip, left))),
            };
            let passed = skip.min(chunk.len() as u64);
            chunk.advance(passed as usize);
            skip -= passed;
            chunk.truncate(left.min(chunk.len() as u64) as usize);
            left -= chunk.len() as u64;
            if !chunk.is_empty() {
                return Some((Ok(chunk), (chunks, skip, left)));
            }
        }
        None
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn cut_out_returns_the_requested_range(lengths in proptest::collection::vec(0usize..5, 0..8), skip in 0u64..20, take in 0u64..20) {
            let all: Vec<u8> = (0..lengths.iter().sum::<usize>() as u8).collect();
            let mut rest = Bytes::from(all.clone());
            let chunks: Vec<_> = lengths.iter().map(|length| Ok(rest.split_to(*length))).collect();
            let found = cut_out(stream::iter(chunks).boxed(), skip, take).map(|chunk| chunk.unwrap().to_vec());
            let found = futures::FutureExt::now_or_never(found.concat()).unwrap();
            let expected: Vec<_> = all.into_iter().skip(skip as usize).take(take as usize).collect();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
