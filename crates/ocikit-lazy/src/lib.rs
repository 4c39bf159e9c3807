//! Layer formats whose files can be read before the whole layer has arrived: eStargz, zstd:chunked, SOCI and Nydus RAFS.

mod error;

pub use error::{Error, Result};
