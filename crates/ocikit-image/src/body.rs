use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use ocikit_spec::{Descriptor, Digest, Hasher};

use crate::error::{Error, Mismatch, Result};

/// A stream of the bytes of a blob, or of a range of it.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let Root::Image(image) = Root::at(memory, manifest).await? else { panic!("it is an image") };
/// use futures::TryStreamExt;
/// use ocikit_image::Root;
///
/// let mut body = image.layers().next().ok_or("it has a layer")?.open().await?;
/// let mut length = 0;
/// while let Some(chunk) = body.try_next().await? {
///     length += chunk.len(); // the last chunk comes only if the digest is right
/// }
/// assert_eq!(length, 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Body {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    length: u64,
    /// The digest that the bytes are already checked against: the stream ends with an error if they do not match.
    known: Option<Digest>,
}

impl Body {
    /// Creates a body of `length` bytes, which the stream must produce.
    ///
    /// A body can be polled after its end even if the stream would panic. It returns chunks of at most 256 KiB and
    /// yields to other tasks after every MiB, so that a consumer that hashes or decompresses does not block a
    /// single-threaded runtime, however large the chunks of the stream are.
    pub fn new(length: u64, chunks: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Body {
        let pieces = Pieces { chunks: Box::pin(chunks.fuse()), rest: Bytes::new(), since_yield: 0 };
        Body { chunks: Box::pin(pieces), length, known: None }
    }

    /// Returns the length in bytes that the source states.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads all bytes into memory.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub async fn bytes(mut self) -> Result<Bytes> {
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await.transpose()? else { return Ok(first) };
        let mut all = BytesMut::from(&first[..]);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.next().await.transpose()? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Returns the next chunk that is not empty, or `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(chunk) = self.next().await.transpose()? {
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Returns the body with a check against its descriptor.
    ///
    /// The last chunk is returned only after the digest was checked. A consumer that receives all bytes therefore has
    /// the right ones, and one that forwards them never completes a wrong blob. `place` is named in the error.
    ///
    /// A body that is already checked against the digest is not hashed again.
    pub fn verified(self, descriptor: &Descriptor, place: &(impl ToString + ?Sized)) -> Body {
        if self.is_known_to_be(&descriptor.digest) && self.length == descriptor.size {
            return self;
        }
        let body = self.verified_after(descriptor, place, Hasher::new(descriptor.digest.algorithm()), 0);
        Body { length: descriptor.size, ..body }.known_to_be(&descriptor.digest)
    }

    /// Returns the rest of a blob with a check against its descriptor, given the hash state of the first `passed`
    /// bytes.
    pub(crate) fn verified_after(
        self,
        descriptor: &Descriptor,
        place: &(impl ToString + ?Sized),
        hasher: Hasher,
        passed: u64,
    ) -> Body {
        let (descriptor, place, hasher) = (descriptor.clone(), place.to_string(), Some(hasher));
        let verifier = Verifier { descriptor, place, hasher, passed, chunks: self.chunks };
        Body { chunks: Box::pin(verifier), length: self.length, known: None }
    }

    /// Marks the body as already checked against this digest.
    pub(crate) fn known_to_be(self, digest: &Digest) -> Body {
        Body { known: Some(*digest), ..self }
    }

    /// Returns whether the body is already checked: it returns the last chunk only if all bytes have this digest.
    pub fn is_known_to_be(&self, digest: &Digest) -> bool {
        self.known.as_ref() == Some(digest)
    }

    /// Returns the body and calls `watch` with the length of each chunk.
    pub fn watched(self, mut watch: impl FnMut(u64) + Send + 'static) -> Body {
        let chunks = self.chunks.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                watch(chunk.len() as u64);
            }
        });
        Body { chunks: Box::pin(chunks), length: self.length, known: self.known }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::new(bytes.len() as u64, futures::stream::iter((!bytes.is_empty()).then_some(Ok(bytes))))
    }
}

impl Stream for Body {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The maximum length of a returned chunk in bytes. Hashing one takes about a millisecond.
const MAX_PIECE_BYTES: usize = 256 << 10;

/// The number of bytes after which a body yields to other tasks.
const YIELD_BYTES: usize = 1 << 20;

/// Splits the chunks of a stream into pieces of at most [`MAX_PIECE_BYTES`].
struct Pieces {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    /// The rest of the current chunk.
    rest: Bytes,
    since_yield: usize,
}

impl Stream for Pieces {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.since_yield >= YIELD_BYTES {
            self.since_yield = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match futures::ready!(self.chunks.as_mut().poll_next(context)) {
                Some(Ok(chunk)) => self.rest = chunk,
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(MAX_PIECE_BYTES);
        let piece = self.rest.split_to(length);
        self.since_yield += length;
        Poll::Ready(Some(Ok(piece)))
    }
}

struct Verifier {
    descriptor: Descriptor,
    place: String,
    /// `None` after the digest was checked or a mismatch was found.
    hasher: Option<Hasher>,
    passed: u64,
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl Verifier {
    fn mismatch(&mut self, mismatch: Mismatch) -> Error {
        self.hasher = None;
        Error::mismatch(&self.descriptor.digest, &self.place, mismatch)
    }

    /// Compares the digest after all bytes were read.
    fn check(&mut self) -> Result<()> {
        if let Some(hasher) = self.hasher.take() {
            let actual = hasher.finish();
            if actual != self.descriptor.digest {
                return Err(self.mismatch(Mismatch::Digest(actual)));
            }
        }
        Ok(())
    }
}

impl Stream for Verifier {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let size = self.descriptor.size;
        loop {
            let Some(chunk) = futures::ready!(self.chunks.as_mut().poll_next(context)) else {
                if self.passed < size && self.hasher.is_some() {
                    let mismatch = Mismatch::Size { expected: size, actual: self.passed };
                    return Poll::Ready(Some(Err(self.mismatch(mismatch))));
                }
                // An empty blob has no last chunk, so its digest is checked at the end.
                return Poll::Ready(self.check().err().map(Err));
            };
            let chunk = chunk?;
            if chunk.is_empty() {
                continue;
            }
            self.passed += chunk.len() as u64;
            if self.passed > size {
                let mismatch = Mismatch::Size { expected: size, actual: self.passed };
                return Poll::Ready(Some(Err(self.mismatch(mismatch))));
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&chunk);
            }
            if self.passed == size {
                self.check()?;
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
    }
}

#[cfg(test)]
mod tests {
    use ocikit_spec::MediaType;

    use super::*;

    fn body(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Body::new(0, futures::stream::iter(chunks))
    }

    fn descriptor(bytes: &[u8]) -> Descriptor {
        Descriptor::of(MediaType::OCTET_STREAM, bytes)
    }

    async fn passed(body: Body) -> (Vec<u8>, Option<Error>) {
        let chunks: Vec<_> = body.collect::<Vec<_>>().await;
        let mut bytes = Vec::new();
        for chunk in chunks {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => return (bytes, Some(error)),
            }
        }
        (bytes, None)
    }

    #[tokio::test]
    async fn verified_body_returns_right_bytes() {
        for chunks in [&[&b"abc"[..]][..], &[b"a", b"", b"bc", b""]] {
            let (bytes, error) = passed(body(chunks).verified(&descriptor(b"abc"), "here")).await;
            assert_eq!((&bytes[..], error.is_none()), (&b"abc"[..], true));
        }
        assert!(passed(body(&[]).verified(&descriptor(b""), "here")).await.1.is_none());
    }

    #[tokio::test]
    async fn verified_body_never_completes_wrong_bytes() {
        for chunks in [&[&b"abx"[..]][..], &[b"a", b"bx"], &[b"ab"], &[b"abcd"], &[b"abc", b"d"], &[]] {
            let (bytes, error) = passed(body(chunks).verified(&descriptor(b"abc"), "here")).await;
            assert!(matches!(error, Some(Error::Mismatch { .. })), "{chunks:?}");
            assert!(bytes.len() < 3 || bytes == b"abc", "{chunks:?}");
        }
        let mut empty = descriptor(b"x");
        empty.size = 0;
        assert!(matches!(passed(body(&[]).verified(&empty, "here")).await.1, Some(Error::Mismatch { .. })));
    }

    #[tokio::test]
    async fn body_can_be_polled_after_its_end() {
        let once = futures::stream::unfold(true, async |first| first.then(|| (Ok(Bytes::from_static(b"a")), false)));
        let mut body = Body::new(1, once).verified(&descriptor(b"a"), "here");
        assert!(body.next().await.is_some());
        for _ in 0..3 {
            assert!(body.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn hashing_a_large_buffer_lets_other_tasks_run() {
        let bytes = Bytes::from(vec![7; 8 << 20]);
        let descriptor = Descriptor::of(MediaType::OCTET_STREAM, &bytes);
        let body = Body::from(bytes.clone()).verified(&descriptor, "here");
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            read = body.bytes() => assert_eq!(read.unwrap(), bytes),
            () = others => {}
        }
        assert!(turns >= 7, "one turn for every MiB, not {turns}");
    }

    #[tokio::test]
    async fn chunks_are_joined() {
        for chunks in [&[][..], &[&b"abc"[..]], &[b"a", b"b"], &[b"a", b"b", b"c"]] {
            assert_eq!(body(chunks).bytes().await.unwrap(), chunks.concat());
        }
    }
}
