//! The `index.json` of a layout: the names of its entries, and the position of a new one.
//!
//! Image layout specification, "index.json file".

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ocikit_image::walk::limits::{Limits, MAX_DOCUMENTS};
use ocikit_image::walk::{Edge, Found, Path, Walk, children};
use ocikit_image::{Body, ByteRange, Error, Name, Naming, Result, Source, SourceExt};
use ocikit_spec::{Content, Descriptor, Digest, Document, Index, Platform, Reference, Tag, annotations};
use tokio::sync::Mutex;

use crate::unlisted::Unlisted;

/// The contents of the `oci-layout` file.
pub(crate) const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The name of the file that lists the roots.
pub(crate) const INDEX_JSON: &str = "index.json";

/// The name of the file that marks a directory or archive as a layout.
pub(crate) const OCI_LAYOUT_FILE: &str = "oci-layout";

/// The name of the directory of blobs.
pub(crate) const BLOBS: &str = "blobs";

/// Returns the entry with a name; for a digest also a document below the roots.
pub(crate) async fn resolve(roots: &Index, place: &dyn Source, name: &Name) -> Result<Descriptor> {
    let entries = roots.manifests();
    let mut found: Vec<&Descriptor> = match name {
        Name::Only => {
            let found = independent(entries, place).await?;
            if are_platforms_of_one(&found) {
                return Ok(Descriptor::of(roots.media_type(), roots.bytes()));
            }
            found
        }
        Name::Tag(tag) => {
            let tagged: Vec<_> = entries.iter().filter(|entry| has_tag(entry, tag)).collect();
            if tagged.is_empty() { saved_by_cosign(entries, place, tag).await? } else { tagged }
        }
        Name::Full(full) => entries.iter().filter(|entry| has_full_name(entry, full)).collect(),
        Name::Digest(digest) => {
            return match entries.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Ok(entry.clone()),
                None => search(roots, place, digest).await,
            };
        }
    };
    // One image under several names is not ambiguous.
    let mut seen = HashSet::new();
    found.retain(|entry| seen.insert(entry.digest));
    match &found[..] {
        [one] => Ok((*one).clone()),
        [] => Err(Error::not_found(name, place)),
        several => Err(Error::Ambiguous {
            place: place.to_string(),
            choices: several.iter().map(|entry| shown(entry)).collect(),
        }),
    }
}

/// Returns the list with a new root; the same list if it is already there.
pub(crate) fn publish(roots: &Index, root: &Descriptor, naming: &Naming) -> ocikit_spec::Result<Index> {
    let mut edit = roots.edit();
    if let Some(old) = naming.replaces {
        let is_old = |entry: &Descriptor| {
            entry.digest == old && naming.tag.as_ref().is_none_or(|tag| tag_of(entry).as_ref() == Some(tag))
        };
        let old: Vec<_> = positions(roots, is_old);
        // The new entry keeps the annotations of the replaced one.
        for position in &old {
            edit.repoint(*position, &root.digest, root.size).set_entry_media_type(*position, &root.media_type);
        }
        if !old.is_empty() {
            return edit.finish();
        }
    }
    let new = entry(root, naming);
    let listed = positions(roots, |entry| entry.digest == root.digest);
    let old = match (&naming.tag, tag_of(&new)) {
        (Some(tag), _) => same_name(roots, tag, naming.full.as_deref()),
        // A root that keeps the tag of its source takes it from the entry that has it: two entries with one tag could
        // not be selected.
        (None, Some(tag)) if listed.is_empty() => same_name(roots, &tag, full_name_of(&new)),
        (None, _) => listed,
    };
    let is_new = |position: &usize| {
        let old = &roots.manifests()[*position];
        old.digest == root.digest && (naming.tag.is_none() || same_names(old, &new))
    };
    if old.iter().any(is_new) {
        return Ok(roots.clone());
    }
    // In reverse order, so that the remaining positions stay valid.
    for position in old.into_iter().rev() {
        edit.remove(position);
    }
    edit.push(&new).finish()
}

/// Returns the list without the entries with a name, and the removed entries: those with the tag or full name, or all
/// with the digest.
pub(crate) async fn remove(roots: &Index, place: &dyn Source, name: &Name) -> Result<(Index, Vec<Descriptor>)> {
    let resolved = resolve(roots, place, name).await?;
    let is_meant = |entry: &Descriptor| match name {
        Name::Tag(tag) => {
            has_tag(entry, tag) || cosign_ending(entry).is_some_and(|ending| tag.as_str().ends_with(ending))
        }
        Name::Full(full) => has_full_name(entry, full),
        Name::Only | Name::Digest(_) => true,
    };
    let mut gone = positions(roots, |entry| entry.digest == resolved.digest && is_meant(entry));
    if gone.is_empty() && resolved.digest == roots.digest() {
        gone = positions(roots, |_| true);
    }
    if gone.is_empty() {
        let what = format!("{}, which is a part of another image,", resolved.digest);
        return Err(Error::not_found(what, place));
    }
    let entries = gone.iter().map(|position| roots.manifests()[*position].clone()).collect();
    let mut edit = roots.edit();
    // In reverse order, so that the remaining positions stay valid.
    for position in gone.into_iter().rev() {
        edit.remove(position);
    }
    Ok((edit.finish().map_err(|source| Error::broken(place, source))?, entries))
}

/// Returns the entries that a new entry with this name replaces. In an archive of several images, `acme/one:1` and
/// `acme/two:1` both have the tag `1` but are different names.
fn same_name(roots: &Index, tag: &Tag, full: Option<&str>) -> Vec<usize> {
    let tagged = positions(roots, |entry| tag_of(entry).as_ref() == Some(tag));
    let full_name = |position: &usize| full_name_of(&roots.manifests()[*position]);
    match full {
        Some(full) => tagged.into_iter().filter(|at| full_name(at).is_none_or(|name| name == full)).collect(),
        None if tagged.len() == 1 => tagged,
        None => tagged.into_iter().filter(|at| full_name(at).is_none()).collect(),
    }
}

fn positions(roots: &Index, matches: impl Fn(&Descriptor) -> bool) -> Vec<usize> {
    let entries = roots.manifests().iter().enumerate();
    entries.filter(|(_, entry)| matches(entry)).map(|(position, _)| position).collect()
}

/// Returns the list of roots as a blob, if it was requested by its digest.
pub(crate) fn own(
    roots: &Index,
    digest: &Digest,
    wanted: &Descriptor,
    range: ByteRange,
    place: &dyn Source,
) -> Result<Body> {
    if wanted.digest != *digest {
        return Err(Error::not_found(wanted.digest, place));
    }
    Ok(range.of(roots.bytes()).into())
}

/// The referrers among the roots by subject. Computed once for each list of roots, because every root has to be read.
#[derive(Debug, Default)]
pub(crate) struct Subjects(Mutex<Option<(Bytes, Arc<BySubject>)>>);

type BySubject = HashMap<Digest, Vec<Descriptor>>;

impl Subjects {
    /// Returns the manifests with this digest as their subject: those listed as roots, and those below a root with the
    /// fallback tag for registries without the referrers API, which some tools also write into layouts.
    ///
    /// Manifests that are not listed at all are searched once, when they are needed: see [`crate::unlisted`].
    pub(crate) async fn about(
        &self,
        subject: &Digest,
        roots: &Index,
        place: &dyn Source,
        unlisted: impl Future<Output = Result<Vec<Unlisted>>> + Send,
    ) -> Result<Vec<Descriptor>> {
        // Held while the roots are read, so that concurrent callers wait for one result.
        let mut known = self.0.lock().await;
        let found = match &*known {
            Some((of, found)) if of == roots.bytes() => found.clone(),
            _ => {
                let found = Arc::new(by_subject(roots, place, unlisted.await?).await?);
                *known = Some((roots.bytes().clone(), found.clone()));
                found
            }
        };
        Ok(found.get(subject).cloned().unwrap_or_default())
    }
}

async fn by_subject(roots: &Index, place: &dyn Source, unlisted: Vec<Unlisted>) -> Result<BySubject> {
    let (mut seen, mut found) = (HashSet::new(), BySubject::new());
    let mut waiting: VecDeque<_> = roots.manifests().iter().map(|entry| (entry.clone(), true)).collect();
    while let Some((entry, is_root)) = waiting.pop_front() {
        if !seen.insert(entry.digest) {
            continue;
        }
        let document = document_of(&entry, place).await?;
        if let Some(subject) = document.as_ref().and_then(Document::subject) {
            found.entry(subject.digest).or_default().push(entry);
        } else if let Some(Document::Index(index)) = document
            && is_root
            && tag_of(&entry).is_some_and(|tag| is_fallback_tag(&tag))
        {
            waiting.extend(index.manifests().iter().map(|entry| (entry.clone(), false)));
        }
    }
    for Unlisted { descriptor, subject } in unlisted {
        if seen.insert(descriptor.digest) {
            found.entry(subject).or_default().push(descriptor);
        }
    }
    Ok(found)
}

/// Returns the tag of an entry: its name, or the part of a full name after the last colon.
pub(crate) fn tag_of(entry: &Descriptor) -> Option<Tag> {
    let name = entry.annotations.get(annotations::REF_NAME)?;
    name.parse().ok().or_else(|| name.parse::<Reference>().ok()?.tag().cloned())
}

/// Returns the full name of an entry, from either of the two annotations that may hold it.
pub(crate) fn full_name_of(entry: &Descriptor) -> Option<&str> {
    let is_full = |name: &&str| name.contains(['/', ':']);
    let either = [annotations::CONTAINERD_NAME, annotations::REF_NAME];
    either.into_iter().find_map(|key| entry.annotations.get(key).filter(is_full))
}

fn has_tag(entry: &Descriptor, tag: &Tag) -> bool {
    // Long lists consist mostly of other names, and comparing is cheaper than parsing.
    let name = entry.annotations.get(annotations::REF_NAME);
    name.is_some_and(|name| name.ends_with(tag.as_str())) && tag_of(entry).as_ref() == Some(tag)
}

fn has_full_name(entry: &Descriptor, full: &str) -> bool {
    let normal = |name: &str| name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.to_string());
    [annotations::CONTAINERD_NAME, annotations::REF_NAME]
        .into_iter()
        .filter_map(|key| entry.annotations.get(key))
        .any(|name| name == full || normal(name) == normal(full))
}

/// Returns the name of an entry for a list of choices.
fn shown(entry: &Descriptor) -> String {
    match full_name_of(entry).or_else(|| entry.annotations.get(annotations::REF_NAME)) {
        Some(name) => name.to_owned(),
        None => entry.digest.to_string(),
    }
}

fn same_names(one: &Descriptor, other: &Descriptor) -> bool {
    [annotations::REF_NAME, annotations::CONTAINERD_NAME]
        .into_iter()
        .all(|key| one.annotations.get(key) == other.annotations.get(key))
}

/// Returns the entry of a root: its original descriptor with its new names.
fn entry(root: &Descriptor, naming: &Naming) -> Descriptor {
    let mut entry = root.clone();
    if let Some(tag) = &naming.tag {
        entry.annotations.remove(annotations::CONTAINERD_NAME);
        entry.annotations.insert(annotations::REF_NAME, tag.as_str());
    }
    if let Some(full) = &naming.full {
        entry.annotations.insert(annotations::CONTAINERD_NAME, full);
    }
    entry
}

/// Returns the entries without referrers, such as signatures, and without the entries of a listed index, which oras
/// lists beside it.
async fn independent<'a>(entries: &'a [Descriptor], place: &dyn Source) -> Result<Vec<&'a Descriptor>> {
    // A single entry is selected, whatever it is.
    if entries.len() == 1 {
        return Ok(entries.iter().collect());
    }
    let mut below = HashSet::new();
    let mut candidates = Vec::new();
    for entry in entries {
        let document = document_of(entry, place).await?;
        if let Some(Document::Index(index)) = &document {
            below.extend(index.manifests().iter().map(|child| child.digest));
        }
        // Whether or not its subject exists: annotating an image leaves the signature of the previous one.
        let is_referrer = document.as_ref().is_some_and(|document| document.subject().is_some());
        if !is_referrer && cosign_ending(entry).is_none() && !tag_of(entry).is_some_and(|tag| is_fallback_tag(&tag)) {
            candidates.push(entry);
        }
    }
    let is_named = |entry: &Descriptor| entry.annotations.get(annotations::REF_NAME).is_some();
    candidates.retain(|entry| is_named(entry) || !below.contains(&entry.digest));
    // If there is nothing else, referrers can be selected.
    Ok(if candidates.is_empty() { entries.iter().collect() } else { candidates })
}

/// Returns whether the entries are one image for several platforms without an index of their own: all are unnamed and
/// for different platforms. The list itself is then the index of the image.
fn are_platforms_of_one(entries: &[&Descriptor]) -> bool {
    let images = entries.iter().filter(|entry| !entry.is_attestation());
    let platforms: Vec<_> =
        images.clone().filter_map(|entry| entry.platform.as_ref()).map(Platform::normalized).collect();
    let distinct: HashSet<_> = platforms.iter().collect();
    let named = entries.iter().any(|entry| full_name_of(entry).is_some() || tag_of(entry).is_some());
    platforms.len() > 1 && distinct.len() == platforms.len() && platforms.len() == images.count() && !named
}

/// `sha256-HEX`, with or without one of cosign's suffixes.
fn is_fallback_tag(tag: &Tag) -> bool {
    let text = tag.as_str();
    let text = [".sig", ".att", ".sbom"].into_iter().find_map(|ending| text.strip_suffix(ending)).unwrap_or(text);
    text.split_once('-').is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
}

/// The maximum size of a simple-signing payload, in bytes.
const MAX_PAYLOAD_BYTES: u64 = 1 << 20;

/// Returns the suffix of cosign's tag for an entry that `cosign save` lists without a tag: signatures, attestations or an SBOM.
/// `None` for every other entry.
fn cosign_ending(entry: &Descriptor) -> Option<&'static str> {
    match entry.annotations.get("kind")?.strip_prefix("dev.cosignproject.cosign/")? {
        "sigs" => Some(".sig"),
        "atts" => Some(".att"),
        "sboms" => Some(".sbom"),
        _ => None,
    }
}

/// Returns the entries that `cosign save` lists without a tag and that have this tag in a registry.
async fn saved_by_cosign<'a>(entries: &'a [Descriptor], place: &dyn Source, tag: &Tag) -> Result<Vec<&'a Descriptor>> {
    let is_tagged = |subject: &Digest, ending: &str| {
        tag.as_str() == format!("{}-{}{ending}", subject.algorithm().name(), subject.hex())
    };
    let saved = entries.iter().filter_map(|entry| Some((entry, cosign_ending(entry)?)));
    let saved: Vec<_> = saved.filter(|(_, ending)| tag.as_str().ends_with(ending)).collect();
    if saved.is_empty() {
        return Ok(Vec::new());
    }
    let images = independent(entries, place).await?.into_iter().filter(|entry| cosign_ending(entry).is_none());
    let images: HashSet<_> = images.map(|entry| entry.digest).collect();
    let only = images.iter().next().filter(|_| images.len() == 1);
    let mut found = Vec::new();
    for (entry, ending) in saved {
        let subject = payload_subject(entry, place).await?;
        if subject.as_ref().or(only).is_some_and(|subject| is_tagged(subject, ending)) {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Returns the digest that the first simple-signing payload of a manifest names; `None` if the payload is missing or damaged.
async fn payload_subject(entry: &Descriptor, place: &dyn Source) -> Result<Option<Digest>> {
    let Some(Document::Manifest(manifest)) = document_of(entry, place).await? else { return Ok(None) };
    let is_payload = |layer: &&Descriptor| {
        layer.media_type.as_str() == "application/vnd.dev.cosign.simplesigning.v1+json"
            && layer.size <= MAX_PAYLOAD_BYTES
    };
    let Some(layer) = manifest.layers().iter().find(is_payload) else { return Ok(None) };
    let bytes = match place.read(layer).await {
        Ok(bytes) => bytes,
        Err(Error::NotFound { .. } | Error::Mismatch { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let payload: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let digest = payload.as_ref().and_then(|payload| payload.pointer("/critical/image/docker-manifest-digest"));
    Ok(digest.and_then(|digest| digest.as_str()?.parse().ok()))
}

/// Returns the document of an entry; `None` if it is damaged, which is reported when it is opened.
async fn document_of(entry: &Descriptor, place: &dyn Source) -> Result<Option<Document>> {
    match place.content(entry).await {
        Ok(Content::Document(document)) => Ok(Some(document)),
        Ok(Content::Schema1 | Content::Blob) => Ok(None),
        Err(Error::NotFound { .. } | Error::Document { .. } | Error::Mismatch { .. } | Error::Unsupported { .. }) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Starts a walk at the roots that the function selects.
pub(crate) fn walk_below<'a>(
    roots: &Index,
    place: &'a dyn Source,
    is_selected: impl Fn(&Descriptor) -> bool,
) -> Result<Walk<'a>> {
    let mut walk = Walk::new(place, Limits::PLACE);
    let list = Path::list(INDEX_JSON, roots.digest());
    for (position, root) in roots.manifests().iter().enumerate().filter(|(_, root)| is_selected(root)) {
        walk.add(&list, Edge::Manifest(position), root)?;
    }
    Ok(walk)
}

/// Finds a document below the roots.
async fn search(roots: &Index, place: &dyn Source, digest: &Digest) -> Result<Descriptor> {
    let mut walk = walk_below(roots, place, may_be_index)?;
    let mut searched = 0;
    while let Some(node) = walk.next().await {
        searched += 1;
        if searched > MAX_DOCUMENTS {
            break;
        }
        let document = match node.found {
            Found::Content(Ok(Content::Document(document))) => document,
            Found::Content(Err(error)) if !error.is_not_found() => return Err(error),
            _ => continue,
        };
        for (edge, child) in children(&document) {
            if child.digest == *digest {
                return Ok(child.clone());
            }
            if matches!(edge, Edge::Manifest(_)) && may_be_index(child) && !walk.is_deepest(&node.path) {
                walk.add(&node.path, edge, child)?;
            }
        }
    }
    Err(Error::not_found(digest, place))
}

/// Returns whether an entry of an index may be another index.
fn may_be_index(entry: &Descriptor) -> bool {
    !entry.media_type.is_manifest() && !entry.media_type.is_blob()
}

#[cfg(test)]
mod tests {
    use ocikit_spec::MediaType;

    use super::*;

    fn root(content: &str) -> Descriptor {
        Descriptor::of(MediaType::OCI_MANIFEST, content.as_bytes())
    }

    fn naming(tag: Option<&str>, full: Option<&str>, replaces: Option<Digest>) -> Naming {
        Naming::default().tag(tag.map(|tag| tag.parse().unwrap())).full(full.map(str::to_owned)).replaces(replaces)
    }

    fn listed(roots: &Index) -> Vec<(Digest, Option<&str>, Option<&str>)> {
        let entries = roots.manifests().iter();
        entries
            .map(|entry| {
                let get = |key| entry.annotations.get(key);
                (entry.digest, get(annotations::REF_NAME), get(annotations::CONTAINERD_NAME))
            })
            .collect()
    }

    #[test]
    fn a_tag_moves_and_names_are_kept() {
        let (a, b) = (root("a"), root("b"));
        let empty = Index::of(&[]);
        let one = publish(&empty, &a, &naming(Some("1"), Some("example.com/x:1"), None)).unwrap();
        assert_eq!(listed(&one), [(a.digest, Some("1"), Some("example.com/x:1"))]);
        assert_eq!(publish(&one, &a, &naming(Some("1"), Some("example.com/x:1"), None)).unwrap().text(), one.text());
        assert_eq!(publish(&one, &a, &naming(None, None, None)).unwrap().text(), one.text());
        let two = publish(&one, &a, &naming(Some("2"), None, None)).unwrap();
        assert_eq!(listed(&two)[1], (a.digest, Some("2"), None));
        let moved = publish(&two, &b, &naming(Some("1"), None, None)).unwrap();
        assert_eq!(listed(&moved), [(a.digest, Some("2"), None), (b.digest, Some("1"), None)]);
    }

    #[test]
    fn two_full_names_may_share_a_tag() {
        let (a, b, c) = (root("a"), root("b"), root("c"));
        let roots = publish(&Index::of(&[]), &a, &naming(Some("1"), Some("example.com/a:1"), None)).unwrap();
        let roots = publish(&roots, &b, &naming(Some("1"), Some("example.com/b:1"), None)).unwrap();
        assert_eq!(roots.manifests().len(), 2);
        let moved = publish(&roots, &c, &naming(Some("1"), Some("example.com/a:1"), None)).unwrap();
        let names: Vec<_> = listed(&moved).into_iter().map(|(digest, _, full)| (digest, full)).collect();
        assert_eq!(names, [(b.digest, Some("example.com/b:1")), (c.digest, Some("example.com/a:1"))]);
        let plain = publish(&roots, &c, &naming(Some("1"), None, None)).unwrap();
        assert_eq!(plain.manifests().len(), 3);
    }

    #[test]
    fn replacement_keeps_annotations() {
        let (a, b) = (root("a"), root("b"));
        let roots = publish(&Index::of(&[]), &a, &naming(Some("1"), Some("example.com/x:1"), None)).unwrap();
        let roots = publish(&roots, &a, &naming(Some("2"), None, None)).unwrap();
        let all = publish(&roots, &b, &naming(None, None, Some(a.digest))).unwrap();
        assert_eq!(listed(&all), [(b.digest, Some("1"), Some("example.com/x:1")), (b.digest, Some("2"), None)]);
        let one = publish(&roots, &b, &naming(Some("2"), None, Some(a.digest))).unwrap();
        assert_eq!(listed(&one), [(a.digest, Some("1"), Some("example.com/x:1")), (b.digest, Some("2"), None)]);
    }

    #[test]
    fn a_root_without_a_new_name_keeps_its_own() {
        let mut a = root("a");
        a.annotations.insert(annotations::REF_NAME, "1");
        let roots = publish(&Index::of(&[]), &a, &naming(None, None, None)).unwrap();
        assert_eq!(listed(&roots), [(a.digest, Some("1"), None)]);
        let renamed = publish(&Index::of(&[]), &a, &naming(Some("2"), None, None)).unwrap();
        assert_eq!(listed(&renamed), [(a.digest, Some("2"), None)]);
    }

    #[test]
    fn a_tag_that_a_root_brings_moves_as_well() {
        let (mut a, mut b) = (root("a"), root("b"));
        for root in [&mut a, &mut b] {
            root.annotations.insert(annotations::REF_NAME, "1");
        }
        let roots = publish(&Index::of(&[]), &a, &Naming::default()).unwrap();
        let roots = publish(&roots, &b, &Naming::default()).unwrap();
        assert_eq!(listed(&roots), [(b.digest, Some("1"), None)]);
    }

    #[test]
    fn names_of_all_writers_are_understood() {
        for (name, tag, full) in [
            ("1", "1", None),
            ("docker.io/acme/app:1", "1", Some("acme/app:1")),
            ("example.com:5000/app:1", "1", Some("example.com:5000/app:1")),
        ] {
            let mut entry = root("a");
            entry.annotations.insert(annotations::REF_NAME, name);
            assert!(has_tag(&entry, &tag.parse().unwrap()), "{name}");
            assert!(full.is_none_or(|full| has_full_name(&entry, full)), "{name}");
        }
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (tag, fallback) in [
            (format!("sha256-{hex}"), true),
            (format!("sha256-{hex}.sig"), true),
            (format!("sha256-{hex}.x"), false),
            ("sha256-12".to_owned(), false),
            ("latest".to_owned(), false),
        ] {
            assert_eq!(is_fallback_tag(&tag.parse().unwrap()), fallback, "{tag}");
        }
    }
}
