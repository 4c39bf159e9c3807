use std::collections::{HashMap, HashSet};

use ocikit_image::{Error, Result, Source, SourceExt};
use ocikit_spec::{Content, Descriptor, Digest, Index, MediaType};

use super::GcOptions;
use crate::unlisted::Unlisted;

/// Returns every digest that is reachable from the roots: children of documents, subjects, and referrers that are not
/// listed.
///
/// Listed referrers are roots themselves, or below a root with the fallback tag of their subject, so they are kept
/// anyway.
///
/// # Errors
///
/// [`Error::NotFound`] if a document is missing, and those of reading if one is damaged, because the digests that it
/// refers to are unknown. A manifest in an index may be missing with [`GcOptions::sparse`], a subject always.
pub(super) async fn reachable(
    roots: &Index,
    place: &dyn Source,
    unlisted: Vec<Unlisted>,
    options: &GcOptions,
) -> Result<HashSet<Digest>> {
    let mut by_subject: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
    for Unlisted { descriptor, subject } in unlisted {
        by_subject.entry(subject).or_default().push(descriptor);
    }
    let listed = if options.sparse { Missing::IsAllowed } else { Missing::IsAnError };
    let (mut found, mut followed) = (HashSet::new(), HashSet::new());
    let mut waiting: Waiting = roots.manifests().iter().map(|root| facts(root, Missing::IsAnError)).collect();
    while let Some((media_type, digest, size, missing)) = waiting.pop() {
        found.insert(digest);
        // A digest may be listed as a blob in one document and as a document in another.
        if !followed.insert(digest) {
            continue;
        }
        let about = by_subject.remove(&digest).unwrap_or_default();
        waiting.extend(about.iter().map(|referrer| facts(referrer, Missing::IsAnError)));
        match place.content(&Descriptor::new(media_type, digest, size)).await {
            Err(error) if error.is_not_found() && missing == Missing::IsAllowed => {}
            Err(error) => return Err(error),
            Ok(Content::Blob) => {}
            Ok(Content::Schema1) => {
                let what = format!("{digest} is a Docker schema 1 manifest, whose blobs are unknown");
                return Err(Error::Unsupported { place: place.to_string(), what });
            }
            Ok(Content::Document(document)) => {
                waiting.extend(document.subject().map(|subject| facts(subject, Missing::IsAllowed)));
                let (documents, blobs): (Vec<_>, Vec<_>) =
                    document.children().partition(|child| document.may_be_document(child));
                let documents = documents.into_iter().filter(|child| !followed.contains(&child.digest));
                waiting.extend(documents.map(|child| facts(child, listed)));
                found.extend(blobs.into_iter().map(|blob| blob.digest));
            }
        }
    }
    Ok(found)
}

/// Whether a document may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsAllowed,
    IsAnError,
}

/// The documents to read. Smaller than descriptors, because a layout may list 50,000 of them.
type Waiting = Vec<(MediaType, Digest, u64, Missing)>;

fn facts(descriptor: &Descriptor, missing: Missing) -> (MediaType, Digest, u64, Missing) {
    (descriptor.media_type.clone(), descriptor.digest, descriptor.size, missing)
}
