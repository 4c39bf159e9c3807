use std::collections::HashSet;
use std::sync::Arc;

use ocikit_spec::{Descriptor, Digest, Platform};

use crate::event::Observer;
use crate::graph::add_size;
use crate::merge::{Comparing, KeptTag};
use crate::related::Referrers;
use crate::source::{Naming, Put, Sink};

/// Options of [`copy`](crate::copy) and the other functions that copy.
///
/// ```
/// use ocikit_image::{CopyOptions, Naming, Referrers};
///
/// let names = vec![Naming::of_tag("1.0".parse()?), Naming::of_tag("latest".parse()?)];
/// let options = CopyOptions::default().names(names).referrers(Referrers::All).jobs(8);
/// assert!(options.only.is_empty(), "all platforms");
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CopyOptions {
    /// The number of blobs that are copied in parallel, at least 1. Up to `jobs - 1` more small blobs run beside them.
    pub jobs: usize,
    /// The names to give to the root, in this order, after everything below it is stored. If there are none, the root
    /// is published without a name, in places that support that.
    pub names: Vec<Naming>,
    /// The referrers to copy with the image.
    pub referrers: Referrers,
    /// The platforms to copy from each index; all if empty. The index keeps its bytes and so lists manifests that are
    /// not copied, which some registries reject. [`select_platforms`](crate::select_platforms) creates an index without
    /// them.
    pub only: Vec<Platform>,
    /// Whether to check every blob even if the target already has the root under its name. A target that received only
    /// some platforms of an index has the index and lacks the other manifests.
    pub recheck: bool,
    /// Whether to leave tags of the target for signatures, attestations and lists of referrers unchanged (see
    /// [`ReferrerTag`](crate::ReferrerTag)). If false, the copied referrers are merged into them.
    pub keep_tags: bool,
    /// Whether to copy non-distributable layers that have `urls`.
    pub foreign_layers: bool,
    /// Manifests and indexes that the target is known to have, with everything below them and their referrers. They are
    /// neither read nor queried.
    pub present: Arc<HashSet<Digest>>,
    /// Receives progress events.
    pub observer: Option<Arc<dyn Observer>>,
}

ocikit_spec::setters! {
    CopyOptions {
        jobs: usize,
        names: Vec<Naming>,
        referrers: Referrers,
        only: Vec<Platform>,
        recheck: bool,
        keep_tags: bool,
        foreign_layers: bool,
        present: Arc<HashSet<Digest>>,
        observer: Option<Arc<dyn Observer>>,
    }
}

impl Default for CopyOptions {
    /// Returns 8 jobs, no names, no referrers, all platforms, no recheck, and no observer.
    fn default() -> CopyOptions {
        CopyOptions {
            jobs: 8,
            names: Vec::new(),
            referrers: Referrers::None,
            only: Vec::new(),
            recheck: false,
            keep_tags: false,
            foreign_layers: false,
            present: Arc::default(),
            observer: None,
        }
    }
}

impl CopyOptions {
    pub(crate) fn comparing(&self) -> Comparing {
        // A target that received an image without its foreign layers reports the image as complete.
        let recheck = self.recheck || self.foreign_layers;
        Comparing { jobs: self.jobs, recheck, keep_tags: self.keep_tags }
    }
}

/// The result of a copy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Copied {
    /// The root. Its digest is the same on both sides, unless it is the manifest of a referrer tag that was merged with
    /// the one of the target.
    pub root: Descriptor,
    /// Each blob and document with its outcome, in the order of the plan. Empty if the target already had the whole
    /// image.
    pub blobs: Vec<(Descriptor, Put)>,
    /// The referrers that were copied or already existed.
    pub referrers: Vec<Descriptor>,
    /// The referrer tags that were not copied, because that would have overwritten what the target has.
    pub kept: Vec<KeptTag>,
}

/// The result of a dry run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Planned {
    /// The root.
    pub root: Descriptor,
    /// Each blob and document in the order of the copy, and whether the target already has it.
    pub blobs: Vec<(Descriptor, bool)>,
    /// The referrers that would be copied.
    pub referrers: Vec<Descriptor>,
    /// The referrer tags that would not be copied, because that would overwrite what the target has.
    pub kept: Vec<KeptTag>,
}

impl Planned {
    /// Returns the total size in bytes of what the target lacks.
    pub fn missing_bytes(&self) -> u64 {
        self.blobs.iter().filter(|(_, present)| !present).fold(0, |sum, (blob, _)| add_size(sum, blob))
    }
}

impl Copied {
    /// Returns the result for a root of which nothing was copied.
    pub fn nothing(root: Descriptor) -> Copied {
        Copied { root, blobs: Vec::new(), referrers: Vec::new(), kept: Vec::new() }
    }

    /// Returns the number of blobs and documents with this outcome, and their total size in bytes.
    pub fn count(&self, put: Put) -> (usize, u64) {
        let found = self.blobs.iter().filter(|(_, outcome)| *outcome == put);
        found.fold((0, 0), |(count, bytes), (blob, _)| (count + 1, add_size(bytes, blob)))
    }
}

/// A target of a copy, and the names to give to the root there. Without names, the root is published without one.
#[derive(Debug, Clone)]
pub struct Target {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// The names, in the order in which they are published.
    pub names: Vec<Naming>,
}
