//! Layer formats whose files can be read before the whole layer has arrived: eStargz, zstd:chunked, SOCI and Nydus RAFS.
//!
//! [`convert`] changes the layers of images. The result is a root over a [`Memory`](ocikit_image::Memory) of new documents
//! and temporary files, which is copied like any other.
//!
//! # Guarantees
//!
//! * The same layer gives the same bytes, for any number of threads.
//! * The memory does not depend on the size of layers or files; it grows with the number of files, and for SOCI with the
//!   number of checkpoints.
//! * A layer that a format cannot express is left as it is, with a [`Warning`].
//! * No other program is started.

mod check;
mod check_ztoc;
pub mod chunked;
mod convert;
mod counted;
mod error;
pub mod estargz;
mod files;
mod form;
mod formats;
mod hashing;
mod lost_xattr;
mod output;
mod pieces;
mod placement;
mod plain;
pub mod rafs;
mod ranged;
mod reason;
pub mod soci;
mod source;
mod table;
mod toc;
mod waiting;

pub use check::{TableProblem, check_layer};
pub use convert::{
    Converted, EstargzOptions, Format, LazyOptions, PlainOptions, SociOptions, SociVersion, ZstdChunkedOptions, convert,
};
pub use error::{Error, Result};
pub use files::{FileAccess, with_files};
pub use formats::LazyFormats;
pub use placement::Placement;
pub use reason::{Reason, Warning};
pub use table::{MAX_TABLE_BYTES, MAX_TABLE_ENTRIES, Position, Table, TableEntry};
