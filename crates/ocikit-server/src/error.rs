use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The result of starting a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not be started. Errors of a running server are sent to the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use, does not belong to this machine, or requires privileges.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Another server uses the directory.
    #[error("{} is served by another process", place.display())]
    InUse {
        /// The directory.
        place: PathBuf,
    },
    /// The directory is not a storage directory.
    #[error("{} is not a directory of this server: {problem}", place.display())]
    Foreign {
        /// The directory.
        place: PathBuf,
        /// Why not.
        problem: &'static str,
    },
    /// A file or directory of the storage cannot be read or written.
    #[error("cannot open {}", place.display())]
    Storage {
        /// The path.
        place: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
