//! What was just made, and everything that is at the place of its subject.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::{Body, ByteRange, Memory, Name, Result, Source};
use ocikit_spec::{Descriptor, Digest, Repository};

/// New documents and blobs in memory before a place.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) made: Arc<Memory>,
    pub(crate) place: Arc<dyn Source>,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.place, f)
    }
}

#[async_trait]
impl Source for Beside {
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
        // What was made is in no repository, and what was not is at the target already.
        None
    }
}
