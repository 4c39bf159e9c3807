//! SOCI, the indexes of the SOCI snapshotter for containerd.
//!
//! Layers stay as they are. A ztoc per layer says where files are in the decompressed layer, and holds the state of the
//! decompressor at checkpoints, from which a part of the layer can be decompressed.

mod checkpoints;
mod flat;
mod format;
mod index;
mod listed;
mod parse;
mod prefetch;
mod ztoc;

pub(crate) use checkpoints::Indexer;
pub use format::{
    BUILD_TOOL, IMAGE_MANIFEST_DIGEST, INDEX_DIGEST, INDEX_V1, INDEX_V2, LAYER_DIGEST, LAYER_MEDIA_TYPE, SPAN_SIZE,
};
pub(crate) use index::{LayerIndex, attach, detach, is_attached, is_index_type, manifest};
pub use parse::{MAX_ZTOC_BYTES, Ztoc, ZtocCheckpoint, ZtocFile};
pub use prefetch::PREFETCH;
pub(crate) use prefetch::Prefetch;
pub(crate) use ztoc::{LayerCompression, build};
