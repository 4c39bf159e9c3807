/// A configuration of TLS. There is none in a build without the feature `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TlsConfig {}

impl TlsConfig {
    /// Returns the configuration without its client certificate.
    pub(crate) fn without_identity(&self) -> TlsConfig {
        match *self {}
    }
}
