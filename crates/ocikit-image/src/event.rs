use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Descriptor, Digest, Repository, Tag};

use crate::body::Body;
use crate::error::Result;
use crate::root::{Artifact, Image, Index, Root};
use crate::source::{ByteRange, Name, Put, Source};

/// A progress event of a copy or a validation.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The plan is known. Sent again with new totals if referrers are added to the plan later.
    Planned {
        /// The number of blobs and documents.
        blobs: usize,
        /// Their total size in bytes.
        bytes: u64,
    },
    /// The copy or check of a blob started.
    Started {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// A chunk of a blob was read. A sink that retries reads the same offsets again.
    Read {
        /// The blob.
        blob: &'a Descriptor,
        /// The offset of the chunk in bytes.
        offset: u64,
        /// The length of the chunk in bytes.
        bytes: u64,
    },
    /// A blob is stored at the target.
    Finished {
        /// The blob.
        blob: &'a Descriptor,
        /// The outcome.
        put: Put,
    },
    /// A blob was read and compared with its descriptor.
    Checked {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// An archive is compressed and is decompressed to a temporary file first.
    Decompressing {
        /// The archive.
        location: &'a str,
    },
    /// A target has everything, read back; names are given after that.
    Stored {
        /// The target.
        target: &'a str,
    },
    /// A root was published.
    Published {
        /// The root.
        root: &'a Descriptor,
        /// Its tag, if it has one.
        tag: Option<&'a Tag>,
    },
    /// The operation ended without publishing a root.
    Ended,
}

/// Receives progress events. It is called often and from several tasks, so implementations must return quickly.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Handles an event.
    fn event(&self, event: Event<'_>);
}

/// The observer of an operation, if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Progress(pub(crate) Option<Arc<dyn Observer>>);

impl Progress {
    pub(crate) fn event(&self, event: Event<'_>) {
        if let Some(observer) = &self.0 {
            observer.event(event);
        }
    }

    /// Sends the totals of a plan.
    pub(crate) fn planned<'a>(&self, blobs: impl Iterator<Item = &'a Descriptor>) {
        // Saturating, because the size in a descriptor is untrusted.
        let (blobs, bytes) = blobs.fold((0, 0_u64), |(count, sum), blob| (count + 1, sum.saturating_add(blob.size)));
        self.event(Event::Planned { blobs, bytes });
    }

    /// Returns a source that reports every chunk that is read from it; without an observer, the source itself.
    pub(crate) fn of_reads(&self, source: &Arc<dyn Source>) -> Arc<dyn Source> {
        match &self.0 {
            Some(observer) => Arc::new(Observed { source: source.clone(), observer: observer.clone() }),
            None => source.clone(),
        }
    }
}

impl Root {
    /// Returns the root with a source that reports every chunk that is read of it and of its images, as [`Event::Read`]: for
    /// the progress of changes that read layers.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn Observer>) -> Root {
        let of_reads = |source: &Arc<dyn Source>| Progress(Some(observer)).of_reads(source);
        match self {
            Root::Image(image) => Root::Image(Image { source: of_reads(&image.source), ..image }),
            Root::Index(index) => Root::Index(Index { source: of_reads(&index.source), ..index }),
            Root::Other(artifact) => Root::Other(Artifact { source: of_reads(&artifact.source), ..artifact }),
        }
    }
}

/// A source that reports every chunk that is read from it to an observer.
#[derive(Debug)]
struct Observed {
    source: Arc<dyn Source>,
    observer: Arc<dyn Observer>,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl Observed {
    fn watch(&self, blob: &Descriptor, range: ByteRange, body: Body) -> Body {
        let (observer, blob, mut offset) = (self.observer.clone(), blob.clone(), range.offset);
        body.watched(move |bytes| {
            observer.event(Event::Read { blob: &blob, offset, bytes });
            offset += bytes;
        })
    }
}

#[async_trait]
impl Source for Observed {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.source.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        Ok(self.watch(descriptor, range, self.source.open_unverified(descriptor, range).await?))
    }

    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        Ok(self.watch(descriptor, range, self.source.open_small(descriptor, range).await?))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.source.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.source.referrers(subject).await
    }

    fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.source.held(digest)
    }

    fn is_new(&self, digest: &Digest) -> bool {
        self.source.is_new(digest)
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        self.source.repository(descriptor)
    }
}
