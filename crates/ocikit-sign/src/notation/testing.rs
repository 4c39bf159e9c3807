//! Certificates, envelopes and trust policies for tests.

use jiff::Timestamp;
use ocikit_spec::{Annotations, Descriptor, MediaType};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose,
};

use crate::key::PrivateKey;
use crate::notation::attributes::SigningScheme;
use crate::notation::chain::Chain;
use crate::notation::envelope::{EnvelopeFormat, sign};
use crate::notation::options::{EnvelopeSigner, Options};
use crate::notation::policy::TrustPolicy;
use crate::notation::trust::{NotationTrust, TrustStore};
use crate::pki::Certificate;
use crate::signer::Signer;

/// Keys and certificates that an authority issues, with changes by the test.
pub(super) struct Authority {
    pub(super) root: rcgen::Certificate,
    pub(super) issuer: Issuer<'static, rcgen::KeyPair>,
}

pub(super) type Change = Box<dyn FnOnce(&mut CertificateParams)>;

pub(super) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    for (kind, value) in [
        (DnType::CountryName, "US"),
        (DnType::StateOrProvinceName, "WA"),
        (DnType::OrganizationName, "Acme"),
        (DnType::CommonName, name),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params
}

pub(super) fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    Authority { root, issuer: Issuer::new(params, key) }
}

impl Authority {
    pub(super) fn certificate(&self) -> Certificate {
        Certificate::from_der(self.root.der()).unwrap()
    }

    pub(super) fn issue(&self, key: &PrivateKey, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = params("signer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut params);
        let key = rcgen::KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
        Certificate::from_der(params.signed_by(&key, &self.issuer).unwrap().der()).unwrap()
    }
}

pub(super) fn something_critical() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

pub(super) fn at(day: &str) -> Timestamp {
    format!("{day}T00:00:00Z").parse().unwrap()
}

pub(super) fn subject() -> Descriptor {
    Descriptor::of(MediaType::OCI_MANIFEST, b"an image")
}

pub(super) fn plain<'a>(signer: &'a dyn Signer, chain: &'a Chain, metadata: &'a Annotations) -> Options<'a> {
    Options {
        by: EnvelopeSigner::Key { signer, chain },
        time: at("2026-06-01"),
        expiry: None,
        metadata,
        scheme: SigningScheme::X509,
        authority: None,
    }
}

pub(super) async fn seal(
    envelope_format: EnvelopeFormat,
    key: &PrivateKey,
    chain: &Chain,
    expiry: Option<&str>,
) -> Vec<u8> {
    let metadata = Annotations::new();
    let options = Options { expiry: expiry.map(at), ..plain(key, chain, &metadata) };
    sign(envelope_format, &subject(), &options).await.unwrap().0
}

pub(super) fn policy(level: &str) -> TrustPolicy {
    let text = format!(
        r#"{{"version":"1.0","trustPolicies":[{{"name":"p","registryScopes":["*"],
        "signatureVerification":{{"level":"{level}"}},"trustStores":["ca:acme"],
        "trustedIdentities":["x509.subject: C=US, ST=WA, O=Acme"]}}]}}"#
    );
    TrustPolicy::parse(text.as_bytes()).unwrap()
}

pub(super) fn trust(level: &str, trusted: &Authority, now: &str) -> NotationTrust {
    let mut store = TrustStore::new();
    store.add("ca", "acme", vec![trusted.certificate()]);
    NotationTrust::new(&policy(level), &store, "", at(now)).unwrap()
}

pub(super) const SEALS: [EnvelopeFormat; 2] = [EnvelopeFormat::Jws, EnvelopeFormat::Cose];
