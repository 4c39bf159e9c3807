use ocikit_http::{Origin, Url};

/// A token service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm {
    pub(super) url: Url,
    pub(super) service: Option<String>,
    /// Whether the registry named itself or another server.
    pub(super) origin: Origin,
}
