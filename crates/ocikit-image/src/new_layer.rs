use ocikit_spec::{Descriptor, Digest, History};

use crate::root::Layer;

/// A layer that can be added to an image: its blob, and the digest of its uncompressed tar, which the config lists.
#[derive(Debug, Clone)]
pub struct NewLayer {
    layer: Layer,
    diff_id: Digest,
    history: Option<History>,
}

impl NewLayer {
    /// Combines a layer with the digest of its uncompressed tar. The digest is not checked.
    pub fn new(layer: Layer, diff_id: Digest) -> NewLayer {
        NewLayer { layer, diff_id, history: None }
    }

    /// Returns the layer with the entry that it gets in the history of the image.
    #[must_use]
    pub fn with_history(self, history: History) -> NewLayer {
        NewLayer { history: Some(history), ..self }
    }

    /// Returns the entry for the history of the image, if it was given.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
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
