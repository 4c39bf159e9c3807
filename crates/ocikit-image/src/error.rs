use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ocikit_spec::{Digest, Platform};

/// The result of working with images.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something failed, in a place, for a reason that a caller can tell apart.
///
/// `place` is how the source or sink displays itself, so that a copy says which of its sides failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, document or blob is not there.
    #[error("{place} has no {what}")]
    NotFound {
        /// What was wanted.
        what: String,
        /// Where.
        place: String,
    },
    /// There are images, and none for a platform.
    #[error("{place} has no image for {}{}", listed(.wanted), only_for(.available))]
    NoPlatform {
        /// The platforms that were wanted.
        wanted: Vec<Platform>,
        /// Where.
        place: String,
        /// The platforms that there are images for.
        available: Vec<Platform>,
    },
    /// A place holds several images and the name did not choose one.
    #[error("{place} holds several images")]
    Ambiguous {
        /// Where.
        place: String,
        /// The names that would choose.
        choices: Vec<String>,
    },
    /// Bytes are not those that their digest promises.
    #[error("{digest} in {place} is damaged: {mismatch}")]
    Mismatch {
        /// What was wanted.
        digest: Digest,
        /// Where it was read.
        place: String,
        /// How it differs.
        mismatch: Box<Mismatch>,
    },
    /// A document has the right digest and makes no sense.
    #[error("{digest} in {place} cannot be understood")]
    Document {
        /// Which.
        digest: Digest,
        /// Where.
        place: String,
        /// Why.
        source: Box<ocikit_spec::Error>,
    },
    /// The place itself is broken: an archive is truncated, a layout has no `index.json`.
    #[error("{place} is broken")]
    Broken {
        /// Which.
        place: String,
        /// How.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Something that may not be replaced is in the way.
    #[error("{place} already has {what}")]
    Exists {
        /// What.
        what: String,
        /// Where.
        place: String,
    },
    /// Credentials are missing or were refused.
    #[error("{place} does not allow it: {problem}")]
    Denied {
        /// Who refused.
        place: String,
        /// What it said.
        problem: String,
    },
    /// Whoever set this machine up does not want it to be used.
    #[error("{place} is blocked by {by}")]
    Blocked {
        /// What.
        place: String,
        /// Where that is written.
        by: &'static str,
    },
    /// No answer, or none that could be used, after all retries.
    #[error("{} {place}", .cause.failed())]
    Unreachable {
        /// Which server or repository.
        place: String,
        /// What kind of failure it was.
        cause: NoAnswer,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The referrers of an image could not be listed, so that a copy would lack signatures without anybody noticing.
    #[error("cannot list the referrers of {subject} in {place}")]
    Referrers {
        /// The image, or a manifest of it.
        subject: Digest,
        /// Where.
        place: String,
        /// Why: [`Error::Denied`] where it is not allowed, anything else where the registry fails.
        source: Arc<Error>,
    },
    /// A registry understood and said no.
    #[error("{place} refused: {problem}")]
    Refused {
        /// Who.
        place: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        problem: String,
    },
    /// A registry answers in a way that the distribution specification does not allow, as a web page does that answers
    /// everything.
    #[error("{place} does not answer as a registry does: {problem}")]
    Protocol {
        /// Who.
        place: String,
        /// What is wrong with the answer.
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
        /// Which.
        place: String,
    },
    /// Something that this place, or this version, cannot do.
    #[error("{place}: {what}")]
    Unsupported {
        /// Where.
        place: String,
        /// What.
        what: String,
    },
    /// An operation failed underneath.
    #[error("cannot {operation} {place}")]
    Failed {
        /// What was tried: a verb.
        operation: &'static str,
        /// On what.
        place: String,
        /// Why.
        source: io::Error,
    },
}

/// Why there is no usable answer from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// Nothing listens at the port.
    ConnectionRefused,
    /// The host name has no address.
    NameResolution,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// TLS was begun, and the server speaks plain HTTP.
    SpeaksPlainHttp,
    /// Plain HTTP was sent, and the server speaks TLS.
    SpeaksTls,
    /// Another server named it, and it is in a network where that server may not send us.
    OutOfReach,
    /// Nothing was received for too long, or a small document took too long.
    TimedOut,
    /// The server limits the rate of requests (status 429).
    RateLimited {
        /// Its `Retry-After`, if it sent one.
        retry_after: Option<Duration>,
    },
    /// The server kept answering with this status.
    Failing {
        /// The HTTP status: 408, 425 or 5xx.
        status: u16,
    },
    /// Anything else: the connection broke, or the answer makes no sense.
    Other,
}

impl NoAnswer {
    /// Whether there was never a connection.
    pub fn is_connect(self) -> bool {
        use NoAnswer::{ConnectionRefused, NameResolution, OutOfReach, SpeaksPlainHttp, SpeaksTls, Tls};
        matches!(self, ConnectionRefused | NameResolution | OutOfReach | SpeaksPlainHttp | SpeaksTls | Tls)
    }

    fn failed(self) -> &'static str {
        if self.is_connect() { "cannot connect to" } else { "cannot get an answer from" }
    }
}

/// How bytes differ from what their descriptor promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// They are others.
    #[error("its bytes have digest {0}")]
    Digest(Digest),
    /// They are fewer or more.
    #[error("it has {actual} bytes, not {expected}")]
    Size {
        /// As the descriptor says.
        expected: u64,
        /// As far as they were counted.
        actual: u64,
    },
}

fn listed(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn only_for(available: &[Platform]) -> String {
    if available.is_empty() { String::new() } else { format!(", only for {}", listed(available)) }
}

impl Error {
    /// A missing thing.
    pub fn not_found(what: impl ToString, place: impl ToString) -> Error {
        Error::NotFound { what: what.to_string(), place: place.to_string() }
    }

    /// No image for these platforms, of which there are others.
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

    /// Bytes that are not what their digest promises.
    pub fn mismatch(digest: &Digest, place: impl ToString, mismatch: Mismatch) -> Error {
        Error::Mismatch { digest: *digest, place: place.to_string(), mismatch: Box::new(mismatch) }
    }

    /// A document that makes no sense.
    pub fn document(digest: &Digest, place: impl ToString, source: ocikit_spec::Error) -> Error {
        Error::Document { digest: *digest, place: place.to_string(), source: Box::new(source) }
    }

    /// A place that is not what it should be.
    pub fn broken(place: impl ToString, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Broken { place: place.to_string(), source: source.into() }
    }

    /// A pipe where an archive is read more than once.
    pub fn pipe(place: impl ToString) -> Error {
        Error::Pipe { place: place.to_string() }
    }

    /// An answer that no registry should give.
    pub fn protocol(place: impl ToString, problem: impl ToString) -> Error {
        Error::Protocol { place: place.to_string(), problem: problem.to_string() }
    }

    /// A failed operation of the operating system: reading, writing, renaming.
    pub fn failed(operation: &'static str, place: impl ToString, source: io::Error) -> Error {
        Error::Failed { operation, place: place.to_string(), source }
    }

    /// Why there is no usable answer from a server, if that is what failed.
    pub fn no_answer(&self) -> Option<NoAnswer> {
        match self {
            Error::Unreachable { cause, .. } => Some(*cause),
            _ => None,
        }
    }

    /// An error on the way to the referrers of an image.
    pub fn referrers(subject: &Digest, place: impl ToString, source: Error) -> Error {
        Error::Referrers { subject: *subject, place: place.to_string(), source: Arc::new(source) }
    }

    /// Whether a name, document, blob, or the place itself does not exist, which many callers take for an answer.
    ///
    /// A local file or directory that cannot be opened because it does not exist counts; a file that cannot be written
    /// because its directory does not exist does not.
    pub fn is_not_found(&self) -> bool {
        match self {
            Error::NotFound { .. } | Error::NoPlatform { .. } => true,
            Error::Failed { operation: "open", source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// The same error for somebody else: what failed for one failed for all who shared it.
    pub fn again(error: &Arc<Error>) -> Error {
        let source = || Box::new(Shared(error.clone()));
        match &**error {
            Error::NotFound { what, place } => Error::NotFound { what: what.clone(), place: place.clone() },
            Error::NoPlatform { wanted, place, available } => {
                Error::NoPlatform { wanted: wanted.clone(), place: place.clone(), available: available.clone() }
            }
            Error::Ambiguous { place, choices } => Error::Ambiguous { place: place.clone(), choices: choices.clone() },
            Error::Mismatch { digest, place, mismatch } => Error::mismatch(digest, place, **mismatch),
            Error::Exists { what, place } => Error::Exists { what: what.clone(), place: place.clone() },
            Error::Denied { place, problem } => Error::Denied { place: place.clone(), problem: problem.clone() },
            Error::Blocked { place, by } => Error::Blocked { place: place.clone(), by },
            Error::Refused { place, status, problem } => {
                Error::Refused { place: place.clone(), status: *status, problem: problem.clone() }
            }
            Error::Protocol { place, problem } => Error::protocol(place, problem),
            Error::Referrers { subject, place, source } => {
                Error::Referrers { subject: *subject, place: place.clone(), source: source.clone() }
            }
            Error::Proxy { variable, problem } => Error::Proxy { variable, problem: problem.clone() },
            Error::Pipe { place } => Error::pipe(place),
            Error::Unsupported { place, what } => Error::Unsupported { place: place.clone(), what: what.clone() },
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

/// Says what the cause of an error says.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(source) => fmt::Display::fmt(source, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl StdError for Shared {}
