//! Configures TLS when the first connection needs it.

use std::error::Error as StdError;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::certificate;
use crate::error::{Error, Result};
use crate::settings::{Identity, Pem, TlsSettings, Verify};
use crate::tls_config::TlsConfig;
use ocikit_spec::NoAnswer;

/// Whether this build has TLS.
pub(crate) const AVAILABLE: bool = true;

/// The configuration of a client.
pub(crate) type Configuration = ClientConfig;

/// Returns a configuration to change.
pub(crate) fn copy_of(config: &TlsConfig) -> Configuration {
    (*config.0).clone()
}

/// Returns the builder of a client with this configuration, which offers these application protocols.
pub(crate) fn apply(
    builder: reqwest::ClientBuilder,
    mut configuration: Configuration,
    protocols: &[&str],
) -> reqwest::ClientBuilder {
    configuration.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    builder.tls_backend_preconfigured(configuration)
}

/// Returns whether an error is one of TLS.
pub(crate) fn is_error(error: &(dyn StdError + 'static)) -> bool {
    error.is::<rustls::Error>()
}

/// Returns the kind of failure of a TLS error, and what is wrong.
pub(crate) fn problem(error: &(dyn StdError + 'static)) -> Option<(NoAnswer, String)> {
    let error = error.downcast_ref::<rustls::Error>()?;
    // The first byte of an HTTP answer is not a TLS record type.
    if matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) {
        return Some((NoAnswer::SpeaksPlainHttp, error.to_string()));
    }
    Some(certificate::problem(error).unwrap_or_else(|| (NoAnswer::Tls, error.to_string())))
}

/// Returns a configuration for plain HTTP only. It trusts no certificate authority and reads no files.
pub(crate) fn none() -> ClientConfig {
    builder(Arc::new(aws_lc_rs::default_provider()))
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// What messages call CA certificates from memory.
const AUTHORITIES: &str = "the CA certificates";
/// What messages call a client certificate from memory.
const CLIENT_CERTIFICATE: &str = "the client certificate";
/// What messages call the key of a client certificate from memory.
const CLIENT_KEY: &str = "the client key";

/// Returns the configuration for these settings. Reads certificates and keys from files, and the system's certificates
/// where the settings require them. This function blocks.
///
/// # Errors
///
/// Those of [`TlsSettings::check`], and [`Error::Certificates`] if the system's certificates cannot be used.
pub(crate) fn configure(settings: &TlsSettings) -> Result<TlsConfig> {
    if let Some(config) = &settings.config {
        return Ok(config.clone());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let authorities = authorities(settings)?;
    let builder = match settings.verify {
        Verify::Nothing | Verify::InsecureAllowHttp => {
            let rule = CertificateRule::Any;
            verified_by(Arc::new(CertificateVerifier { rule, provider: provider.clone() }), provider)
        }
        Verify::Full if settings.system_authorities || !authorities.is_empty() => {
            let others = chain_verifier(settings, &authorities, &provider)?;
            match authorities.is_empty() {
                true => verified_by(others, provider),
                false => {
                    let rule = CertificateRule::PinnedOr(authorities, others);
                    verified_by(Arc::new(CertificateVerifier { rule, provider: provider.clone() }), provider)
                }
            }
        }
        Verify::Full => builder(provider).with_root_certificates(RootCertStore::empty()),
    };
    let config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = client_certificate(identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable_identity(&identity.certificate, CLIENT_CERTIFICATE, error))?
        }
    };
    Ok(TlsConfig(Arc::new(config)))
}

impl TlsSettings {
    /// Checks that the certificates and keys can be used. This function blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if a file cannot be read, [`Error::Certificates`] or [`Error::Identity`] if it contains no
    /// certificate or key.
    pub fn check(&self) -> Result<()> {
        authorities(self)?;
        self.identity.as_ref().map_or(Ok(()), |identity| client_certificate(identity).map(drop))
    }

    /// Reads all files and creates the configuration, for a program that needs errors before the first request.
    /// Loading the CA certificates of the system takes a few milliseconds. This function blocks.
    ///
    /// # Errors
    ///
    /// Those of [`TlsSettings::check`]; [`Error::Identity`] if the key does not match the client certificate, and
    /// [`Error::Certificates`] if the system's certificates cannot be used.
    pub fn load(&self) -> Result<TlsSettings> {
        Ok(TlsSettings { config: Some(configure(self)?), ..TlsSettings::default() })
    }
}

fn verified_by(
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    builder(provider).dangerous().with_custom_certificate_verifier(verifier)
}

/// Returns the verifier of certificate chains.
fn chain_verifier(
    settings: &TlsSettings,
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>> {
    let unusable = |place: &str, source: Box<dyn StdError + Send + Sync>| {
        let place = place.to_owned();
        Error::Certificates { place, source }
    };
    if settings.system_authorities {
        let verifier = Verifier::new_with_extra_roots(authorities.iter().cloned(), provider.clone());
        return match verifier {
            Ok(verifier) => Ok(Arc::new(verifier)),
            Err(error) => Err(unusable("the system's certificates", error.into())),
        };
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| unusable(AUTHORITIES, error.into()))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    Ok(verifier.map_err(|error| unusable(AUTHORITIES, error.into()))?)
}

fn authorities(settings: &TlsSettings) -> Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for pem in &settings.authorities {
        let certificates = certificates(pem)?;
        let refuse = |source| Error::Certificates { place: pem.place(AUTHORITIES), source };
        let certificates = certificates.map_err(refuse)?;
        // Checked one by one: the verifier would blame the system's certificates.
        for certificate in &certificates {
            RootCertStore::empty().add(certificate.clone()).map_err(|error| refuse(error.into()))?;
        }
        found.extend(certificates);
    }
    Ok(found)
}

fn client_certificate(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let Identity { certificate, key } = identity;
    let chain = certificates(certificate)?;
    let chain = chain.map_err(|error| unusable_identity(certificate, CLIENT_CERTIFICATE, error))?;
    let text = key.read()?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| unusable_identity(key, CLIENT_KEY, error))?;
    Ok((chain, key))
}

fn unusable_identity(pem: &Pem, what: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::Identity { place: pem.place(what), source: source.into() }
}

/// Returns the certificates in a text. The inner error says why it has none.
fn certificates(pem: &Pem) -> Result<Result<Vec<CertificateDer<'static>>, Box<dyn StdError + Send + Sync>>> {
    let text = pem.read()?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    Ok(match found {
        Ok(found) if found.is_empty() => Err("it contains no certificate in PEM format".into()),
        found => found.map_err(Into::into),
    })
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own cipher suites serve the versions that rustls has")
}

/// Verifies the certificate of a server by a rule of its own, and that the server holds its key.
#[derive(Debug)]
struct CertificateVerifier {
    rule: CertificateRule,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum CertificateRule {
    /// Accepts any certificate.
    Any,
    /// Trusts the listed server certificates, in addition to those that the other verifier trusts.
    ///
    /// A self-signed server certificate is not a certificate authority (`CA:false`), or, as `openssl req -x509` makes it,
    /// an authority that webpki does not accept as a server certificate. As in Go, a certificate in the list is trusted for
    /// its names while it is valid.
    PinnedOr(Vec<CertificateDer<'static>>, Arc<dyn ServerCertVerifier>),
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            CertificateRule::Any => Ok(ServerCertVerified::assertion()),
            CertificateRule::PinnedOr(pinned, _)
                if pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref()) =>
            {
                verify_pinned(certificate, name, now)
            }
            CertificateRule::PinnedOr(_, others) => others.verify_server_cert(certificate, chain, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the validity and the names of a certificate that is trusted by itself.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    let refuse = |error| Err(rustls::Error::InvalidCertificate(error));
    let Some([from, to]) = validity(certificate) else { return refuse(CertificateError::BadEncoding) };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < from {
        return refuse(CertificateError::NotValidYet);
    }
    if now > to {
        return refuse(CertificateError::Expired);
    }
    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    Ok(ServerCertVerified::assertion())
}

/// Returns the first and last second of the validity of a certificate (RFC 5280, section 4.1.2.5), as Unix time.
fn validity(certificate: &[u8]) -> Option<[i64; 2]> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // The serial number, the algorithm and the issuer precede the validity.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (from_tag, from, rest) = element(validity)?;
    let (to_tag, to, _) = element(rest)?;
    Some([time(from_tag, from)?, time(to_tag, to)?])
}

/// Splits off the first DER element: its tag, its contents, and the rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let digits = rest.get(..length & 0x7f).filter(|digits| (1..=4).contains(&digits.len()))?;
        rest = &rest[digits.len()..];
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    }
    Some((*tag, rest.get(..length)?, rest.get(length..)?))
}

/// Parses a UTCTime or GeneralizedTime, with seconds and in UTC as RFC 5280 requires, as Unix time.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    const UTC: u8 = 0x17;
    const GENERALIZED: u8 = 0x18;
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        // Two-digit years from 50 on are 19xx (RFC 5280, section 4.1.2.5.1).
        UTC if text.as_bytes().first()? >= &b'5' => format!("19{text}"),
        UTC => format!("20{text}"),
        GENERALIZED => text.to_owned(),
        _ => return None,
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", full.strip_suffix('Z')?).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_certificate_is_trusted_for_its_names_while_valid() {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = rcgen::KeyPair::generate().unwrap();
        let make = |is_authority: bool, years: [i32; 2]| {
            let mut params = rcgen::CertificateParams::new(vec!["registry.test".to_owned()]).unwrap();
            if is_authority {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }
            params.not_before = rcgen::date_time_ymd(years[0], 1, 1);
            params.not_after = rcgen::date_time_ymd(years[1], 1, 1);
            params.self_signed(&key).unwrap().der().clone()
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let check = |given: &CertificateDer<'static>, shown: &CertificateDer<'static>, name: &'static str| {
            let others = Arc::new(Verifier::new_with_extra_roots([given.clone()], provider.clone()).unwrap());
            let rule = CertificateRule::PinnedOr(vec![given.clone()], others);
            let verifier = CertificateVerifier { rule, provider: provider.clone() };
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(shown, &[], &name, &[], now).map(drop)
        };
        for is_authority in [false, true] {
            let certificate = make(is_authority, [2020, 2060]);
            assert_eq!(check(&certificate, &certificate, "registry.test"), Ok(()), "{is_authority}");
            check(&certificate, &certificate, "other.test").unwrap_err();
            let other = make(is_authority, [2019, 2060]);
            check(&certificate, &other, "registry.test").map(|()| other).err();
            for years in [[2000, 2010], [2050, 2060]] {
                let certificate = make(is_authority, years);
                check(&certificate, &certificate, "registry.test").unwrap_err();
            }
        }
    }

    #[test]
    fn damaged_certificates_do_not_panic() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert!(validity(&der).is_some_and(|[from, to]| from < to));
        for length in 0..der.len() {
            validity(&der[..length]);
        }
        for at in 0..der.len() {
            let mut broken = der.clone();
            broken[at] ^= 0xff;
            validity(&broken);
        }
    }
}
