use std::collections::HashSet;

use ocikit_image::{Error, Result, Source, SourceExt};
use ocikit_spec::{Content, Descriptor, Digest, Index, MediaType};

/// Everything that the roots lead to: children of documents, and what a referrer is about.
///
/// Referrers are roots themselves, or listed below a root with the tag that stands for their subject, so they are kept as
/// anything else is.
///
/// A document that is missing leads nowhere. One that is here and damaged may lead anywhere, so then nothing can be said.
pub(super) async fn reachable(roots: &Index, place: &dyn Source) -> Result<HashSet<Digest>> {
    let (mut found, mut followed) = (HashSet::new(), HashSet::new());
    let mut waiting: Waiting = roots.manifests().iter().map(facts).collect();
    while let Some((media_type, digest, size)) = waiting.pop() {
        found.insert(digest);
        // What one document takes for a blob may be a document to another.
        if !followed.insert(digest) {
            continue;
        }
        match place.content(&Descriptor::new(media_type, digest, size)).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
            Ok(Content::Blob) => {}
            Ok(Content::Schema1) => {
                let what = format!("{digest} is a docker schema 1 manifest, and what it needs is not known");
                return Err(Error::Unsupported { place: place.to_string(), what });
            }
            Ok(Content::Document(document)) => {
                waiting.extend(document.subject().map(facts));
                let (documents, blobs): (Vec<_>, Vec<_>) =
                    document.children().partition(|child| document.may_be_document(child));
                waiting.extend(documents.into_iter().filter(|child| !followed.contains(&child.digest)).map(facts));
                found.extend(blobs.into_iter().map(|blob| blob.digest));
            }
        }
    }
    Ok(found)
}

/// What is still to be read. A layout may list 50,000 documents, so this is less than a descriptor.
type Waiting = Vec<(MediaType, Digest, u64)>;

fn facts(descriptor: &Descriptor) -> (MediaType, Digest, u64) {
    (descriptor.media_type.clone(), descriptor.digest, descriptor.size)
}
