//! A timestamp authority for tests, with configurable faults.

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::*;
use crate::key::{KeyKind, PrivateKey, Scheme};

pub(crate) struct Tsa {
    key: PrivateKey,
    pub(crate) certificate: Certificate,
    pub(crate) root: Certificate,
}

/// The content of a token.
pub(crate) struct TokenContent {
    pub(crate) hash: Hash,
    /// In the form `20260601120000Z`.
    pub(crate) time: String,
    pub(crate) nonce: u64,
    pub(crate) with_certificate: bool,
    /// The attribute that names the signer's certificate, and its content.
    pub(crate) named: Option<Vec<u8>>,
    pub(crate) digest: Option<Vec<u8>>,
    pub(crate) critical: bool,
    pub(crate) unsigned: Vec<u8>,
}

impl TokenContent {
    pub(crate) fn at(time: &str) -> TokenContent {
        TokenContent {
            hash: Hash::Sha256,
            time: time.to_owned(),
            nonce: 7,
            with_certificate: true,
            named: None,
            digest: None,
            critical: false,
            unsigned: Vec::new(),
        }
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Time");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    params
}

/// Returns the extended key usage of a timestamp authority; `rcgen` writes it as not critical.
pub(crate) fn usage(critical: bool, der: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 37], der.to_vec());
    extension.set_criticality(critical);
    extension
}

pub(crate) const FOR_TIMESTAMPS: &[u8] = &[0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8];

impl Tsa {
    pub(crate) fn new() -> Tsa {
        Tsa::with(|_| {}, |_| {})
    }

    pub(crate) fn with(
        of_root: impl FnOnce(&mut CertificateParams),
        of_signer: impl FnOnce(&mut CertificateParams),
    ) -> Tsa {
        let mut root = params("root");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        of_root(&mut root);
        let root_key = KeyPair::generate().unwrap();
        let certificate = root.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(root, root_key);
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let mut signer = params("signer");
        signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        signer.custom_extensions = vec![usage(true, FOR_TIMESTAMPS)];
        of_signer(&mut signer);
        let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
        let signer = signer.signed_by(&pair, &issuer).unwrap();
        Tsa {
            key,
            certificate: Certificate::from_der(signer.der()).unwrap(),
            root: Certificate::from_der(certificate.der()).unwrap(),
        }
    }

    pub(crate) fn token(&self, message: &[u8], making: &TokenContent) -> Vec<u8> {
        let sequence = |parts: &[Vec<u8>]| field(Tag::Sequence, &parts.concat()).unwrap();
        let set = |parts: &[Vec<u8>]| field(Tag::Set, &parts.concat()).unwrap();
        let oid = |oid: ObjectIdentifier| oid.to_der().unwrap();
        let octets = |bytes: &[u8]| field(Tag::OctetString, bytes).unwrap();
        let algorithm = |hash: Hash| sequence(&[oid(hash.oid())]);
        let critical = match making.critical {
            false => Vec::new(),
            true => {
                let extension =
                    sequence(&[oid(ObjectIdentifier::new_unwrap("1.2.3")), true.to_der().unwrap(), octets(b"")]);
                field(outer(1), &extension).unwrap()
            }
        };
        let content = sequence(&[
            1u8.to_der().unwrap(),
            oid(ObjectIdentifier::new_unwrap("1.2.3.4")),
            sequence(&[algorithm(making.hash), octets(&making.hash.digest(message))]),
            1u8.to_der().unwrap(),
            field(Tag::GeneralizedTime, making.time.as_bytes()).unwrap(),
            sequence(&[2u8.to_der().unwrap(), field(inner(0), &[1, 0xf4]).unwrap()]),
            making.nonce.to_der().unwrap(),
            critical,
        ]);
        let digest = making.digest.clone().unwrap_or_else(|| Hash::Sha256.digest(&content));
        let print = octets(&Hash::Sha256.digest(self.certificate.to_der()));
        let named = making.named.clone().unwrap_or_else(|| sequence(&[sequence(&[sequence(&[print])])]));
        let mut attributes = vec![
            sequence(&[oid(CONTENT_TYPE), set(&[oid(TIMESTAMP_INFO)])]),
            sequence(&[oid(MESSAGE_DIGEST), set(&[octets(&digest)])]),
        ];
        if !named.is_empty() {
            attributes.push(sequence(&[oid(SIGNING_CERTIFICATE), set(&[named])]));
        }
        let signed = set(&attributes);
        let signature = self.key.sign(Scheme::EcdsaP256Sha256, &signed).unwrap();
        let certificate = self.certificate.parsed().tbs_certificate();
        let signer = sequence(&[
            1u8.to_der().unwrap(),
            sequence(&[certificate.issuer().to_der().unwrap(), certificate.serial_number().to_der().unwrap()]),
            algorithm(Hash::Sha256),
            field(outer(0), &attributes.concat()).unwrap(),
            sequence(&[oid(ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"))]),
            octets(&signature),
            making.unsigned.clone(),
        ]);
        let certificates = match making.with_certificate {
            true => field(outer(0), self.certificate.to_der()).unwrap(),
            false => Vec::new(),
        };
        let data = sequence(&[
            3u8.to_der().unwrap(),
            set(&[algorithm(Hash::Sha256)]),
            sequence(&[oid(TIMESTAMP_INFO), field(outer(0), &octets(&content)).unwrap()]),
            certificates,
            set(&[signer]),
        ]);
        sequence(&[oid(SIGNED_DATA), field(outer(0), &data).unwrap()])
    }

    /// Returns the response of a server: a granted token.
    pub(crate) fn answer(&self, message: &[u8], making: &TokenContent) -> Vec<u8> {
        let status = field(Tag::Sequence, &0u8.to_der().unwrap()).unwrap();
        field(Tag::Sequence, &[status, self.token(message, making)].concat()).unwrap()
    }
}
