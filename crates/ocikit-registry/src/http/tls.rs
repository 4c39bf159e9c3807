//! TLS, set up when the first connection needs it.

use std::path::Path;
use std::sync::Arc;

use ocikit_image::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use zeroize::Zeroizing;

use crate::hosts::{Identity, TlsSettings, Verify};

/// A configuration for a client that only speaks plain HTTP: it trusts nobody and costs nothing.
pub(crate) fn none() -> ClientConfig {
    builder(Arc::new(aws_lc_rs::default_provider()))
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Reads certificates and keys from their files, and the system's where these settings ask for them. It blocks.
///
/// # Errors
///
/// [`Error::Broken`] and [`Error::Failed`], naming the file.
pub(crate) fn configure(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match settings.verify {
        Verify::Nothing | Verify::NorTls => Arc::new(Unchecked(provider.clone())),
        Verify::Full => {
            let mut authorities = Vec::new();
            for file in &settings.authorities {
                authorities.extend(certificates(file)?);
            }
            let verifier = Verifier::new_with_extra_roots(authorities, provider.clone());
            Arc::new(verifier.map_err(|error| Error::broken("the system's certificates", error))?)
        }
    };
    let builder = builder(provider).dangerous().with_custom_certificate_verifier(verifier);
    match &settings.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { certificate, key }) => {
            let secret = Zeroizing::new(read(key)?);
            let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|error| Error::broken(key.display(), error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, secret)
                .map_err(|error| Error::broken(certificate.display(), error))
        }
    }
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own cipher suites serve the versions that rustls has")
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(file)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| Error::broken(file.display(), error))?;
    if found.is_empty() {
        return Err(Error::broken(file.display(), "it holds no certificate in PEM"));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    crate::files::read(file).map_err(|error| Error::failed("read", file.display(), error))
}

/// Lets any certificate pass, and still checks that the server holds its key.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
