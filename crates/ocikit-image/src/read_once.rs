use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::TryStreamExt;
use ocikit_spec::{Descriptor, Digest};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::source::{ByteRange, Name, Source};

/// A source of one blob that can be read once, from its start, such as a part of a pipe.
#[derive(Debug)]
pub struct ReadOnce {
    place: String,
    digest: Digest,
    /// `None` after it was opened.
    body: Mutex<Option<Body>>,
}

impl ReadOnce {
    /// Returns the source of a blob; the place is for messages.
    pub fn new(place: impl Into<String>, digest: Digest, body: Body) -> ReadOnce {
        ReadOnce { place: place.into(), digest, body: Mutex::new(Some(body)) }
    }

    /// Returns the source of a blob that was read already.
    pub(crate) fn read(place: String, digest: Digest) -> ReadOnce {
        ReadOnce { place, digest, body: Mutex::new(None) }
    }

    /// Reads the blob to its end if it was not opened, so that what follows it can be read.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    pub async fn skip(&self) -> Result<()> {
        let Some(mut body) = self.take() else { return Ok(()) };
        while body.try_next().await?.is_some() {}
        Ok(())
    }

    fn take(&self) -> Option<Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Display for ReadOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

#[async_trait]
impl Source for ReadOnce {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    /// Opens the blob.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for another blob; [`Error::Unsupported`] for a part of it, and the second time.
    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if descriptor.digest != self.digest {
            return Err(Error::not_found(descriptor.digest, self));
        }
        let body = if range == ByteRange::ALL { self.take() } else { None };
        body.ok_or_else(|| {
            let what = format!("{} was read from a pipe, which can be read only once", descriptor.digest);
            Error::Unsupported { place: self.place.clone(), what }
        })
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(descriptor.digest == self.digest)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
