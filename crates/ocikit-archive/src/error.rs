use std::io;
use std::path::PathBuf;

use crate::limit::Limit;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive ends inside an entry.
    #[error("the archive is truncated: {what} at offset {offset} lacks at least {missing} bytes")]
    Truncated {
        /// The name of the entry, or `a header`.
        what: String,
        /// The offset of the entry.
        offset: u64,
        /// The minimum number of missing bytes.
        missing: u64,
    },
    /// The bytes are not a tar, or readers would disagree about its contents.
    #[error("not a valid tar: {problem} at offset {offset}{}", Error::after(.after.as_deref()))]
    Invalid {
        /// The offset of the problem in bytes.
        offset: u64,
        /// The problem.
        problem: String,
        /// The name of the entry before it; `None` for the first one.
        after: Option<String>,
    },
    /// A tar of this name cannot be read.
    #[error("cannot read `{}`: {source}", .archive.display())]
    Archive {
        /// The name.
        archive: PathBuf,
        /// The failure.
        source: Box<Error>,
    },
    /// A record of the state of a directory, in the format of mtree, is invalid.
    #[error("not a valid mtree record: {problem} in line {line}")]
    Mtree {
        /// The number of the line, counted from 1.
        line: u64,
        /// The problem.
        problem: &'static str,
    },
    /// The text is no range of IDs.
    #[error("`{text}` is not a range of IDs, such as 0:100000:65536")]
    IdRange {
        /// The text.
        text: String,
    },
    /// An entry is invalid in its layer.
    #[error("invalid entry `{path}` in a layer: {problem}")]
    Layer {
        /// The path of the entry.
        path: String,
        /// The problem.
        problem: &'static str,
    },
    /// The owner of an entry is in no range of the given map of users or groups.
    #[error("cannot map {kind} {id} of `{path}`: no range of the {kind} map has it")]
    Unmapped {
        /// The kind of owner: `user` or `group`.
        kind: &'static str,
        /// The ID that has no counterpart: that of the image when it is unpacked, that of the file when it is packed.
        id: u32,
        /// The path of the entry.
        path: String,
    },
    /// Reading would exceed a limit of the operation.
    #[error("{0}")]
    Limit(Limit),
    /// The crate was built without the feature that a compression needs.
    #[error("this program was built without the feature `{0}`")]
    Feature(&'static str),
    /// A file of this machine cannot be read or written: in a directory that a layer is made of or unpacked to.
    #[error("cannot {verb} `{}`: {source}", .path.display())]
    File {
        /// The action, such as `create`.
        verb: &'static str,
        /// The file or directory; relative to the directory when layers are unpacked.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Reading the archive failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    pub(crate) fn layer(path: &impl ToString, problem: &'static str) -> Error {
        Error::Layer { path: path.to_string(), problem }
    }

    fn after(entry: Option<&str>) -> String {
        entry.map(|entry| format!(", after `{entry}`")).unwrap_or_default()
    }

    /// Returns the error of an invalid tar with the name of the entry before the problem.
    pub(crate) fn behind(self, entry: Option<&str>) -> Error {
        match self {
            Error::Invalid { offset, problem, after: None } => {
                Error::Invalid { offset, problem, after: entry.map(str::to_owned) }
            }
            error => error,
        }
    }

    /// Returns the error with the name of the damaged tar.
    pub(crate) fn named(self, archive: &std::path::Path) -> Error {
        match self {
            Error::Io(error) => match error.downcast::<Error>() {
                Ok(error) => error.named(archive),
                Err(error) => Error::Io(error),
            },
            error @ (Error::Truncated { .. } | Error::Invalid { .. } | Error::Layer { .. }) => {
                Error::Archive { archive: archive.to_owned(), source: Box::new(error) }
            }
            error => error,
        }
    }

    /// Returns the limit that was exceeded, if that is the failure.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Error::Limit(limit) => Some(*limit),
            Error::Io(error) => error.get_ref()?.downcast_ref::<Error>()?.limit(),
            _ => None,
        }
    }

    /// Returns what the operation cannot do although the bytes are intact: a [limit](Error::limit) that was exceeded, or a
    /// [feature](Error::missing_feature) that the build lacks.
    pub fn unsupported(&self) -> Option<String> {
        self.limit()
            .map(|limit| limit.to_string())
            .or_else(|| Some(Error::Feature(self.missing_feature()?).to_string()))
    }

    /// Returns the feature that the build lacks, if that is the failure.
    pub fn missing_feature(&self) -> Option<&'static str> {
        match self {
            Error::Feature(feature) => Some(feature),
            Error::Io(error) | Error::File { source: error, .. } => Error::missing_feature_of(error),
            _ => None,
        }
    }

    /// Returns the feature that the build lacks, if that is the failure of a reader or writer of this crate.
    pub fn missing_feature_of(error: &io::Error) -> Option<&'static str> {
        error.get_ref()?.downcast_ref::<Error>()?.missing_feature()
    }
}

/// For code that reads through [`io::Read`]; [`Error::limit`] returns the limit after a conversion back.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match error {
            Error::Io(error) => error,
            Error::File { verb, path, source } => io::Error::new(source.kind(), Error::File { verb, path, source }),
            error @ Error::Feature(_) => io::Error::new(io::ErrorKind::Unsupported, error),
            error @ Error::Truncated { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
