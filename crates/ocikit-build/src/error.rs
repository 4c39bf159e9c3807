use std::io;
use std::time::Duration;

use ocikit_spec::Digest;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the build cannot be used.
    #[error("cannot use {option} `{value}`: {reason}")]
    Option {
        /// The kind of option, in the words of the command line: `secret`.
        option: &'static str,
        /// The value that was given, without any secret.
        value: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A file or directory that the build needs does not exist.
    #[error("cannot read {what} {path}: no such file or directory")]
    Missing {
        /// What it is for.
        what: &'static str,
        /// Its path.
        path: String,
    },
    /// A program that BuildKit needs could not be started; usually it is not installed.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The underlying error.
        source: io::Error,
    },
    /// BuildKit cannot be started without root on this machine.
    #[error("cannot start buildkitd without root: {reason}")]
    Rootless {
        /// What is missing.
        reason: String,
    },
    /// An image is not one of BuildKit for this machine.
    #[error("cannot install BuildKit from {image}: {reason}")]
    Unfit {
        /// The location of the image.
        image: String,
        /// Why not.
        reason: String,
    },
    /// An installed BuildKit cannot be removed, because a build uses it.
    #[error("cannot remove BuildKit {digest}: a build uses it")]
    InUse {
        /// The digest of its image.
        digest: Digest,
    },
    /// No Dockerfile can be generated for a project.
    #[error("cannot generate a Dockerfile for {runtime}: {reason}")]
    Generate {
        /// The runtime, as on the command line.
        runtime: String,
        /// Why not.
        reason: String,
    },
    /// A build context that was read from a stream cannot be used.
    #[error("cannot read the build context: {reason}")]
    Context {
        /// Why not.
        reason: String,
    },
    /// A BuildKit daemon was started and did not become ready.
    #[error("buildkitd {problem}")]
    Daemon {
        /// What happened instead.
        problem: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// The build failed: the Dockerfile is invalid, a step failed, or the connection to the daemon broke.
    #[error("the build failed: {message}")]
    Solve {
        /// The message of BuildKit.
        message: String,
        /// The last lines of the failed step.
        log: String,
    },
    /// The build exceeded its time limit and was cancelled.
    #[error("the build took longer than {} seconds and was cancelled", .limit.as_secs())]
    TimedOut {
        /// The time limit.
        limit: Duration,
    },
    /// The result could not be read or stored.
    #[error(transparent)]
    Image(#[from] ocikit_image::Error),
    /// An operation of the operating system failed.
    #[error("cannot {operation}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The underlying error.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Failed { operation, source }
    }

    /// Returns a function that makes the error of an option with this value, for a reason.
    pub(crate) fn option(option: &'static str, value: &str) -> impl Fn(&str) -> Error {
        move |reason| Error::Option { option, value: value.to_owned(), reason: reason.to_owned() }
    }
}
