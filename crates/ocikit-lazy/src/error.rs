//! Why a layer or an image could not be converted or read.

use std::io;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a layer or an image could not be converted or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading the layer or writing the result failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
