//! zstd:chunked, the format of podman, buildah and CRI-O.
//!
//! The decompressed layer is the source tar byte for byte. Each chunk of a file is a frame of its own; a table of contents
//! and the rest of the tar (tar-split) follow in frames that other readers skip.

mod crc64;
mod format;
mod split;
mod tar_split;
mod toc;
mod writer;

pub(crate) use format::{FOOTER_BYTES, MAGIC};
pub use format::{MANIFEST_CHECKSUM, MANIFEST_POSITION, TAR_SPLIT_POSITION};
pub(crate) use writer::write;
