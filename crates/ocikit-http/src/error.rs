use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

/// Why the settings of a client or server cannot be used. A failed request is a
/// [`RequestError`](crate::RequestError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory with certificates or a key cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// CA certificates cannot be used.
    #[error("cannot use {place}")]
    Certificates {
        /// The file; for certificates from memory, what they are for.
        place: String,
        /// What is wrong with them.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A client certificate or its key cannot be used.
    #[error("cannot use {place}")]
    Identity {
        /// The file; for a certificate or key from memory, what it is.
        place: String,
        /// What is wrong with it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The address of a proxy is not a URL.
    #[error("cannot use the proxy in {variable}: {problem}")]
    Proxy {
        /// The variable that programs read the address from: `HTTP_PROXY` or `HTTPS_PROXY`.
        variable: &'static str,
        /// What is wrong with the address, which is not repeated: it may hold a password.
        problem: String,
    },
    /// A server that speaks TLS was named, and this program was built without the feature `tls`.
    #[error("this program was built without TLS")]
    NoTls,
    /// The HTTP client cannot be created.
    #[error("cannot create the HTTP client")]
    Client(#[source] Box<dyn StdError + Send + Sync>),
}

/// The result of reading settings.
pub type Result<T, E = Error> = std::result::Result<T, E>;
