use std::fmt::Debug;

use ocikit_spec::{Descriptor, Tag};

use crate::source::Put;

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
    Unpacking {
        /// The archive.
        place: &'a str,
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
