use ocikit::Digest;
use serde::Serialize;

use crate::report::TargetOutput;

/// A lazily pulled image of a build, in its output.
#[derive(Serialize)]
pub(crate) struct LazyOutput {
    pub(super) format: &'static str,
    pub(super) placement: &'static str,
    /// The digests: of the image, or of the referrer of each platform.
    pub(super) digests: Vec<Digest>,
    /// The places of the image; of referrers, the images that they refer to are there.
    pub(super) targets: Vec<TargetOutput>,
    /// The digests of the signatures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) signatures: Vec<Digest>,
}

impl LazyOutput {
    /// Returns the digests.
    pub(crate) fn digests(&self) -> &[Digest] {
        &self.digests
    }
}
