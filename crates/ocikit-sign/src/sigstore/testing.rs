//! Certificate authorities and a log for tests, with configurable faults.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ocikit_spec::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use super::json::Validity;
use super::root::{Authority, Log};
use super::*;
use crate::key::{KeyKind, PrivateKey, Scheme};
use crate::pki::Certificate;
use crate::timestamp::testing::Tsa;

pub(crate) const WHO: &str = "signer@example.com";
pub(crate) const ISSUER: &str = "https://issuer.example";

/// All trusted services and their keys.
pub(crate) struct TestServices {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) chain: Vec<Certificate>,
    pub(crate) tsa: Tsa,
    /// The key of a v1 log.
    pub(crate) log: PrivateKey,
}

pub(crate) fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params
}

impl TestServices {
    pub(crate) fn new() -> TestServices {
        TestServices::with(|_| {}, |_| {})
    }

    /// Creates services with changes to the root and the intermediate certificate.
    pub(crate) fn with(
        of_root: impl FnOnce(&mut CertificateParams),
        of_middle: impl FnOnce(&mut CertificateParams),
    ) -> TestServices {
        let mut root = params("root");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        of_root(&mut root);
        let key = KeyPair::generate().unwrap();
        let top = root.self_signed(&key).unwrap();
        let top_issuer = Issuer::new(root, key);
        let mut middle = params("middle");
        middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        middle.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        middle.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        of_middle(&mut middle);
        let key = KeyPair::generate().unwrap();
        let signed = middle.signed_by(&key, &top_issuer).unwrap();
        let chain = [signed.der(), top.der()].map(|der| Certificate::from_der(der).unwrap()).to_vec();
        let log = PrivateKey::generate(KeyKind::P256).unwrap();
        TestServices { issuer: Issuer::new(middle, key), chain, tsa: Tsa::new(), log }
    }

    /// Issues a certificate as Fulcio does, with changes. It is valid in June 2026.
    pub(crate) fn certificate(&self, key: &PrivateKey, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.not_before = rcgen::date_time_ymd(2026, 6, 1);
        leaf.not_after = rcgen::date_time_ymd(2026, 7, 1);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        leaf.subject_alt_names = vec![SanType::Rfc822Name(WHO.try_into().unwrap())];
        let content = ISSUER.as_bytes().to_vec();
        leaf.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 1], content)];
        change(&mut leaf);
        let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
        Certificate::from_der(leaf.signed_by(&pair, &self.issuer).unwrap().der()).unwrap()
    }

    pub(crate) fn root(&self) -> TrustedRoot {
        let authority = |chain: Vec<Certificate>| Authority { chain, valid: Validity::default() };
        let key = self.log.public_key().clone();
        let id = key.fingerprint().as_bytes().to_vec();
        TrustedRoot {
            authorities: vec![authority(self.chain.clone())],
            timestamp_authorities: vec![authority(vec![self.tsa.certificate.clone(), self.tsa.root.clone()])],
            logs: vec![Log { host: "log.example".to_owned(), key, hint: id.clone(), id, valid: Validity::default() }],
            certificate_logs: Vec::new(),
        }
    }

    /// Returns the trust in these services, with a transparency log and without SCTs.
    pub(crate) fn trust(&self) -> CertificateTrust {
        let identity = Pattern::Exact(WHO.to_owned());
        CertificateTrust::new(identity, self.root(), at("2026-06-15T12:00:00Z"))
            .issuer(Some(Pattern::Exact(ISSUER.to_owned())))
            .certificate_log(LogCheck::Skipped)
    }

    /// Returns the response of a v1 log to this body as its first entry.
    pub(crate) fn entered(&self, body: &Value, time: &str) -> Value {
        let (body, root) =
            (STANDARD.encode(body.to_string()), Digest::sha256_of(&[&[0], body.to_string().as_bytes()].concat()));
        let (time, id) = (at(time).as_second(), self.log.public_key().fingerprint());
        let said = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{}","logIndex":7}}"#, id.hex());
        let promise = self.log.sign(Scheme::EcdsaP256Sha256, said.as_bytes()).unwrap();
        let note = format!("log.example - 123\n1\n{}\n", STANDARD.encode(root.as_bytes()));
        let signature = self.log.sign(Scheme::EcdsaP256Sha256, note.as_bytes()).unwrap();
        let signature = STANDARD.encode([&id.as_bytes()[..4], &signature].concat());
        json!({"24296fb24b8ad77a": {
            "attestation": {}, "body": body, "integratedTime": time, "logID": id.hex(), "logIndex": 7,
            "verification": {
                "inclusionProof": {
                    "checkpoint": format!("{note}\n— log.example {signature}\n"), "hashes": [], "logIndex": 0,
                    "rootHash": root.hex(), "treeSize": 1,
                },
                "signedEntryTimestamp": STANDARD.encode(promise),
            },
        }})
    }

    /// Returns the v1 log entry for a signed payload in the format of cosign's annotation.
    pub(crate) fn logged(&self, payload: &[u8], signature: &[u8], leaf: &Certificate, time: &str) -> Value {
        let body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": Digest::sha256_of(payload).hex()}},
                "signature": {
                    "content": STANDARD.encode(signature),
                    "publicKey": {"content": STANDARD.encode(leaf.to_pem())},
                },
            },
        });
        let entry = self.entered(&body, time)["24296fb24b8ad77a"].take();
        json!({
            "SignedEntryTimestamp": entry["verification"]["signedEntryTimestamp"],
            "Payload": {
                "body": entry["body"], "integratedTime": entry["integratedTime"], "logIndex": 7, "logID": entry["logID"],
            },
        })
    }
}
