use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt, stream};
use ocikit_image::{Body, ByteRange, Error, Result};
use ocikit_spec::{Descriptor, Digest};
use reqwest::Method;

use crate::auth::Access;
use crate::client::Inner;
use crate::http::send::{Reply, Request};
use crate::http::transport::{Fault, Lane};
use crate::http::{problem, range};
use crate::target::Target;

/// From how many bytes on a blob has a connection to itself.
pub(crate) const BULK: u64 = 4 << 20;

/// Whether a blob is there.
pub(crate) async fn exists(inner: &Inner, target: &Target, access: &Access, digest: &Digest) -> Result<bool> {
    let request = Request::new(Method::HEAD, target.blob(digest));
    let reply = inner.call(&target.endpoint, access, request, &target.place).await?;
    match reply.answer.status {
        200..300 => Ok(true),
        404 => Ok(false),
        _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
    }
}

/// Removes a blob.
pub(crate) async fn delete(inner: &Inner, target: &Target, digest: &Digest) -> Result<()> {
    let request = Request::new(Method::DELETE, target.blob(digest));
    let reply = inner.call(&target.endpoint, &target.access_to_delete(), request, &target.place).await?;
    match reply.answer.status {
        200..300 => Ok(()),
        _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
    }
}

/// The bytes of a blob from a range on, asked for again from where they broke off as often as it takes.
pub(crate) async fn open(
    inner: &Arc<Inner>,
    target: &Arc<Target>,
    descriptor: &Descriptor,
    range: ByteRange,
) -> Result<Body> {
    let (offset, length) = range.within(descriptor.size);
    if length == 0 && descriptor.size > 0 {
        return Ok(Bytes::new().into());
    }
    let part = Part {
        inner: inner.clone(),
        target: target.clone(),
        digest: descriptor.digest,
        whole: offset == 0 && length == descriptor.size,
        position: offset,
        end: offset + length,
    };
    let opened = part.open().await?;
    Ok(Body::new(opened.length, part.resumed(opened.chunks)))
}

/// A part of a blob that is still to come.
#[derive(Debug, Clone)]
struct Part {
    inner: Arc<Inner>,
    target: Arc<Target>,
    digest: Digest,
    /// Whether nothing has come and everything is wanted: then a range need not be asked for.
    whole: bool,
    position: u64,
    end: u64,
}

struct Opened {
    length: u64,
    chunks: Chunks,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

impl Part {
    /// Asks for what is still to come.
    async fn open(&self) -> Result<Opened> {
        let Part { inner, target, digest, .. } = self;
        let wanted = self.end - self.position;
        let mut request = Request::new(Method::GET, target.blob(digest));
        if !self.whole {
            request = request.header("range", &range::request(self.position, wanted));
        }
        request.lane = if wanted >= BULK { Lane::Bulk } else { Lane::Small };
        let reply = inner.call(&target.endpoint, &target.access(), request, &target.place).await?;
        let Reply { answer, .. } = &reply;
        match answer.status {
            206 if !self.whole => {
                let starts = answer.header("content-range").and_then(range::answered);
                if starts.is_some_and(|starts| starts != self.position) {
                    let place = format!("{digest} in {}", target.place);
                    return Err(Error::broken(place, "the registry sends another range than it was asked for"));
                }
                Ok(Opened { length: wanted, chunks: Box::pin(reply.answer.chunks()) })
            }
            200 => {
                // A registry that knows no ranges sends everything, so the beginning is passed over.
                let length = answer.length().map_or(wanted, |length| length.saturating_sub(self.position));
                let length = if self.whole { length } else { length.min(wanted) };
                let chunks = passing(reply.answer.chunks().boxed(), self.position, (!self.whole).then_some(wanted));
                Ok(Opened { length, chunks })
            }
            _ => Err(problem::error(reply, &digest.to_string(), &target.place).await),
        }
    }

    /// The chunks of an answer and, where it breaks off, of those that follow it.
    fn resumed(self, chunks: Chunks) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let state = Some((self, Some(chunks), 0));
        stream::unfold(state, |state| async {
            let (mut part, mut chunks, mut failures) = state?;
            loop {
                let fault = match &mut chunks {
                    Some(open) => match open.next().await {
                        Some(Ok(chunk)) => {
                            part.position += chunk.len() as u64;
                            part.whole = false;
                            return Some((Ok(chunk), Some((part, chunks, 0))));
                        }
                        Some(Err(fault)) => fault,
                        // Too short or not is for whoever verifies to say: the server thinks that this was all.
                        None => return None,
                    },
                    None => match part.open().await {
                        Ok(opened) => {
                            chunks = Some(opened.chunks);
                            continue;
                        }
                        Err(error) => return Some((Err(error), None)),
                    },
                };
                if part.position >= part.end {
                    return None;
                }
                failures += 1;
                let Some(pause) = part.inner.http.pause(failures, None) else {
                    return Some((Err(problem::unreachable(fault, &part.target.place)), None));
                };
                chunks = None;
                part.inner.http.clock().sleep(pause).await;
            }
        })
    }
}

/// Leaves out the first bytes and those behind the last wanted one.
fn passing(chunks: Chunks, skip: u64, take: Option<u64>) -> Chunks {
    if skip == 0 && take.is_none() {
        return chunks;
    }
    let state = (chunks, skip, take.unwrap_or(u64::MAX));
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
