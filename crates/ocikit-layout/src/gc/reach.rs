use std::collections::{HashMap, HashSet};

use ocikit_image::walk::limits::Limits;
use ocikit_image::walk::{Edge, Found, Path, Walk, children};
use ocikit_image::{Error, Result, Source};
use ocikit_spec::{Content, Descriptor, Digest, Index};

use super::options::GcOptions;
use crate::roots::INDEX_JSON;
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
    let mut walk = Walk::new(place, Limits::PLACE);
    let list = Path::list(INDEX_JSON, roots.digest());
    for (position, root) in roots.manifests().iter().enumerate() {
        walk.add(&list, Edge::Manifest(position), &root.bare())?;
    }
    let (mut found, mut absent, mut subjects) = (HashSet::new(), HashSet::new(), Vec::new());
    loop {
        while let Some(node) = walk.next().await {
            let (digest, path) = (node.path.digest, node.path);
            found.insert(digest);
            for (position, referrer) in by_subject.remove(&digest).unwrap_or_default().iter().enumerate() {
                walk.add(&path, Edge::Referrer(position), &referrer.bare())?;
            }
            let Found::Content(content) = node.found else { continue };
            let may_be_missing = match &path.edge {
                Edge::Subject => true,
                Edge::Manifest(_) | Edge::Config | Edge::Layer(_) => options.sparse && !path.is_root(),
                _ => false,
            };
            let document = match content {
                Ok(Content::Document(document)) => document,
                Ok(Content::Blob) => continue,
                Ok(Content::Schema1) => {
                    let what = format!("{digest} is a Docker schema 1 manifest, whose blobs are unknown");
                    return Err(Error::Unsupported { place: place.to_string(), what });
                }
                Err(error) if error.is_not_found() && may_be_missing => {
                    absent.insert(digest);
                    continue;
                }
                Err(error) => return Err(error),
            };
            subjects.extend(document.subject().map(|subject| (path.clone(), subject.bare())));
            for (edge, child) in children(&document) {
                match document.may_be_document(child) {
                    true if !options.sparse && absent.contains(&child.digest) => {
                        return Err(Error::not_found(child.digest, place));
                    }
                    true => _ = walk.add(&path, edge, &child.bare())?,
                    false => _ = found.insert(child.digest),
                }
            }
        }
        // Subjects come last, because one that an index lists as well must exist.
        let Some((path, subject)) = subjects.pop() else { return Ok(found) };
        walk.add(&path, Edge::Subject, &subject)?;
    }
}
