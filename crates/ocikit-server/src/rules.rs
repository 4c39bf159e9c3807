use std::time::Duration;

/// What the specification leaves to a registry.
///
/// The defaults are those of a strict registry with every feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The longest manifest that is taken, in bytes. The specification wants 4 MiB at least.
    pub max_manifest: u64,
    /// What becomes of a manifest that points to something that is not there.
    pub children: Children,
    /// Whether manifests of types that this server does not know are stored, as they are.
    pub unknown_manifests: Switch,
    /// Whether there is a referrers API. Without it clients keep an index under a tag made of the subject's digest.
    pub referrers: Switch,
    /// Whether a blob is mounted that the client does not say where to find.
    pub anonymous_mount: Switch,
    /// Whether manifests and blobs can be deleted.
    pub delete: Switch,
    /// Whether tags can be deleted, their manifests staying.
    pub delete_tags: Switch,
    /// Whether the repositories are listed to whoever asks.
    pub catalog: Switch,
    /// The shortest chunk of an upload, but for the last one. `None` leaves it to the client.
    pub min_chunk: Option<u64>,
    /// How many entries a list has at most before it goes on on another page. `None` lets it be as long as it is.
    pub page: Option<usize>,
    /// How long an upload may lie idle before it is given up.
    pub idle_upload: Duration,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            max_manifest: 4 << 20,
            children: Children::Required,
            unknown_manifests: Switch::Off,
            referrers: Switch::On,
            anonymous_mount: Switch::On,
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
    /// It has.
    On,
    /// It behaves as a registry that never heard of it.
    Off,
}

/// What becomes of a manifest that points to something that is not there.
///
/// A subject need never be there, nor a layer that may not be distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// It is refused.
    Required,
    /// An index is taken, a manifest is refused: an index may have been copied for some platforms only.
    SparseIndexes,
    /// It is taken.
    Any,
}
