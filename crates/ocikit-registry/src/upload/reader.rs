use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, stream};
use ocikit_http::{BodySource, BoxError, StreamBody, lock};
use ocikit_image::{Body, ByteRange, Error, Mismatch, Result, Source};
use ocikit_spec::{Descriptor, Hasher};

/// Reads a blob from its source, from any offset and as often as the upload needs it, and hashes every byte once.
///
/// The last chunk is withheld until the digest matches, so that an upload of wrong bytes is never completed.
pub(crate) struct Reader<'a> {
    descriptor: &'a Descriptor,
    from: &'a dyn Source,
    hashed: Arc<Mutex<Hashed>>,
}

/// The progress of the hash.
struct Hashed {
    /// `None` if some bytes were not hashed here: another process has sent them, or the source verifies them. If the
    /// upload then continues with other bytes, the registry checks the digest.
    hasher: Option<Hasher>,
    position: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(descriptor: &'a Descriptor, from: &'a dyn Source) -> Reader<'a> {
        let hasher = Some(Hasher::new(descriptor.digest.algorithm()));
        Reader { descriptor, from, hashed: Arc::new(Mutex::new(Hashed { hasher, position: 0 })) }
    }

    /// Returns `length` bytes from an offset on as the body of a request, which is opened when the request is sent.
    pub(crate) fn part(&self, offset: u64, length: u64) -> BlobPart<'_> {
        BlobPart { reader: self, offset, length }
    }

    /// Returns `length` bytes from an offset on.
    pub(crate) async fn open(&self, offset: u64, length: u64) -> Result<Body> {
        let end = offset + length;
        let size = self.descriptor.size;
        let wanted = if end < size { Some(length) } else { None };
        let place = self.from.to_string();
        let body = self.from.open_unverified(self.descriptor, ByteRange { offset, length: wanted }).await?;
        if body.length() != length {
            let mismatch = Mismatch::Size { expected: size, actual: offset.saturating_add(body.length()) };
            return Err(Error::mismatch(&self.descriptor.digest, &place, mismatch));
        }
        let descriptor = Arc::new(self.descriptor.clone());
        let trusted = body.is_known_to_be(&self.descriptor.digest);
        let check = Check { descriptor, place: place.into(), hashed: self.hashed.clone(), trusted };
        Ok(Body::new(length, checked(body, check, offset, end)))
    }
}

/// Bytes of a blob as the body of a request.
pub(crate) struct BlobPart<'a> {
    reader: &'a Reader<'a>,
    offset: u64,
    length: u64,
}

impl BodySource for BlobPart<'_> {
    fn open(&self) -> BoxFuture<'_, Result<StreamBody, BoxError>> {
        Box::pin(async {
            let body = self.reader.open(self.offset, self.length).await?;
            let chunks = body.map(|chunk| chunk.map_err(BoxError::from)).boxed();
            Ok(StreamBody { length: self.length, chunks })
        })
    }
}

fn checked(body: Body, check: Check, offset: u64, end: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold(Some((body, offset)), move |state| {
        let check = check.clone();
        async move {
            let Some((mut body, position)) = state else { return Ok(None) };
            let found = next(&mut body, &check, position, end).await?;
            Ok(found.map(|(chunk, after)| (chunk, (after < end).then_some((body, after)))))
        }
    })
}

/// Returns the next chunk and its end offset.
async fn next(body: &mut Body, check: &Check, position: u64, end: u64) -> Result<Option<(Bytes, u64)>> {
    let Some(chunk) = body.next_chunk().await? else {
        return if position < end { Err(check.size(position)) } else { Ok(None) };
    };
    let after = check.pass(position, end, &chunk)?;
    // The HTTP client stops reading at the announced length, so surplus bytes are detected before the last chunk is
    // returned.
    if after == end
        && let Some(more) = body.next_chunk().await?
    {
        return Err(check.size(after + more.len() as u64));
    }
    Ok(Some((chunk, after)))
}

#[derive(Clone)]
struct Check {
    descriptor: Arc<Descriptor>,
    place: Arc<str>,
    hashed: Arc<Mutex<Hashed>>,
    /// Whether the source verifies the digest of the body.
    trusted: bool,
}

impl Check {
    /// Checks a chunk that starts at `position`, and returns its end offset.
    fn pass(&self, position: u64, end: u64, chunk: &[u8]) -> Result<u64> {
        let after = position + chunk.len() as u64;
        if after > end {
            return Err(self.size(after));
        }
        let mut hashed = lock(&self.hashed);
        if position > hashed.position || self.trusted {
            hashed.hasher = None;
        }
        if after > hashed.position {
            let known = hashed.position.saturating_sub(position);
            if let Some(hasher) = &mut hashed.hasher {
                hasher.update(&chunk[known as usize..]);
            }
            hashed.position = after;
        }
        if after == self.descriptor.size
            && let Some(hasher) = hashed.hasher.take()
        {
            let actual = hasher.clone().finish();
            // Kept in case the end is sent again.
            hashed.hasher = Some(hasher);
            if actual != self.descriptor.digest {
                return Err(self.mismatch(Mismatch::Digest(actual)));
            }
        }
        Ok(after)
    }

    fn size(&self, actual: u64) -> Error {
        self.mismatch(Mismatch::Size { expected: self.descriptor.size, actual })
    }

    fn mismatch(&self, mismatch: Mismatch) -> Error {
        Error::mismatch(&self.descriptor.digest, &self.place, mismatch)
    }
}

#[cfg(test)]
mod tests {
    use ocikit_image::{Memory, bridge};
    use ocikit_spec::MediaType;

    use super::*;

    #[tokio::test]
    async fn repeated_bytes_are_hashed_once() {
        let bytes = ocikit_image::testing::random(1, 3 * bridge::CHUNK + 5);
        let memory = Memory::new();
        memory.insert(bytes.clone());
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
        let size = descriptor.size;
        let reader = Reader::new(&descriptor, &memory);
        for (offset, length) in [(0, 100), (50, 1000), (700, size - 700), (size - 3, 3), (0, size)] {
            let read = reader.open(offset, length).await.unwrap().bytes().await.unwrap();
            assert_eq!(read, bytes[offset as usize..(offset + length) as usize]);
        }
        assert_eq!(lock(&reader.hashed).position, size);
        assert!(lock(&reader.hashed).hasher.is_some());
    }

    #[tokio::test]
    async fn resumed_bytes_of_another_process_pass_without_hash() {
        let memory = Memory::new();
        memory.insert(&b"abcdef"[..]);
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, b"abcdef");
        let reader = Reader::new(&descriptor, &memory);
        assert_eq!(reader.open(3, 3).await.unwrap().bytes().await.unwrap(), "def");
    }
}
