use std::fmt::Debug;

use ocikit_spec::{Descriptor, Tag};

use crate::source::Put;

/// Something that happened in a copy or a validation, for whoever shows progress.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// What is going to be put is known. Comes again, for everything, if more goes along than was known before.
    Planned {
        /// How many blobs and documents.
        blobs: usize,
        /// How many bytes they have together.
        bytes: u64,
    },
    /// A blob is being put.
    Started {
        /// Which.
        blob: &'a Descriptor,
    },
    /// Some of its bytes were read. A sink that tries again reads bytes again, and says so here first.
    Read {
        /// Of which.
        blob: &'a Descriptor,
        /// Where the chunk begins.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// A blob is there.
    Finished {
        /// Which.
        blob: &'a Descriptor,
        /// What it took.
        put: Put,
    },
    /// A blob was read and compared with what is said of it.
    Checked {
        /// Which.
        blob: &'a Descriptor,
    },
    /// An archive cannot be read where it lies and is copied to a temporary file first.
    Unpacking {
        /// Which.
        place: &'a str,
    },
    /// A root is visible now.
    Published {
        /// Which.
        root: &'a Descriptor,
        /// Under this tag.
        tag: Option<&'a Tag>,
    },
    /// Whatever is watched is over, where no root becomes visible to show that.
    Ended,
}

/// Whoever wants to know. It is called from several tasks, often, and should not keep them waiting.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}
