use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Content, Descriptor, Digest, Document, MAX_DOCUMENT_SIZE, Repository};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::referrer_tag::ReferrerTag;
use crate::source::{ByteRange, Name, Source, SourceExt};

/// New documents over the contents of several sources: the source of an index with manifests from several places, and
/// of an artifact with files from several places.
///
/// Unlike an [`Overlay`](crate::overlay::Overlay) it knows the source of each digest, so that no source is asked in
/// vain. The sources of the children of a document are known once it was read, which a walk does first.
#[derive(Debug)]
pub(crate) struct Combined {
    documents: HashMap<Digest, Bytes>,
    /// The first one is for messages, and for digests without a known owner.
    sources: Vec<Arc<dyn Source>>,
    /// The position of the source that has a digest.
    owners: RwLock<HashMap<Digest, usize>>,
}

impl Combined {
    /// Creates a source of new documents, and of blobs and documents that other sources own. Other digests are read from
    /// the base.
    pub(crate) fn new(
        documents: HashMap<Digest, Bytes>,
        base: Arc<dyn Source>,
        owned: impl IntoIterator<Item = (Digest, Arc<dyn Source>)>,
    ) -> Combined {
        let mut sources = vec![base];
        let mut positions = HashMap::from([(address(&sources[0]), 0)]);
        let mut owners = HashMap::new();
        for (digest, source) in owned {
            let position = *positions.entry(address(&source)).or_insert_with(|| {
                sources.push(source);
                sources.len() - 1
            });
            owners.entry(digest).or_insert(position);
        }
        Combined { documents, sources, owners: RwLock::new(owners) }
    }

    fn position(&self, digest: &Digest) -> usize {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        owners.get(digest).copied().unwrap_or(0)
    }

    fn owner(&self, digest: &Digest) -> &Arc<dyn Source> {
        &self.sources[self.position(digest)]
    }

    /// Records the source of the children of a document; the first source of a digest counts.
    fn learn(&self, document: &Document, owner: usize) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        for child in document.children() {
            owners.entry(child.digest).or_insert(owner);
        }
    }
}

/// Returns the address of a source, which identifies it as long as it exists.
fn address(source: &Arc<dyn Source>) -> usize {
    Arc::as_ptr(source).cast::<()>().addr()
}

impl fmt::Display for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.sources[0], f)
    }
}

#[async_trait]
impl Source for Combined {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        match name {
            // A fallback tag such as `sha256-HEX.sig` is where its subject is.
            Name::Tag(tag) => match ReferrerTag::subject(tag) {
                Some(subject) if !self.documents.contains_key(&subject) => self.owner(&subject).resolve(name).await,
                _ => Err(Error::not_found(name, self)),
            },
            Name::Digest(digest) => match self.documents.get(digest).cloned().map(Document::sniff) {
                Some(Ok((media_type, document))) => Ok(Descriptor::of(media_type, document.bytes())),
                _ => self.owner(digest).resolve(name).await,
            },
            Name::Only | Name::Full(_) => Err(Error::not_found(name, self)),
        }
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        match self.documents.get(&descriptor.digest) {
            Some(bytes) => Ok(range.of(bytes).into()),
            None => self.owner(&descriptor.digest).open_unverified(descriptor, range).await,
        }
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if let Some(bytes) = self.documents.get(&descriptor.digest) {
            return Ok(range.of(bytes).into());
        }
        let position = self.position(&descriptor.digest);
        let owner = &self.sources[position];
        let may_have_children = !descriptor.media_type.is_blob() && descriptor.size <= MAX_DOCUMENT_SIZE;
        if range != ByteRange::ALL || !may_have_children {
            return owner.open_small(descriptor, range).await;
        }
        let bytes = owner.read(descriptor).await?;
        // What cannot be parsed has no children, and the reader refuses it.
        if let Ok(Content::Document(document)) = Content::of(&descriptor.media_type, bytes.clone()) {
            self.learn(&document, position);
        }
        Ok(bytes.into())
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        match self.documents.contains_key(&descriptor.digest) {
            true => Ok(true),
            false => self.owner(&descriptor.digest).has(descriptor).await,
        }
    }

    fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.documents.get(digest).cloned().or_else(|| self.owner(digest).held(digest))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self.documents.contains_key(subject) {
            true => Ok(Vec::new()),
            false => self.owner(subject).referrers(subject).await,
        }
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        match self.documents.contains_key(&descriptor.digest) {
            true => None,
            false => self.owner(&descriptor.digest).repository(descriptor),
        }
    }
}
