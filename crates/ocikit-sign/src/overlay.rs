//! A source that serves new documents from memory and everything else from the location of the subject.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::{Body, ByteRange, Memory, Name, Result, Source};
use ocikit_spec::{Descriptor, Digest, Repository};

/// Documents and blobs in memory, layered over a location.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) made: Arc<Memory>,
    pub(crate) place: Arc<dyn Source>,
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.place, f)
    }
}

#[async_trait]
impl Source for Overlay {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.place.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        match self.made.open_unverified(descriptor, range).await {
            Err(error) if error.is_not_found() => self.place.open_unverified(descriptor, range).await,
            opened => opened,
        }
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        match self.made.open_small(descriptor, range).await {
            Err(error) if error.is_not_found() => self.place.open_small(descriptor, range).await,
            opened => opened,
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.made.has(descriptor).await? || self.place.has(descriptor).await?)
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.place.referrers(subject).await
    }

    fn repository(&self, _descriptor: &Descriptor) -> Option<&Repository> {
        // New blobs are in no repository, and all others already exist at the target.
        None
    }
}
