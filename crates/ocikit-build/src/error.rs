use std::io;

/// The result of building.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An image was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that BuildKit needs could not be started; usually it is not installed.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why.
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
    /// BuildKit did not build it: the Dockerfile is wrong, a step failed, the daemon is gone.
    #[error("the build failed: {message}")]
    Solve {
        /// What BuildKit said.
        message: String,
        /// The last lines that the failed step printed.
        log: String,
    },
    /// What BuildKit built could not be read or kept.
    #[error(transparent)]
    Image(#[from] ocikit_image::Error),
    /// The system failed underneath.
    #[error("cannot {operation}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Failed { operation, source }
    }
}
