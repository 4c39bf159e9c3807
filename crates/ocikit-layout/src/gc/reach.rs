use std::collections::HashSet;

use ocikit_image::{Error, Result, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Index, MediaType};

/// Everything that the roots lead to: children of documents, and what a referrer is about.
///
/// Referrers are roots themselves, or listed below a root with the tag that stands for their subject, so they are kept as
/// anything else is.
///
/// A document that is missing leads nowhere. One that is here and damaged may lead anywhere, so then nothing can be said.
pub(super) async fn reachable(roots: &Index, place: &dyn Source) -> Result<HashSet<Digest>> {
    let mut found = HashSet::new();
    let mut waiting = Vec::new();
    meet(roots.manifests(), &mut found, &mut waiting);
    while let Some((media_type, digest, size)) = waiting.pop() {
        let descriptor = Descriptor::new(media_type, digest, size);
        if descriptor.media_type.is_schema1() {
            let what = format!("{digest} is of docker's first schema, and what it needs cannot be told");
            return Err(Error::Unsupported { place: place.to_string(), what });
        }
        let document = match place.document(&descriptor).await {
            Err(error) if error.is_not_found() => continue,
            document => document?,
        };
        meet(document.children().chain(document.subject()), &mut found, &mut waiting);
    }
    Ok(found)
}

type Waiting = Vec<(MediaType, Digest, u64)>;

fn meet<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>, found: &mut HashSet<Digest>, waiting: &mut Waiting) {
    for descriptor in descriptors {
        if found.insert(descriptor.digest) && descriptor.media_type.is_document() {
            waiting.push((descriptor.media_type.clone(), descriptor.digest, descriptor.size));
        }
    }
}
