use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The result of starting a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A server could not be started. Once it runs, what fails is told to the client that asked for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use, not of this machine, or needs privileges.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause; its kind tells which.
        source: io::Error,
    },
    /// Another server has the directory.
    #[error("{} is served by another process", place.display())]
    InUse {
        /// Which.
        place: PathBuf,
    },
    /// The directory is not one of ours.
    #[error("{} is not a directory of this server: {problem}", place.display())]
    Foreign {
        /// Which.
        place: PathBuf,
        /// What speaks against it.
        problem: &'static str,
    },
    /// A file or directory of the storage cannot be read or written.
    #[error("cannot open {}", place.display())]
    Storage {
        /// Which.
        place: PathBuf,
        /// Why.
        source: io::Error,
    },
}
