use std::collections::HashSet;

use ocikit_image::{Error, Result, Source, SourceExt};
use ocikit_spec::{Content, Descriptor, Digest, Document, Index, MediaType};

/// Everything that the roots lead to: children of documents, and what a referrer is about.
///
/// Referrers are roots themselves, or listed below a root with the tag that stands for their subject, so they are kept as
/// anything else is.
///
/// A document that is missing leads nowhere. One that is here and damaged may lead anywhere, so then nothing can be said.
pub(super) async fn reachable(roots: &Index, place: &dyn Source) -> Result<HashSet<Digest>> {
    let mut found = HashSet::new();
    let mut waiting = Vec::new();
    meet(roots.manifests(), false, &mut found, &mut waiting);
    while let Some((media_type, digest, size)) = waiting.pop() {
        let descriptor = Descriptor::new(media_type, digest, size);
        let content = match place.content(&descriptor).await {
            Err(error) if error.is_not_found() => continue,
            content => content?,
        };
        match content {
            Content::Document(document) => {
                meet(document.subject(), false, &mut found, &mut waiting);
                let only_blobs = matches!(document, Document::Manifest(_));
                meet(document.children(), only_blobs, &mut found, &mut waiting);
            }
            Content::Blob => {}
            Content::Schema1 => {
                let what = format!("{digest} is a docker schema 1 manifest, and what it needs is not known");
                return Err(Error::Unsupported { place: place.to_string(), what });
            }
        }
    }
    Ok(found)
}

type Waiting = Vec<(MediaType, Digest, u64)>;

/// Notes what a document names. What a manifest names is blobs unless the media type says otherwise; anything else may be a
/// document whatever its media type.
fn meet<'a>(
    descriptors: impl IntoIterator<Item = &'a Descriptor>,
    only_blobs: bool,
    found: &mut HashSet<Digest>,
    waiting: &mut Waiting,
) {
    for descriptor in descriptors {
        let media_type = &descriptor.media_type;
        let may_be_document = if only_blobs { media_type.is_document() } else { !media_type.is_blob() };
        if found.insert(descriptor.digest) && may_be_document {
            waiting.push((descriptor.media_type.clone(), descriptor.digest, descriptor.size));
        }
    }
}
