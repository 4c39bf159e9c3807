//! Referrers in a layout that `index.json` does not list.
//!
//! `cosign save` writes the manifests of signatures and attestations only as blobs, so all blobs have to be searched.

use std::io;

use bytes::Bytes;
use ocikit_image::{Error, Result};
use ocikit_spec::{Descriptor, Digest, Document, MAX_DOCUMENT_BYTES};

/// The maximum total size of such manifests in bytes.
const MAX_UNLISTED_BYTES: u64 = 32 << 20;

/// A manifest among the blobs, and its subject.
#[derive(Debug, Clone)]
pub(crate) struct Unlisted {
    pub(crate) descriptor: Descriptor,
    pub(crate) subject: Digest,
}

/// Finds the manifests with a subject among blobs. `read` returns up to this many bytes from the start of a blob.
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
        // Layers do not start with a brace, so one byte is enough for most blobs.
        if size > MAX_DOCUMENT_BYTES || read(&digest, 1).map_err(failed)? != b"{"[..] {
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

/// Parses a manifest or index with a subject. A damaged one is skipped, because nothing refers to it.
pub(crate) fn referrer(digest: &Digest, bytes: Bytes) -> Option<Unlisted> {
    const KEY: &[u8] = br#""subject""#;
    let is_candidate = bytes.windows(KEY.len()).any(|window| window == KEY);
    if !is_candidate || Digest::of(digest.algorithm(), &bytes) != *digest {
        return None;
    }
    let size = bytes.len() as u64;
    let (media_type, document) = Document::sniff(bytes).ok()?;
    let subject = document.subject()?.digest;
    // With the fields of a descriptor of the referrers API.
    let mut descriptor = Descriptor::new(media_type, *digest, size);
    descriptor.annotations = document.annotations().clone();
    descriptor.artifact_type = document.listed_artifact_type().cloned();
    Some(Unlisted { descriptor, subject })
}
