//! Referrers that a layout has and `index.json` does not list.
//!
//! `cosign save` writes the manifests of signatures and attestations as blobs and nothing else: who looks for them has to
//! look at the blobs.

use std::io;

use bytes::Bytes;
use ocikit_image::{Error, Result};
use ocikit_spec::{Descriptor, Digest, Document, MAX_DOCUMENT_SIZE};

/// The most bytes that such manifests may have together, in bytes.
const MAX_UNLISTED_BYTES: u64 = 32 << 20;

/// A manifest among the blobs, and its subject.
#[derive(Debug, Clone)]
pub(crate) struct Unlisted {
    pub(crate) descriptor: Descriptor,
    pub(crate) subject: Digest,
}

/// Finds the manifests with a subject among blobs. `read` returns so many bytes of the beginning of a blob, or fewer.
///
/// # Errors
///
/// Those of reading; [`Error::Unsupported`] beyond [`MAX_UNLISTED_BYTES`].
pub(crate) fn find(
    place: &str,
    blobs: impl IntoIterator<Item = (Digest, u64)>,
    read: impl Fn(&Digest, u64) -> io::Result<Bytes>,
) -> Result<Vec<Unlisted>> {
    let failed = |error| Error::failed("read", place, error);
    let (mut found, mut held) = (Vec::new(), 0);
    for (digest, size) in blobs {
        // Layers begin with something else, so that one byte is enough for most blobs.
        if size > MAX_DOCUMENT_SIZE || read(&digest, 1).map_err(failed)? != b"{"[..] {
            continue;
        }
        let Some(referrer) = referrer(&digest, read(&digest, size).map_err(failed)?) else { continue };
        held += size;
        if held > MAX_UNLISTED_BYTES {
            let what = format!("manifests that `index.json` does not list have more than {MAX_UNLISTED_BYTES} bytes");
            return Err(Error::Unsupported { place: place.to_owned(), what });
        }
        found.push(referrer);
    }
    Ok(found)
}

/// What the bytes are if they are a manifest or index with a subject. A damaged one is none: nothing leads to it that
/// could miss it.
pub(crate) fn referrer(digest: &Digest, bytes: Bytes) -> Option<Unlisted> {
    const KEY: &[u8] = br#""subject""#;
    let is_candidate = bytes.windows(KEY.len()).any(|window| window == KEY);
    if !is_candidate || Digest::of(digest.algorithm(), &bytes) != *digest {
        return None;
    }
    let size = bytes.len() as u64;
    let (media_type, document) = Document::sniff(bytes).ok()?;
    let subject = document.subject()?.digest;
    // As the referrers API of registries describes it.
    let mut descriptor = Descriptor::new(media_type, *digest, size);
    descriptor.annotations = document.annotations().clone();
    descriptor.artifact_type = match &document {
        Document::Manifest(manifest) => manifest.artifact_type().cloned(),
        Document::Index(index) => index.artifact_type().cloned(),
    };
    Some(Unlisted { descriptor, subject })
}
