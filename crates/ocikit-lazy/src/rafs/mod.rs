//! Nydus RAFS: each layer becomes a blob of chunks, and a bootstrap has the metadata of all files.
//!
//! ```text
//! image                           bootstrap (RAFS v6)              blob of a layer
//! ┌───────────────────────┐       ┌───────────────────────┐        ┌────────────────────────┐
//! │ blob of layer 1       │◄──┐   │ EROFS superblock      │   ┌───►│ chunks, compressed     │
//! │ blob of layer 2       │◄─┐│   │ devices, table of     ├───┘    │ chunk information      │
//! │ …                     │  │└───┤ blobs                 │        │ digests of chunks      │
//! │ bootstrap layer       ├─►└────┤ inodes, directories,  │        │ bootstrap of the layer │
//! └───────────────────────┘       │ addresses of chunks   │        │ table of contents      │
//!                                 │ table of chunks       │        └────────────────────────┘
//!                                 └───────────────────────┘
//! ```
//!
//! [`to_nydus`] writes and [`NydusReader`] reads. Modules from the lowest: `bytes`, `options`, `chunk`; `tree` arranges
//! files, `table` numbers blobs; `v5`, `v6` and `bootstrap` write; `data` and `blob` write blobs; `layer` and `convert`
//! drive them; `read`, `read_v5`, `read_v6`, `detect` and `contents` read.

mod annotations;
mod blob;
mod bootstrap;
mod bytes;
mod chunk;
mod contents;
mod convert;
mod data;
mod detect;
mod dictionary;
mod layer;
mod options;
mod read;
mod read_v5;
mod read_v6;
mod table;
mod tree;
mod v5;
mod v6;

pub use crate::lost_xattr::LostXattr;
pub use bootstrap::is_nydus;
pub(crate) use bootstrap::{BOOTSTRAP_ANNOTATION, VERSION_ANNOTATION};
pub use contents::{NydusReader, from_nydus};
pub use convert::{NydusImage, NydusOptions, to_nydus};
pub use dictionary::Dictionary;
pub use options::{ChunkSize, Compressor, Deduplicate, RafsVersion, UnknownChoice};
pub use read::NydusBootstrap;
