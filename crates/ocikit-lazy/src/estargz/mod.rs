//! eStargz, the format of the stargz snapshotter for containerd.
//!
//! The layer is an ordinary gzip-compressed tar. Each chunk of a file starts a gzip member; the last member is a file with
//! the table of contents, and a footer says where it starts.

mod format;
mod order;
mod own_files;
mod toc;
mod writer;

pub(crate) use format::{FOOTER_BYTES, TOC_NAME, footer, is_own_file};
pub use format::{TOC_DIGEST, UNCOMPRESSED_SIZE};
pub(crate) use order::ordered;
pub(crate) use own_files::WithoutOwnFiles;
pub(crate) use writer::write;
