use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Descriptor, Digest, Repository};

use crate::body::Body;
use crate::error::Result;
use crate::source::{ByteRange, Name, Source};

/// New documents and blobs on top of other sources: the source of an edited root.
#[derive(Debug)]
pub(crate) struct Overlay {
    documents: HashMap<Digest, Bytes>,
    /// The only source of each of these documents and blobs.
    placed: HashMap<Digest, Arc<dyn Source>>,
    base: Arc<dyn Source>,
    /// The sources of replaced entries, which may be overlays themselves.
    added: Vec<Arc<dyn Source>>,
    /// The digests that the added sources have; any if `None`.
    held: Option<HashSet<Digest>>,
}

impl Overlay {
    pub(crate) fn new(
        documents: HashMap<Digest, Bytes>,
        base: Arc<dyn Source>,
        added: impl IntoIterator<Item = Arc<dyn Source>>,
    ) -> Overlay {
        let mut distinct: Vec<Arc<dyn Source>> = Vec::new();
        for source in added {
            // An index may list one manifest any number of times; each further source would cost one more lookup.
            if !Arc::ptr_eq(&source, &base) && distinct.iter().all(|known| !Arc::ptr_eq(known, &source)) {
                distinct.push(source);
            }
        }
        Overlay { documents, placed: HashMap::new(), base, added: distinct, held: None }
    }

    /// Returns an overlay that takes each of these documents and blobs from its source and never looks for them anywhere
    /// else.
    pub(crate) fn placing(self, placed: HashMap<Digest, Arc<dyn Source>>) -> Overlay {
        Overlay { placed, ..self }
    }

    /// Returns an overlay that takes only these digests from the added sources, so that no lookup fails first.
    pub(crate) fn holding(self, held: HashSet<Digest>) -> Overlay {
        Overlay { held: Some(held), ..self }
    }

    /// Returns the added sources that may have a blob.
    fn added(&self, blob: &Descriptor) -> impl Iterator<Item = &Arc<dyn Source>> {
        let may_have = self.held.as_ref().is_none_or(|held| held.contains(&blob.digest));
        self.added.iter().filter(move |_| may_have)
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.base, f)
    }
}

#[async_trait]
impl Source for Overlay {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.base.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if let Some(bytes) = self.held(&descriptor.digest) {
            return Ok(range.of(&bytes).into());
        }
        if let Some(source) = self.placed.get(&descriptor.digest) {
            return source.open_unverified(descriptor, range).await;
        }
        for source in self.added(descriptor) {
            match source.open_unverified(descriptor, range).await {
                Err(error) if error.is_not_found() => {}
                opened => return opened,
            }
        }
        self.base.open_unverified(descriptor, range).await
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if let Some(bytes) = self.held(&descriptor.digest) {
            return Ok(range.of(&bytes).into());
        }
        if let Some(source) = self.placed.get(&descriptor.digest) {
            return source.open_small(descriptor, range).await;
        }
        for source in self.added(descriptor) {
            match source.open_small(descriptor, range).await {
                Err(error) if error.is_not_found() => {}
                opened => return opened,
            }
        }
        self.base.open_small(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        if self.held(&descriptor.digest).is_some() {
            return Ok(true);
        }
        if let Some(source) = self.placed.get(&descriptor.digest) {
            return source.has(descriptor).await;
        }
        for source in self.added(descriptor) {
            if source.has(descriptor).await? {
                return Ok(true);
            }
        }
        self.base.has(descriptor).await
    }

    /// Returns a new document, also one of a replaced entry: those entries have the same base, which would be asked for
    /// the documents of the other entries in vain.
    fn held(&self, digest: &Digest) -> Option<Bytes> {
        let own = self.documents.get(digest).cloned();
        let own = own.or_else(|| self.placed.get(digest)?.held(digest));
        own.or_else(|| self.added.iter().find_map(|source| source.held(digest)))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.base.referrers(subject).await
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        if self.documents.contains_key(&descriptor.digest) {
            return None;
        }
        if let Some(source) = self.placed.get(&descriptor.digest) {
            return source.repository(descriptor);
        }
        self.added(descriptor)
            .find_map(|source| source.repository(descriptor))
            .or_else(|| self.base.repository(descriptor))
    }
}
