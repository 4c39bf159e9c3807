use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

/// A configuration of rustls. Two of them are equal if they are the same value.
#[derive(Clone)]
pub struct TlsConfig(pub Arc<ClientConfig>);

impl TlsConfig {
    /// Returns the configuration without its client certificate.
    pub(crate) fn without_identity(&self) -> TlsConfig {
        if !self.0.client_auth_cert_resolver.has_certs() {
            return self.clone();
        }
        let mut config = (*self.0).clone();
        config.client_auth_cert_resolver = Arc::new(NoIdentity);
        TlsConfig(Arc::new(config))
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}

impl PartialEq for TlsConfig {
    fn eq(&self, other: &TlsConfig) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsConfig {}

impl Hash for TlsConfig {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// Presents no client certificate.
#[derive(Debug)]
struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
