use std::io;

use crate::limit::Limit;

/// The result of reading an archive.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive ends before an entry does.
    #[error("the archive is truncated: {what} at offset {offset} wants {missing} more bytes")]
    Truncated {
        /// The name of the entry, or `a header`.
        what: String,
        /// Where it begins.
        offset: u64,
        /// How many bytes are missing at least.
        missing: u64,
    },
    /// The bytes are not a tar, or one that readers would read in different ways.
    #[error("not a valid tar: {problem} at offset {offset}")]
    Invalid {
        /// Where.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// An entry cannot be in the layer that has it.
    #[error("a layer has `{path}`: {problem}")]
    Layer {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Reading it would cost more than one operation may spend.
    #[error("{0}")]
    Limit(Limit),
    /// The archive could not be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The limit that was reached, if that is why reading failed.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Error::Limit(limit) => Some(*limit),
            Error::Io(error) => error.get_ref()?.downcast_ref::<Error>()?.limit(),
            _ => None,
        }
    }
}

/// For code that reads through [`io::Read`]; [`Error::limit`] finds the limit again.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match error {
            Error::Io(error) => error,
            error @ Error::Truncated { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
