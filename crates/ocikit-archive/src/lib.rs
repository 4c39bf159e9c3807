//! The bytes of archives and layers: reading a tar at random or as it comes, writing its headers, compression, and what is
//! [in a layer](layer). Synchronous.
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
//! # What this crate never does
//!
//! * It never writes a file by a name that an archive gave it.
//! * It never believes a size before the bytes are there.
//! * It never allocates what an archive asks for: names and extended headers are bounded.

mod bzip2;
mod compression;
mod entry;
mod error;
mod header;
mod index;
pub mod layer;
mod limit;
mod read_at;
mod scan;
mod stream;

pub use compression::{Compression, Decoder, Encoder};
pub use entry::{Entry, Kind, Span};
pub use error::{Error, Result};
pub use header::{BLOCK, END, Header, padding};
pub use index::{End, TarIndex};
pub use read_at::ReadAt;
pub use stream::TarStream;
