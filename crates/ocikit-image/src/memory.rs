use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Descriptor, Digest, Document, Tag};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source, SourceExt};

/// Images in memory: for tests, for generated documents, and as the simplest implementation of [`Sink`].
#[derive(Debug, Default)]
pub struct Memory(RwLock<Contents>);

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

    /// Stores these bytes and returns their digest.
    pub fn insert(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256_of(&bytes);
        self.write().blobs.insert(digest, bytes);
        digest
    }

    fn read_lock(&self) -> std::sync::RwLockReadGuard<'_, Contents> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Contents> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl Source for Memory {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
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

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let bytes = self.read_lock().blobs.get(&descriptor.digest).cloned();
        let bytes = bytes.ok_or_else(|| Error::not_found(descriptor.digest, self))?;
        Ok(range.of(&bytes).into())
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.read_lock().blobs.contains_key(&descriptor.digest))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let blobs = self.read_lock().blobs.clone();
        let mut found: Vec<_> = blobs
            .into_values()
            .filter_map(|bytes| Document::sniff(bytes).ok())
            .filter(|(_, document)| document.subject().is_some_and(|found| found.digest == *subject))
            .map(|(media_type, document)| Descriptor::of(media_type, document.bytes()))
            .collect();
        found.sort_by_key(|descriptor| descriptor.digest);
        Ok(found)
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
