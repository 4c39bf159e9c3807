use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use ocikit_spec::{Digest, NoAnswer, Platform};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of an operation on images, sources or sinks.
///
/// `place` is the `Display` form of the source or sink, so that the error of a copy tells which side failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, document or blob does not exist.
    #[error("{place} has no {what}")]
    NotFound {
        /// The name or digest that was requested.
        what: String,
        /// The source or sink.
        place: String,
    },
    /// An image exists, but not for a requested platform.
    #[error("{place} has no image for {}{}", listed(.wanted), only_for(.available))]
    NoPlatform {
        /// The requested platforms.
        wanted: Vec<Platform>,
        /// The source.
        place: String,
        /// The platforms that exist.
        available: Vec<Platform>,
    },
    /// A place holds several images and the name does not select one.
    #[error("{place} holds several images")]
    Ambiguous {
        /// The source.
        place: String,
        /// The names that would select an image.
        choices: Vec<String>,
    },
    /// Bytes do not match their descriptor.
    #[error("{digest} in {place} is damaged: {mismatch}")]
    Mismatch {
        /// The expected digest.
        digest: Digest,
        /// The source of the bytes.
        place: String,
        /// The difference.
        mismatch: Box<Mismatch>,
    },
    /// The digest in a name is not that of what gets the name, or of what already has it.
    #[error("{what} has digest {actual}, not the one in {name}")]
    OtherDigest {
        /// The location with the digest.
        name: String,
        /// The image, file or tag.
        what: String,
        /// The digest of that.
        actual: Digest,
    },
    /// A tag no longer leads to the root that was changed, because another client moved it at the same time.
    #[error("cannot move {tag} in {place}: another client {}", moved(.found))]
    Conflict {
        /// The tag.
        tag: String,
        /// The repository.
        place: String,
        /// What the tag leads to now; `None` if it is gone or unknown.
        found: Option<Digest>,
    },
    /// A document has the right digest but cannot be parsed.
    #[error("cannot parse {digest} in {place}")]
    Document {
        /// The digest of the document.
        digest: Digest,
        /// The source of the document.
        place: String,
        /// The parse error.
        source: Box<ocikit_spec::Error>,
    },
    /// The place itself is damaged: an archive is truncated, a layout has no `index.json`.
    #[error("{place} is broken")]
    Broken {
        /// The source or sink.
        place: String,
        /// The damage.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Something exists that must not be overwritten.
    #[error("{place} already has {what}")]
    Exists {
        /// What exists.
        what: String,
        /// The source or sink.
        place: String,
    },
    /// Credentials are missing or were rejected.
    #[error("cannot access {place}: {problem}")]
    Denied {
        /// The registry or repository.
        place: String,
        /// The message of the registry.
        problem: String,
    },
    /// The configuration of this machine blocks the registry.
    #[error("{place} is blocked by {by}")]
    Blocked {
        /// The registry or repository.
        place: String,
        /// The configuration file that blocks it.
        by: &'static str,
    },
    /// There was no usable answer, after all retries.
    #[error("{} {place}", failed(*.cause))]
    Unreachable {
        /// The server or repository.
        place: String,
        /// The kind of failure.
        cause: NoAnswer,
        /// The underlying error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The referrers of an image could not be listed, or their list not be updated. This is an error because a copy
    /// would otherwise silently lack signatures.
    #[error("cannot {operation} the referrers of {subject} in {place}")]
    Referrers {
        /// The operation, as a verb: `list` or `update`.
        operation: &'static str,
        /// The image, or a manifest of it.
        subject: Digest,
        /// The source.
        place: String,
        /// The underlying error: [`Error::Denied`] if access is denied, otherwise the failure of the registry.
        source: Arc<Error>,
    },
    /// The registry rejected the request.
    #[error("{place} refused: {problem}")]
    Refused {
        /// The registry or repository.
        place: String,
        /// The HTTP status.
        status: u16,
        /// The message of the registry.
        problem: String,
    },
    /// The answer violates the distribution specification, for example because a web server answers every request with
    /// a page.
    #[error("{place} violates the distribution specification: {problem}")]
    Protocol {
        /// The server.
        place: String,
        /// The violation.
        problem: String,
    },
    /// The address of a proxy is not a URL.
    #[error("cannot use the proxy in {variable}: {problem}")]
    Proxy {
        /// The variable that programs read the address from: `HTTP_PROXY` or `HTTPS_PROXY`.
        variable: &'static str,
        /// What is wrong with the address, which is not repeated: it may hold a password.
        problem: String,
    },
    /// A pipe, socket or device, where an archive is read more than once.
    #[error("cannot read a pipe here: {place} can be read only once")]
    Pipe {
        /// The pipe.
        place: String,
    },
    /// The place, or this version of the program, does not support the operation.
    #[error("{place}: {what}")]
    Unsupported {
        /// The source or sink.
        place: String,
        /// The unsupported operation or input.
        what: String,
    },
    /// The operation is not possible as it was requested, and the caller can change that.
    #[error("{place}: {what}")]
    Unmet {
        /// The source or sink.
        place: String,
        /// The problem.
        what: String,
        /// What would make it possible.
        need: Need,
    },
    /// An operation of the operating system failed.
    #[error("cannot {operation} {place}")]
    Failed {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file or other object.
        place: String,
        /// The underlying error.
        source: io::Error,
    },
}

/// Returns the beginning of the message about a server without a usable answer.
fn failed(cause: NoAnswer) -> &'static str {
    if cause.is_connect() { "cannot connect to" } else { "cannot get an answer from" }
}

/// How bytes differ from their descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The digest is different.
    #[error("its bytes have digest {0}")]
    Digest(Digest),
    /// The number of bytes is different.
    #[error("it has {actual} bytes, not {expected}")]
    Size {
        /// The size in the descriptor.
        expected: u64,
        /// The number of bytes that were counted until then.
        actual: u64,
    },
}

fn listed(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn moved(found: &Option<Digest>) -> String {
    match found {
        Some(found) => format!("has moved it to {found}"),
        None => "has removed or moved it".to_owned(),
    }
}

fn only_for(available: &[Platform]) -> String {
    if available.is_empty() { String::new() } else { format!(", only for {}", listed(available)) }
}

impl Error {
    /// Returns the error for a missing name, document or blob.
    pub fn not_found(what: impl ToString, place: impl ToString) -> Error {
        Error::NotFound { what: what.to_string(), place: place.to_string() }
    }

    /// Returns the error for missing platforms of an image that exists for others.
    pub fn no_platform(
        wanted: &[Platform],
        available: impl IntoIterator<Item = Platform>,
        place: impl ToString,
    ) -> Error {
        let mut available: Vec<_> = available.into_iter().filter(|found| !found.is_unknown()).collect();
        available.sort();
        available.dedup();
        Error::NoPlatform { wanted: wanted.to_vec(), place: place.to_string(), available }
    }

    /// Returns the error for bytes that do not match their descriptor.
    pub fn mismatch(digest: &Digest, place: impl ToString, mismatch: Mismatch) -> Error {
        Error::Mismatch { digest: *digest, place: place.to_string(), mismatch: Box::new(mismatch) }
    }

    /// Returns the error for something with another digest than the name that it is for.
    pub fn other_digest(name: impl ToString, what: impl ToString, actual: Digest) -> Error {
        Error::OtherDigest { name: name.to_string(), what: what.to_string(), actual }
    }

    /// Returns the error for a tag that another client moved.
    pub fn conflict(tag: impl ToString, place: impl ToString, found: Option<Digest>) -> Error {
        Error::Conflict { tag: format!("tag {}", tag.to_string()), place: place.to_string(), found }
    }

    /// Returns the error for a document that cannot be parsed.
    pub fn document(digest: &Digest, place: impl ToString, source: ocikit_spec::Error) -> Error {
        Error::Document { digest: *digest, place: place.to_string(), source: Box::new(source) }
    }

    /// Returns the error for a damaged place.
    pub fn broken(place: impl ToString, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Broken { place: place.to_string(), source: source.into() }
    }

    /// Returns the error for a pipe where an archive is read more than once.
    pub fn pipe(place: impl ToString) -> Error {
        Error::Pipe { place: place.to_string() }
    }

    /// Returns the error for an answer that violates the distribution specification.
    pub fn protocol(place: impl ToString, problem: impl ToString) -> Error {
        Error::Protocol { place: place.to_string(), problem: problem.to_string() }
    }

    /// Returns the error for an operation that needs something else.
    pub fn unmet(place: impl ToString, what: String, need: Need) -> Error {
        Error::Unmet { place: place.to_string(), what, need }
    }

    /// Returns the error for a failed operation of the operating system: reading, writing, renaming. If it failed because the
    /// build lacks a compression, that is [`Error::Unsupported`].
    pub fn failed(operation: &'static str, place: impl ToString, source: io::Error) -> Error {
        if ocikit_archive::Error::missing_feature_of(&source).is_some() {
            return Error::Unsupported { place: place.to_string(), what: source.to_string() };
        }
        Error::Failed { operation, place: place.to_string(), source }
    }

    /// Returns why there is no usable answer from a server, if that is the failure.
    pub fn no_answer(&self) -> Option<NoAnswer> {
        match self {
            Error::Unreachable { cause, .. } => Some(*cause),
            _ => None,
        }
    }

    /// Returns the error for a list of referrers that could not be retrieved.
    pub fn referrers(subject: &Digest, place: impl ToString, source: Error) -> Error {
        Error::Referrers { operation: "list", subject: *subject, place: place.to_string(), source: Arc::new(source) }
    }

    /// Returns the error for a list of referrers that could not be updated.
    pub fn referrers_update(subject: &Digest, place: impl ToString, source: Error) -> Error {
        Error::Referrers { operation: "update", subject: *subject, place: place.to_string(), source: Arc::new(source) }
    }

    /// Returns the place that failed, for a caller that has a better name for it than the `Display` form of its source or
    /// sink.
    pub fn place_mut(&mut self) -> Option<&mut String> {
        match self {
            Error::NotFound { place, .. }
            | Error::NoPlatform { place, .. }
            | Error::Ambiguous { place, .. }
            | Error::Mismatch { place, .. }
            | Error::Document { place, .. }
            | Error::Broken { place, .. }
            | Error::Exists { place, .. }
            | Error::Conflict { place, .. }
            | Error::Denied { place, .. }
            | Error::Blocked { place, .. }
            | Error::Unreachable { place, .. }
            | Error::Referrers { place, .. }
            | Error::Refused { place, .. }
            | Error::Protocol { place, .. }
            | Error::Pipe { place }
            | Error::Unsupported { place, .. }
            | Error::Unmet { place, .. }
            | Error::Failed { place, .. } => Some(place),
            Error::OtherDigest { .. } | Error::Proxy { .. } => None,
        }
    }

    /// Returns whether a name, document, blob, or the place itself does not exist, which many callers handle.
    ///
    /// A local file or directory that cannot be opened because it does not exist counts. A file that cannot be written
    /// because its directory does not exist does not.
    pub fn is_not_found(&self) -> bool {
        match self {
            Error::NotFound { .. } | Error::NoPlatform { .. } => true,
            Error::Failed { operation: "open", source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Returns an equal error, for several tasks that wait for one shared operation.
    pub fn again(error: &Arc<Error>) -> Error {
        let source = || Box::new(SharedCause(error.clone()));
        match &**error {
            Error::NotFound { what, place } => Error::NotFound { what: what.clone(), place: place.clone() },
            Error::NoPlatform { wanted, place, available } => {
                Error::NoPlatform { wanted: wanted.clone(), place: place.clone(), available: available.clone() }
            }
            Error::Ambiguous { place, choices } => Error::Ambiguous { place: place.clone(), choices: choices.clone() },
            Error::Mismatch { digest, place, mismatch } => Error::mismatch(digest, place, **mismatch),
            Error::OtherDigest { name, what, actual } => Error::other_digest(name, what, *actual),
            Error::Conflict { tag, place, found } => {
                Error::Conflict { tag: tag.clone(), place: place.clone(), found: *found }
            }
            Error::Exists { what, place } => Error::Exists { what: what.clone(), place: place.clone() },
            Error::Denied { place, problem } => Error::Denied { place: place.clone(), problem: problem.clone() },
            Error::Blocked { place, by } => Error::Blocked { place: place.clone(), by },
            Error::Refused { place, status, problem } => {
                Error::Refused { place: place.clone(), status: *status, problem: problem.clone() }
            }
            Error::Protocol { place, problem } => Error::protocol(place, problem),
            Error::Referrers { operation, subject, place, source } => {
                let source = source.clone();
                Error::Referrers { operation, subject: *subject, place: place.clone(), source }
            }
            Error::Proxy { variable, problem } => Error::Proxy { variable, problem: problem.clone() },
            Error::Pipe { place } => Error::pipe(place),
            Error::Unsupported { place, what } => Error::Unsupported { place: place.clone(), what: what.clone() },
            Error::Unmet { place, what, need } => Error::unmet(place, what.clone(), *need),
            Error::Failed { operation, place, source } => {
                Error::failed(operation, place, io::Error::new(source.kind(), source.to_string()))
            }
            Error::Unreachable { place, cause, .. } => {
                Error::Unreachable { place: place.clone(), cause: *cause, source: source() }
            }
            Error::Broken { place, .. } => Error::Broken { place: place.clone(), source: source() },
            Error::Document { digest, place, .. } => {
                Error::Broken { place: format!("{digest} in {place}"), source: source() }
            }
        }
    }
}

/// What an operation needs that is [not possible](Error::Unmet) as it was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// An OCI archive instead of a docker archive.
    OciArchive,
    /// The OCI format of the documents: Docker's has no layers compressed with zstd.
    OciFormat,
    /// Layers that are not compressed with zstd, for Docker's format.
    OtherCompression,
    /// Layers that are tars, where the image has the format of Nydus.
    PlainLayers,
    /// Permission to drop parts that Docker's format does not have.
    DropUnsupported,
    /// A time, because the image has no creation time.
    Time,
    /// A map of users and groups that has all owners of the image.
    IdRange,
    /// A platform, because the config of an entry of an index has none.
    EntryPlatform,
    /// An OCI index instead of a manifest list of Docker.
    OciIndex,
    /// An entry of an index instead of the index.
    IndexEntry,
}

/// The cause of a shared error, with the same text.
#[derive(Debug)]
struct SharedCause(Arc<Error>);

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(source) => fmt::Display::fmt(source, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl StdError for SharedCause {}
