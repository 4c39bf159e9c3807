use std::sync::Arc;

use ocikit_spec::{Descriptor, Digest, Index};

use super::report::Problem;
use crate::event::Observer;
use crate::formats::ImageFormats;

/// Options of [`validate`](crate::validate).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ValidateOptions {
    /// The number of blobs that are read in parallel, at least 1.
    pub jobs: usize,
    /// How far layers are checked.
    pub depth: ValidateDepth,
    /// The maximum decompressed size of a layer in bytes; a larger one is reported and not read further. `None` allows
    /// 1 GiB plus a hundred times its compressed size.
    pub max_uncompressed_bytes: Option<u64>,
    /// The maximum number of problems that are listed.
    pub max_problems: usize,
    /// Receives progress events.
    pub observer: Option<Arc<dyn Observer>>,
    /// Further formats that are checked, with [`ValidateDepth::Contents`]. Layers in such a format are read a second time.
    pub formats: Option<Arc<dyn ImageFormats>>,
}

ocikit_spec::setters! {
    ValidateOptions {
        jobs: usize,
        depth: ValidateDepth,
        max_uncompressed_bytes: Option<u64>,
        max_problems: usize,
        observer: Option<Arc<dyn Observer>>,
        formats: Option<Arc<dyn ImageFormats>>,
    }
}

impl Default for ValidateOptions {
    /// Returns one job per processor, decompressed layers, a limit of 10,000 problems, no observer and no
    /// further formats.
    fn default() -> ValidateOptions {
        ValidateOptions {
            jobs: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            depth: ValidateDepth::Contents,
            max_uncompressed_bytes: None,
            max_problems: 10_000,
            observer: None,
            formats: None,
        }
    }
}

/// How far layers are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValidateDepth {
    /// Read and hash every blob.
    Digests,
    /// Also decompress every layer and compare it with the config.
    Contents,
}

/// What is validated.
#[derive(Debug, Clone)]
pub enum Scope {
    /// A root and everything below it, and the referrers of all its manifests and indexes.
    Root(Box<Descriptor>),
    /// Everything that is stored in a place.
    Everything(Inventory),
}

/// The contents of a layout or archive.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The list of roots.
    pub roots: Index,
    /// Manifests with a subject that the list does not have, each with the digest of its subject. They belong to the
    /// image if the subject is reachable from the roots.
    pub referrers: Vec<(Digest, Descriptor)>,
    /// Every blob with its digest and its size in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// The problems of the place itself.
    pub problems: Vec<Problem>,
}
