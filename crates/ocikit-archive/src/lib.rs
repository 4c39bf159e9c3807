//! The formats of archives and layers: reading a tar at random or as a stream, writing headers, compression, and the
//! [contents of layers](layer). Synchronous.
//!
//! ```
//! use ocikit_archive::{Header, TarIndex, END};
//!
//! let mut tar = Header::file("hello.txt", 5).to_bytes();
//! tar.extend_from_slice(b"hello");
//! tar.resize(1024, 0);
//! tar.extend_from_slice(&END);
//!
//! let index = TarIndex::read(&tar)?;
//! let span = index.file("hello.txt").unwrap();
//! assert_eq!(&tar[span.offset as usize..][..span.size as usize], b"hello");
//! # Ok::<(), ocikit_archive::Error>(())
//! ```
//!
//! # Features
//!
//! `gzip`, `xz` and `zstd`, all on by default, are the compressions that need a crate. [`Compression`] has the same variants in
//! every build; one that the build lacks is [`Error::Feature`] when it is decompressed or written.
//!
//! # Guarantees
//!
//! * Only [`unpack`] writes files under names from an archive, and only below its target: through directory handles, without
//!   following a symlink.
//! * A size in a header is not trusted before the bytes were read.
//! * Memory is not allocated by sizes in an archive: names and extended headers are bounded.

#[cfg(feature = "gzip")]
mod block_gzip;
mod bzip2;
mod compression;
mod encoder;
mod entry;
mod error;
mod header;
mod index;
pub mod layer;
mod limit;
mod ordered;
mod read_at;
mod scan;
mod stream;
#[cfg(unix)]
pub mod unpack;

pub use compression::{Compression, Decoder};
pub use encoder::{Encoder, EncoderOptions};
pub use entry::{Entry, Kind, Span};
pub use error::{Error, Result};
pub use header::{BLOCK, END, Header, padding};
pub use index::{End, TarIndex};
pub use ordered::Ordered;
pub use read_at::ReadAt;
pub use stream::TarStream;
