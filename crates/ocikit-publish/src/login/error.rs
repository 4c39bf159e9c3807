use super::kind::ExchangeKind;

/// Why a registry cannot be logged in to by exchanged tokens. No message has a token or a part of a response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The host is not that of a known service.
    #[error("cannot log in to {registry}: it is not known which tokens it exchanges")]
    UnknownRegistry {
        /// The registry.
        registry: String,
    },
    /// The token of the job is for another registry.
    #[error("cannot log in to {registry}: the token of the job is for {expected}")]
    OtherRegistry {
        /// The registry.
        registry: String,
        /// The registry of the job.
        expected: String,
    },
    /// A variable is not set.
    #[error("cannot log in by {kind}: the environment variable {variable} is not set")]
    Missing {
        /// The way to log in.
        kind: ExchangeKind,
        /// The variable, or several with `or`.
        variable: &'static str,
    },
    /// The job has no OIDC token.
    #[error("cannot log in by {kind}: the job has no OIDC token")]
    NoIdentity {
        /// The way to log in.
        kind: ExchangeKind,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A variable or a file has a value that cannot be used.
    #[error("cannot use {what}: {problem}")]
    Invalid {
        /// The variable or file.
        what: String,
        /// The problem.
        problem: &'static str,
    },
    /// A service refuses the exchange.
    #[error("cannot exchange the token: {service} answered {status}")]
    Refused {
        /// The service.
        service: &'static str,
        /// The status of its response.
        status: u16,
    },
    /// A service gave no usable response.
    #[error("cannot exchange the token: {service}: {problem}")]
    Service {
        /// The service.
        service: &'static str,
        /// The problem.
        problem: String,
    },
}
