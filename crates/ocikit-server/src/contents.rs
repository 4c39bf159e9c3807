use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use ocikit_image::{Body, ByteRange, Error, Name, Naming, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, Repository};

use crate::name::RepositoryName;
use crate::page::Page;
use crate::route::ManifestReference;
use crate::rules::Children;
use crate::storage::{ManifestEntry, NewManifest, Refused, Store, Writer};

/// Direct access to a repository of a running server, without the protocol.
///
/// A test fills a registry with it, or inspects the result of a push without relying on the client under test. Nothing
/// is logged, no faults are injected, and a document may reference missing content.
#[derive(Debug)]
pub struct Contents {
    store: Arc<Store>,
    name: RepositoryName,
    repository: Repository,
}

impl Contents {
    pub(crate) fn new(store: Arc<Store>, name: RepositoryName, repository: Repository) -> Contents {
        Contents { store, name, repository }
    }

    fn found(&self, reference: &ManifestReference) -> Option<Descriptor> {
        let (digest, entry) = self.store.manifest(&self.name, reference)?;
        Some(Descriptor::new(entry.media_type, digest, entry.size))
    }

    /// Returns the size of a manifest or blob.
    fn size(&self, digest: &Digest) -> Option<u64> {
        let manifest = self.found(&ManifestReference::Digest(*digest)).map(|found| found.size);
        manifest.or_else(|| self.store.blob(&self.name, digest))
    }

    fn only(&self) -> Result<Descriptor> {
        let (tags, _) = self.store.tags(&self.name, &Page::default(), usize::MAX).unwrap_or_default();
        let mut roots: Vec<_> =
            tags.iter().filter_map(|tag| self.found(&ManifestReference::Tag(tag.clone()))).collect();
        roots.sort_by_key(|root| root.digest);
        roots.dedup_by_key(|root| root.digest);
        match (roots.pop(), roots.is_empty()) {
            (Some(root), true) => Ok(root),
            (None, _) => Err(Error::not_found(Name::Only, self)),
            (Some(_), false) => {
                let choices = tags.iter().map(ToString::to_string).collect();
                Err(Error::Ambiguous { place: self.to_string(), choices })
            }
        }
    }

    async fn put_document(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<()> {
        let bytes = from.open(descriptor).await?.bytes().await?;
        let media_type = descriptor.media_type.clone();
        // A document that cannot be parsed is stored as it is, for tests of clients.
        let document = Document::parse(&media_type, bytes.clone()).ok();
        let entry = ManifestEntry::of(media_type, &bytes, document.as_ref());
        let manifest = NewManifest {
            bytes,
            digest: descriptor.digest,
            entry,
            children: document.map(|document| (document, Children::Any)),
            tags: Vec::new(),
            condition: None,
        };
        self.store.put_manifest(self.name.clone(), manifest).await.map_err(|refused| self.failed(refused))
    }

    async fn put_blob(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<()> {
        let mut body = from.open(descriptor).await?;
        let mut draft = self.store.draft(None);
        draft.expect(descriptor.digest.algorithm());
        let mut writer = Writer::new(draft);
        while let Some(bytes) = body.next().await.transpose()? {
            writer.push(bytes).await.map_err(|error| self.failed(error.into()))?;
        }
        let draft = writer.finish().await.map_err(|error| self.failed(error.into()))?;
        let put = self.store.put_blob(self.name.clone(), draft, descriptor.digest);
        put.await.map_err(|refused| self.failed(refused))
    }

    fn failed(&self, refused: Refused) -> Error {
        let source = match refused {
            Refused::Failed(error) => error,
            // The digest has been verified before, and no children or conditions are checked.
            Refused::Digest(_) | Refused::Missing(_) | Refused::Changed => io::ErrorKind::InvalidData.into(),
        };
        Error::failed("write", self, source)
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.repository, f)
    }
}

#[async_trait]
impl Source for Contents {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let reference = match name {
            Name::Only => return self.only(),
            Name::Tag(tag) => Some(ManifestReference::Tag(tag.clone())),
            Name::Digest(digest) => Some(ManifestReference::Digest(*digest)),
            Name::Full(_) => None,
        };
        reference.and_then(|reference| self.found(&reference)).ok_or_else(|| Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let digest = descriptor.digest;
        let size = self.size(&digest).ok_or_else(|| Error::not_found(digest, self))?;
        let place = self.to_string();
        let reader = self.store.reader(digest).await.map_err(|source| Error::failed("open", &place, source))?;
        let (offset, length) = range.within(size);
        let chunks = reader.stream(offset..offset + length);
        Ok(Body::new(length, chunks.map(move |chunk| chunk.map_err(|source| Error::failed("read", &place, source)))))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(match descriptor.media_type.is_document() {
            true => self.found(&ManifestReference::Digest(descriptor.digest)).is_some(),
            false => self.store.blob(&self.name, &descriptor.digest).is_some(),
        })
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.store.referrers(&self.name, subject))
    }

    fn repository(&self, _descriptor: &Descriptor) -> Option<&Repository> {
        Some(&self.repository)
    }
}

#[async_trait]
impl Sink for Contents {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        if self.has(descriptor).await? {
            return Ok(Put::Present);
        }
        match descriptor.media_type.is_document() {
            true => self.put_document(descriptor, from).await?,
            false => self.put_blob(descriptor, from).await?,
        }
        Ok(Put::Copied)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let Some(tag) = naming.tag.clone() else { return Ok(()) };
        match self.store.tag(self.name.clone(), tag, root.digest).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_found(root.digest, self)),
            Err(source) => Err(Error::failed("tag", self, source)),
        }
    }
}
