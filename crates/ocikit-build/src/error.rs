use std::io;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that BuildKit needs could not be started; usually it is not installed.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The underlying error.
        source: io::Error,
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
}
