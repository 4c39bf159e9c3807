use std::time::Duration;

/// Behaviour that the specification leaves to the registry.
///
/// The defaults are those of a strict registry with all features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Maximum size of a manifest, in bytes. The specification requires at least 4 MiB.
    pub max_manifest: u64,
    /// What happens to a manifest with missing children.
    pub children: Children,
    /// Whether manifests of unknown media types are stored, unparsed.
    pub unknown_manifests: Switch,
    /// Whether there is a referrers API. Without it clients maintain a list of referrers under the fallback tag.
    pub referrers: Switch,
    /// Whether a blob is mounted without `from`.
    pub anonymous_mount: Switch,
    /// Whether anything can be stored or deleted.
    pub writes: Switch,
    /// Whether manifests and blobs can be deleted.
    pub delete: Switch,
    /// Whether tags can be deleted without their manifests.
    pub delete_tags: Switch,
    /// Whether the catalog lists the repositories.
    pub catalog: Switch,
    /// Minimum size of a chunk except the last one, in bytes. `None` leaves it to the client.
    pub min_chunk: Option<u64>,
    /// Maximum number of entries on a page of a list. `None` means unlimited.
    pub page: Option<usize>,
    /// How long an upload may be idle before it is removed.
    pub idle_upload: Duration,
}

ocikit_spec::setters! {
    Rules {
        max_manifest: u64,
        children: Children,
        unknown_manifests: Switch,
        referrers: Switch,
        anonymous_mount: Switch,
        writes: Switch,
        delete: Switch,
        delete_tags: Switch,
        catalog: Switch,
        min_chunk: Option<u64>,
        page: Option<usize>,
        idle_upload: Duration,
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            max_manifest: 4 << 20,
            children: Children::Required,
            unknown_manifests: Switch::Off,
            referrers: Switch::On,
            anonymous_mount: Switch::On,
            writes: Switch::On,
            delete: Switch::On,
            delete_tags: Switch::On,
            catalog: Switch::On,
            min_chunk: None,
            page: None,
            idle_upload: Duration::from_secs(3600),
        }
    }
}

/// Whether the server has a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// The feature exists.
    On,
    /// The server behaves as if the feature did not exist.
    Off,
}

/// What happens to a manifest with missing children.
///
/// A missing subject, or a missing layer that may not be distributed, is always accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// It is refused.
    Required,
    /// An index is accepted, since it may have been copied for some platforms only; a manifest is refused.
    SparseIndexes,
    /// It is accepted.
    Any,
}
