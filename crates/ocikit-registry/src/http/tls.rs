//! Configures TLS when the first connection needs it.

use std::path::Path;
use std::sync::Arc;

use ocikit_image::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use zeroize::Zeroizing;

use crate::hosts::{Identity, TlsSettings, Verify};

/// Returns a configuration for plain HTTP only. It trusts no certificate authority and reads no files.
pub(crate) fn none() -> ClientConfig {
    builder(Arc::new(aws_lc_rs::default_provider()))
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Returns the configuration for these settings. Reads certificates and keys from files, and the system's certificates
/// where the settings require them. This function blocks.
///
/// # Errors
///
/// [`Error::Broken`] and [`Error::Failed`], naming the file.
pub(crate) fn configure(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match settings.verify {
        Verify::Nothing | Verify::InsecureAllowHttp => Arc::new(NoVerification(provider.clone())),
        Verify::Full => {
            let mut authorities = Vec::new();
            for file in &settings.authorities {
                authorities.extend(certificates(file)?);
            }
            let verifier = Verifier::new_with_extra_roots(authorities.clone(), provider.clone());
            let verifier = verifier.map_err(|error| Error::broken("the system's certificates", error))?;
            match authorities.is_empty() {
                true => Arc::new(verifier),
                false => Arc::new(PinnedOrVerified { pinned: authorities, others: Arc::new(verifier) }),
            }
        }
    };
    let builder = builder(provider).dangerous().with_custom_certificate_verifier(verifier);
    match &settings.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { certificate, key }) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| Error::broken(certificate.display(), error)),
    }
}

/// Checks that the files of these settings can be used. This function blocks.
///
/// # Errors
///
/// As [`configure`].
pub(crate) fn check(settings: &TlsSettings) -> Result<()> {
    for file in &settings.authorities {
        certificates(file)?;
    }
    if let Some(Identity { certificate, key }) = &settings.identity {
        certificates(certificate)?;
        private_key(key)?;
    }
    Ok(())
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
        return Err(Error::broken(file.display(), "it contains no certificate in PEM format"));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = Zeroizing::new(read(file)?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| Error::broken(file.display(), error))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    crate::files::read(file).map_err(|error| Error::failed("read", file.display(), error))
}

/// Trusts the listed server certificates, in addition to those with a chain to a certificate authority.
///
/// A self-signed server certificate is not a certificate authority (`CA:false`), or, as `openssl req -x509` makes it,
/// an authority that webpki does not accept as a server certificate. As in Go, a certificate in the list is trusted for
/// its names while it is valid.
#[derive(Debug)]
struct PinnedOrVerified {
    pinned: Vec<CertificateDer<'static>>,
    others: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for PinnedOrVerified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_given = self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref());
        if !is_given {
            return self.others.verify_server_cert(certificate, chain, name, ocsp, now);
        }
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.others.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.others.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
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

/// Accepts any certificate, and still verifies that the server holds its key.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
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
            let verifier = PinnedOrVerified { pinned: vec![given.clone()], others };
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
