//! TLS settings for a server.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files;
use crate::tls_config::TlsConfig;

/// The TLS settings for a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsSettings {
    /// Whether its certificate is verified.
    pub verify: Verify,
    /// CA certificates in PEM. A server certificate among them is trusted as well, for its names.
    pub authorities: Vec<Pem>,
    /// Whether the CA certificates of the system are trusted. By default they are.
    pub system_authorities: bool,
    /// The client certificate and its key.
    pub identity: Option<Identity>,
    /// A configuration that the caller made. It replaces all other settings, except that the client offers the
    /// application protocols that it needs.
    pub config: Option<TlsConfig>,
}

ocikit_spec::setters! {
    TlsSettings {
        verify: Verify,
        authorities: Vec<Pem>,
        system_authorities: bool,
        identity: Option<Identity>,
        config: Option<TlsConfig>,
    }
}

impl Default for TlsSettings {
    /// Returns settings that trust the system's CA certificates, without a client certificate.
    fn default() -> TlsSettings {
        TlsSettings {
            verify: Verify::Full,
            authorities: Vec::new(),
            system_authorities: true,
            identity: None,
            config: None,
        }
    }
}

impl TlsSettings {
    /// Returns the settings for another server, which gets no client certificate.
    pub fn without_identity(&self) -> TlsSettings {
        let config = self.config.as_ref().map(TlsConfig::without_identity);
        TlsSettings { identity: None, config, ..self.clone() }
    }
}

/// Whether the certificate of a server is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// It must be valid, match the name of the server, and be issued by a trusted certificate authority.
    #[default]
    Full,
    /// It is not verified. An attacker on the network can read and change everything.
    Nothing,
    /// It is not verified, and a server that does not speak TLS is contacted over plain HTTP: what docker and podman
    /// call insecure.
    InsecureAllowHttp,
}

/// A client certificate, with its intermediate certificates, and its key. Both are PEM; the key is not encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificates.
    pub certificate: Pem,
    /// The key.
    pub key: Pem,
}

/// A text in PEM: in a file, which is read when it is needed, or in memory.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file.
    File(PathBuf),
    /// The text itself. It is wiped from memory when it is dropped.
    Text(Zeroizing<Vec<u8>>),
}

impl Pem {
    /// Reads the text. A file may have at most 16 MiB.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the file cannot be read.
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Pem::File(path) => {
                files::read(path).map(Zeroizing::new).map_err(|source| Error::Read { path: path.clone(), source })
            }
            Pem::Text(text) => Ok(text.clone()),
        }
    }

    /// Returns the name of the file; for a text in memory, what it is.
    #[cfg(feature = "tls")]
    pub(crate) fn place(&self, what: &str) -> String {
        match self {
            Pem::File(path) => path.display().to_string(),
            Pem::Text(_) => what.to_owned(),
        }
    }
}

impl Hash for Pem {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Pem::File(path) => path.hash(state),
            Pem::Text(text) => text.as_slice().hash(state),
        }
    }
}

impl fmt::Debug for Pem {
    /// Omits a text, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Text(_) => f.write_str("Text(***)"),
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Pem {
        Pem::File(path)
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Pem {
        Pem::File(path.to_owned())
    }
}

impl From<Vec<u8>> for Pem {
    fn from(text: Vec<u8>) -> Pem {
        Pem::Text(Zeroizing::new(text))
    }
}
