//! Why a layer or an image could not be converted or read.

use std::io;

use crate::reason::Reason;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a layer or an image could not be converted or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading the layer or writing the result failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The layer that is converted cannot be read.
    #[error(transparent)]
    Layer(#[from] ocikit_archive::Error),
    /// A footer, a table of contents or an index is damaged.
    #[error("the {part} is invalid: {problem}")]
    Invalid {
        /// The part, such as `footer`.
        part: &'static str,
        /// The problem.
        problem: String,
    },
    /// A part exceeds a limit.
    #[error("the {part} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The part.
        part: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

impl Error {
    pub(crate) fn invalid(part: &'static str, problem: impl ToString) -> Error {
        Error::Invalid { part, problem: problem.to_string() }
    }
}

/// Why writing a layer in another format ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// The layer is left as it is.
    #[error(transparent)]
    Plain(#[from] Reason),
    /// The layer cannot be read.
    #[error(transparent)]
    Reading(#[from] ocikit_archive::Error),
    /// The result cannot be written.
    #[error(transparent)]
    Writing(#[from] io::Error),
}
