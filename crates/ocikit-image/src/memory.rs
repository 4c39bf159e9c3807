use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Content, Descriptor, Digest, Document, MAX_DOCUMENT_BYTES, Repository, Tag};

use crate::blob_file::BlobFile;
use crate::body::Body;
use crate::error::{Error, Result};
use crate::referrer_tag::ReferrerTag;
use crate::root::Layer;
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source, SourceExt};

/// Images in memory: for generated documents, for tests, and as the simplest implementation of [`Sink`].
///
/// A memory can lie over other sources. Then it is one source for new documents, local files, and everything that other
/// places already have: a copy from it reads each blob where it is, and a registry still mounts blobs of the base. It
/// knows the source of each blob that was added by its digest, so that no other source is asked in vain, and learns that
/// of the children of a document when the document is read, which a walk does first.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use ocikit_image::{Memory, Source, SourceExt, testing};
/// use ocikit_spec::{Descriptor, MediaType};
///
/// let base = Arc::new(Memory::new());
/// let image = testing::image(&base, 1, &"linux/amd64".parse()?, &[1000]);
///
/// let memory = Memory::over(base).with_bytes(&b"new"[..]);
/// let new = Descriptor::of(MediaType::OCTET_STREAM, b"new");
/// assert_eq!(memory.read(&new).await?, "new");
/// assert!(memory.has(&image).await?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct Memory {
    contents: RwLock<Contents>,
    /// The sources of blobs that were added by their digest.
    parts: Vec<Arc<dyn Source>>,
    /// The position in `parts` of the source that has a digest.
    owners: RwLock<HashMap<Digest, usize>>,
    /// Sources of unknown content, which are asked before the base.
    others: Vec<Arc<dyn Source>>,
    base: Option<Arc<dyn Source>>,
}

#[derive(Debug, Default)]
struct Contents {
    blobs: HashMap<Digest, Bytes>,
    roots: Vec<(Descriptor, Option<Tag>)>,
}

impl Contents {
    /// Returns whether a root has a subject that is also stored here.
    fn is_referrer(&self, root: &Descriptor) -> bool {
        let document = self.blobs.get(&root.digest).cloned().and_then(|bytes| Document::sniff(bytes).ok());
        let subject = document.as_ref().and_then(|(_, document)| document.subject());
        subject.is_some_and(|subject| self.blobs.contains_key(&subject.digest))
    }
}

impl Memory {
    /// Creates an empty memory.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Creates a memory over another source. Names and blobs that the memory does not have are those of the base. What is
    /// put into the memory stays there; the base is never changed.
    pub fn over(base: Arc<dyn Source>) -> Memory {
        Memory { base: Some(base), ..Memory::default() }
    }

    /// Returns the memory with these bytes, as a blob or document with a SHA-256 digest.
    #[must_use]
    pub fn with_bytes(self, bytes: impl Into<Bytes>) -> Memory {
        self.insert(bytes);
        self
    }

    /// Returns the memory with these bytes under a digest that was computed from them.
    #[must_use]
    pub(crate) fn with_document(self, digest: Digest, bytes: Bytes) -> Memory {
        self.write().blobs.insert(digest, bytes);
        self
    }

    /// Returns the memory with a local file as a blob. The file stays where it is and is read when the blob is.
    #[must_use]
    pub fn with_file(self, file: &BlobFile) -> Memory {
        self.with_part(file.descriptor().digest, Arc::new(file.clone()))
    }

    /// Returns the memory with a layer of any source. The layer stays where it is.
    #[must_use]
    pub fn with_layer(self, layer: &Layer) -> Memory {
        self.with_part(layer.digest(), layer.source().clone())
    }

    /// Returns the memory with a blob or document of another source, and everything below it.
    #[must_use]
    pub fn with_part(self, digest: Digest, source: Arc<dyn Source>) -> Memory {
        self.with_parts([(digest, source)])
    }

    /// Returns the memory with blobs and documents of other sources, and everything below them. The first source of a
    /// digest counts.
    #[must_use]
    pub fn with_parts(mut self, parts: impl IntoIterator<Item = (Digest, Arc<dyn Source>)>) -> Memory {
        let positions = self.parts.iter().enumerate();
        let mut positions: HashMap<_, _> = positions.map(|(position, source)| (address(source), position)).collect();
        let owners = self.owners.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (digest, source) in parts {
            let position = *positions.entry(address(&source)).or_insert_with(|| {
                self.parts.push(source);
                self.parts.len() - 1
            });
            owners.entry(digest).or_insert(position);
        }
        self
    }

    /// Returns the memory over one more source, which is asked for blobs before the base. Its names are not looked up.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Source>) -> Memory {
        let is_base = self.base.as_ref().is_some_and(|base| Arc::ptr_eq(base, &source));
        // An index may list one manifest any number of times; each further source would cost one more lookup.
        if !is_base && self.others.iter().all(|known| !Arc::ptr_eq(known, &source)) {
            self.others.push(source);
        }
        self
    }

    /// Stores these bytes and returns their digest.
    pub fn insert(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256_of(&bytes);
        self.write().blobs.insert(digest, bytes);
        digest
    }

    /// Returns the source that was added with a digest.
    fn owner(&self, digest: &Digest) -> Option<&Arc<dyn Source>> {
        self.position(digest).and_then(|position| self.parts.get(position))
    }

    fn position(&self, digest: &Digest) -> Option<usize> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).get(digest).copied()
    }

    /// Returns the sources that may have a blob which is not in memory, in the order in which they are asked.
    fn sources(&self, digest: &Digest) -> impl Iterator<Item = &Arc<dyn Source>> {
        self.owner(digest).into_iter().chain(&self.others).chain(&self.base)
    }

    /// Records the source of the children of a document; the first source of a digest counts.
    fn learn(&self, document: &Document, owner: usize) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        for child in document.children() {
            owners.entry(child.digest).or_insert(owner);
        }
    }

    /// Opens bytes in memory, or those of the first source that has them.
    async fn open_held(&self, descriptor: &Descriptor, range: ByteRange, is_small: bool) -> Result<Body> {
        if let Some(bytes) = self.held(&descriptor.digest) {
            return Ok(range.of(&bytes).into());
        }
        let mut missing = None;
        for source in self.sources(&descriptor.digest) {
            let opened = match is_small {
                true => source.open_small(descriptor, range).await,
                false => source.open_unverified(descriptor, range).await,
            };
            match opened {
                Err(error) if error.is_not_found() => missing = Some(error),
                opened => return opened,
            }
        }
        Err(missing.unwrap_or_else(|| Error::not_found(descriptor.digest, self)))
    }

    /// Reads a document from the source that was added with it; `None` if it has no such source or can have no
    /// children.
    async fn read_part(&self, descriptor: &Descriptor, range: ByteRange) -> Option<Result<Body>> {
        let position = self.position(&descriptor.digest)?;
        let may_have_children = !descriptor.media_type.is_blob() && descriptor.size <= MAX_DOCUMENT_BYTES;
        if range != ByteRange::ALL || !may_have_children {
            return None;
        }
        let read = self.parts[position].read(descriptor).await;
        // What cannot be parsed has no children, and the reader refuses it.
        if let Ok(bytes) = &read
            && let Ok(Content::Document(document)) = Content::of(&descriptor.media_type, bytes.clone())
        {
            self.learn(&document, position);
        }
        Some(read.map(Body::from))
    }

    /// Returns bytes that the source of a digest holds in memory.
    fn held_part(&self, digest: &Digest) -> Option<Bytes> {
        let position = self.position(digest)?;
        let bytes = self.parts[position].held(digest)?;
        if bytes.len() as u64 <= MAX_DOCUMENT_BYTES
            && let Ok((_, document)) = Document::sniff(bytes.clone())
        {
            self.learn(&document, position);
        }
        Some(bytes)
    }

    /// Returns the source of a subject: that which was added with it, or the base.
    fn place_of(&self, subject: &Digest) -> Option<&Arc<dyn Source>> {
        self.owner(subject).or(self.base.as_ref())
    }

    /// Returns all bytes that the memory itself holds, in any order.
    #[cfg(feature = "testing")]
    pub(crate) fn blobs(&self) -> Vec<Bytes> {
        self.read_lock().blobs.values().cloned().collect()
    }

    fn own(&self, digest: &Digest) -> Option<Bytes> {
        self.read_lock().blobs.get(digest).cloned()
    }

    fn resolve_own(&self, name: &Name) -> Result<Descriptor> {
        let contents = self.read_lock();
        let roots = contents.roots.iter();
        let found: Vec<_> = match name {
            Name::Only => roots.filter(|(root, _)| !contents.is_referrer(root)).collect(),
            Name::Tag(tag) => roots.filter(|(_, named)| named.as_ref() == Some(tag)).collect(),
            Name::Digest(digest) => roots.filter(|(root, _)| root.digest == *digest).take(1).collect(),
            Name::Full(_) => Vec::new(),
        };
        match (&found[..], name) {
            ([(root, _)], _) => Ok(root.clone()),
            ([_, _, ..], _) => {
                let named = |(root, tag): &&(Descriptor, Option<Tag>)| {
                    tag.as_ref().map_or(root.digest.to_string(), ToString::to_string)
                };
                Err(Error::Ambiguous { place: self.to_string(), choices: found.iter().map(named).collect() })
            }
            ([], Name::Digest(digest)) => match contents.blobs.get(digest).cloned().map(Document::sniff) {
                Some(Ok((media_type, document))) => Ok(Descriptor::of(media_type, document.bytes())),
                _ => Err(Error::not_found(name, self)),
            },
            ([], _) => Err(Error::not_found(name, self)),
        }
    }

    /// Returns the documents in memory with this subject.
    fn own_referrers(&self, subject: &Digest) -> Vec<Descriptor> {
        let blobs: Vec<_> = self.read_lock().blobs.values().cloned().collect();
        let documents = blobs.into_iter().filter_map(|bytes| Document::sniff(bytes).ok());
        documents
            .filter(|(_, document)| document.subject().is_some_and(|found| found.digest == *subject))
            .map(|(media_type, document)| Descriptor::of(media_type, document.bytes()))
            .collect()
    }

    fn read_lock(&self) -> std::sync::RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the address of a source, which identifies it as long as it exists.
fn address(source: &Arc<dyn Source>) -> usize {
    Arc::as_ptr(source).cast::<()>().addr()
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            Some(base) => fmt::Display::fmt(base, f),
            None => f.write_str("memory"),
        }
    }
}

#[async_trait]
impl Source for Memory {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let below = match name {
            Name::Digest(digest) => self.place_of(digest),
            // A fallback tag such as `sha256-HEX.sig` is where its subject is.
            Name::Tag(tag) => ReferrerTag::subject(tag).and_then(|subject| self.owner(&subject)).or(self.base.as_ref()),
            Name::Only | Name::Full(_) => self.base.as_ref(),
        };
        match (self.resolve_own(name), below) {
            (Err(error), Some(below)) if error.is_not_found() => below.resolve(name).await,
            (resolved, _) => resolved,
        }
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.open_held(descriptor, range, false).await
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if let Some(bytes) = self.own(&descriptor.digest) {
            return Ok(range.of(&bytes).into());
        }
        // Before the bytes that an added source holds: reading it here tells where its children are.
        match self.read_part(descriptor, range).await {
            None => {}
            Some(Err(error)) if error.is_not_found() => {}
            Some(read) => return read,
        }
        self.open_held(descriptor, range, true).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        if self.held(&descriptor.digest).is_some() {
            return Ok(true);
        }
        for source in self.sources(&descriptor.digest) {
            if source.has(descriptor).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns bytes in memory, also those of an added source: edited entries have the same base, which would be asked
    /// for the documents of the other entries in vain.
    fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.own(digest)
            .or_else(|| self.held_part(digest))
            .or_else(|| self.others.iter().find_map(|source| source.held(digest)))
    }

    /// A document over other sources is new; the images of a memory by itself are not.
    fn is_new(&self, digest: &Digest) -> bool {
        let is_over_another = self.base.is_some() || !self.parts.is_empty();
        match self.own(digest) {
            Some(_) => is_over_another,
            None => self.owner(digest).into_iter().chain(&self.others).any(|source| source.is_new(digest)),
        }
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut found = self.own_referrers(subject);
        found.sort_by_key(|descriptor| descriptor.digest);
        if let Some(place) = self.place_of(subject) {
            let known: HashSet<_> = found.iter().map(|descriptor| descriptor.digest).collect();
            let listed = place.referrers(subject).await?;
            found.extend(listed.into_iter().filter(|descriptor| !known.contains(&descriptor.digest)));
        }
        Ok(found)
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        // Mounting a blob that the base does not have costs a request in vain.
        if self.held(&descriptor.digest).is_some() {
            return None;
        }
        match self.owner(&descriptor.digest) {
            Some(source) => source.repository(descriptor),
            None => self.others.iter().chain(&self.base).find_map(|source| source.repository(descriptor)),
        }
    }
}

#[async_trait]
impl Sink for Memory {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        if self.has(descriptor).await? {
            return Ok(Put::Present);
        }
        let bytes = from.open(descriptor).await?.bytes().await?;
        self.write().blobs.insert(descriptor.digest, bytes);
        Ok(Put::Copied)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let roots = &mut self.write().roots;
        let same = |(listed, tag): &(Descriptor, Option<Tag>)| match (&naming.tag, naming.replaces) {
            (Some(wanted), _) => tag.as_ref() == Some(wanted),
            (None, Some(replaced)) => listed.digest == replaced,
            (None, None) => listed.digest == root.digest && tag.is_none(),
        };
        let mut found = false;
        for listed in roots.iter_mut().filter(|listed| same(listed)) {
            listed.0 = root.clone();
            found = true;
        }
        if !found {
            roots.push((root.clone(), naming.tag.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ocikit_spec::MediaType;

    use super::*;

    /// A repository with one blob.
    #[derive(Debug)]
    struct Remote(Repository, Memory);

    impl fmt::Display for Remote {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(&self.0, f)
        }
    }

    #[async_trait]
    impl Source for Remote {
        async fn resolve(&self, name: &Name) -> Result<Descriptor> {
            self.1.resolve(name).await
        }

        async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
            self.1.open_unverified(descriptor, range).await
        }

        async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
            self.1.has(descriptor).await
        }

        async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
            self.1.referrers(subject).await
        }

        fn repository(&self, _: &Descriptor) -> Option<&Repository> {
            Some(&self.0)
        }
    }

    fn blob(bytes: &[u8]) -> Descriptor {
        Descriptor::of(MediaType::OCTET_STREAM, bytes)
    }

    fn remote(blobs: &[&'static str]) -> Arc<Remote> {
        let memory = blobs.iter().fold(Memory::new(), |memory, bytes| memory.with_bytes(*bytes));
        Arc::new(Remote("localhost:5000/base".parse().unwrap(), memory))
    }

    #[tokio::test]
    async fn new_bytes_files_and_a_base_are_one_source() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"file").unwrap();
        let file = BlobFile::open(directory.path().join("file")).await.unwrap();
        let layer = Layer::at(Arc::new(Memory::new().with_bytes("layer")), blob(b"layer"));
        let memory = Memory::over(remote(&["base"])).with_bytes("bytes").with_file(&file).with_layer(&layer);
        for text in ["base", "bytes", "file", "layer"] {
            assert_eq!(memory.read(&blob(text.as_bytes())).await.unwrap(), text);
            assert!(memory.has(&blob(text.as_bytes())).await.unwrap(), "{text}");
        }
        assert!(memory.open(&blob(b"gone")).await.unwrap_err().is_not_found());
        assert!(!memory.has(&blob(b"gone")).await.unwrap());
        assert_eq!(memory.to_string(), "localhost:5000/base");
    }

    #[tokio::test]
    async fn only_blobs_of_the_base_are_mounted_from_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"file").unwrap();
        let file = BlobFile::open(directory.path().join("file")).await.unwrap();
        let other = Layer::at(remote(&["layer"]), blob(b"layer"));
        let memory = Memory::over(remote(&["base"])).with_bytes("bytes").with_file(&file).with_layer(&other);
        for (text, mounted) in [("base", true), ("layer", true), ("bytes", false), ("file", false)] {
            assert_eq!(memory.repository(&blob(text.as_bytes())).is_some(), mounted, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_put_stays_in_memory() {
        let base = Arc::new(Memory::new().with_bytes("base"));
        let memory = Memory::over(base.clone());
        assert_eq!(memory.put(&blob(b"base"), &*base).await.unwrap(), Put::Present);
        assert_eq!(memory.put(&blob(b"new"), &Memory::new().with_bytes("new")).await.unwrap(), Put::Copied);
        assert!(!base.has(&blob(b"new")).await.unwrap());
        let tag: Tag = "1".parse().unwrap();
        memory.publish(&blob(b"new"), &Naming::of_tag(tag.clone())).await.unwrap();
        assert_eq!(memory.resolve(&Name::Tag(tag.clone())).await.unwrap().digest, blob(b"new").digest);
        assert!(base.resolve(&Name::Tag(tag)).await.unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn names_and_referrers_of_the_base_are_found() {
        let tag: Tag = "1".parse().unwrap();
        let subject = blob(b"subject");
        let referrer = |note: &str| {
            let subject = serde_json::to_value(&subject).unwrap();
            serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": blob(b"{}"),
                "layers": [], "subject": subject, "annotations": {"note": note}})
            .to_string()
        };
        let base = Arc::new(Memory::new().with_bytes(referrer("base")));
        base.publish(&subject, &Naming::of_tag(tag.clone())).await.unwrap();
        let memory = Memory::over(base).with_bytes(referrer("new")).with_bytes(referrer("base"));
        assert_eq!(memory.resolve(&Name::Tag(tag)).await.unwrap(), subject);
        let mut found: Vec<_> = memory.referrers(&subject.digest).await.unwrap();
        found.sort_by_key(|found| found.size);
        let wanted: Vec<_> = ["new", "base"].map(|note| blob(referrer(note).as_bytes()).digest).into();
        assert_eq!(found.iter().map(|found| found.digest).collect::<Vec<_>>(), wanted);
    }
}
