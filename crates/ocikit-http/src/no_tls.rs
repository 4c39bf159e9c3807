//! Stands in for TLS in a build without the feature `tls`: plain HTTP only.

use std::error::Error as StdError;

use crate::error::{Error, Result};
use crate::settings::TlsSettings;
use crate::tls_config::TlsConfig;
use ocikit_spec::NoAnswer;

/// Whether this build has TLS.
pub(crate) const AVAILABLE: bool = false;

/// The configuration of a client.
#[derive(Debug, Clone)]
pub(crate) struct Configuration;

/// Returns the configuration for plain HTTP.
pub(crate) fn none() -> Configuration {
    Configuration
}

/// Returns a configuration. There is none in this build.
pub(crate) fn copy_of(config: &TlsConfig) -> Configuration {
    match *config {}
}

/// Fails: this build has no TLS.
///
/// # Errors
///
/// [`Error::NoTls`].
pub(crate) fn configure(_: &TlsSettings) -> Result<TlsConfig> {
    Err(Error::NoTls)
}

/// Returns the builder of a client for plain HTTP.
pub(crate) fn apply(builder: reqwest::ClientBuilder, _: Configuration, _: &[&str]) -> reqwest::ClientBuilder {
    builder
}

/// Returns whether an error is one of TLS. None is.
pub(crate) fn is_error(_: &(dyn StdError + 'static)) -> bool {
    false
}

/// Returns the kind of failure of a TLS error, and what is wrong.
pub(crate) fn problem(_: &(dyn StdError + 'static)) -> Option<(NoAnswer, String)> {
    None
}

impl TlsSettings {
    /// Checks that the files with certificates and keys can be read. A build without the feature `tls` cannot check
    /// more, and connects to no server that needs them.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if a file cannot be read.
    pub fn check(&self) -> Result<()> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        self.authorities.iter().chain(identity).try_for_each(|pem| pem.read().map(drop))
    }

    /// Fails: this build has no TLS.
    ///
    /// # Errors
    ///
    /// [`Error::NoTls`].
    pub fn load(&self) -> Result<TlsSettings> {
        Err(Error::NoTls)
    }
}
