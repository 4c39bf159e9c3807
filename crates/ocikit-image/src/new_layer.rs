use ocikit_spec::{Descriptor, Digest};

use crate::root::Layer;

/// A layer that can be added to an image: its blob, and the digest of its uncompressed tar, which the config lists.
#[derive(Debug, Clone)]
pub struct NewLayer {
    layer: Layer,
    diff_id: Digest,
}

impl NewLayer {
    /// Combines a layer with the digest of its uncompressed tar. The digest is not checked.
    pub fn new(layer: Layer, diff_id: Digest) -> NewLayer {
        NewLayer { layer, diff_id }
    }

    /// Returns the blob.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Returns the descriptor of the blob.
    pub fn descriptor(&self) -> &Descriptor {
        self.layer.descriptor()
    }

    /// Returns the digest of the blob.
    pub fn digest(&self) -> Digest {
        self.layer.descriptor().digest
    }

    /// Returns the digest of the uncompressed tar. Image specification, "Layer DiffID".
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }
}
