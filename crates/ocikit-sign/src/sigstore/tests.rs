use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ocikit_spec::Digest;
use serde_json::{Value, json};

use super::*;
use crate::cosign::bundle;
use crate::key::{KeyKind, PrivateKey};
use crate::refusal::Refusal;
use crate::trust::Trust;

/// A bundle, the trusted root that verifies it, and its content.
struct Recorded {
    bundle: &'static str,
    root: &'static str,
    identity: &'static str,
    issuer: &'static str,
}

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../testdata/sigstore/", $name))
    };
}

const VERSION_1: Recorded = Recorded {
    bundle: recorded!("rekor1.json"),
    root: recorded!("rekor1-root.json"),
    identity: "https://github\\.com/prefix-dev/sigstore-example/.*",
    issuer: "https://token.actions.githubusercontent.com",
};
const VERSION_2: Recorded = Recorded {
    bundle: recorded!("rekor2.json"),
    root: recorded!("rekor2-root.json"),
    identity: "[a-z]+@[a-z]+\\.fi",
    issuer: "https://github.com/login/oauth",
};
const BOTH: [Recorded; 2] = [VERSION_1, VERSION_2];

const KIND: &str = "https://schemas.conda.org/attestations-publish-1.schema.json";

fn digest() -> Digest {
    "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f".parse().unwrap()
}

impl Recorded {
    fn trust(&self) -> CertificateTrust {
        let identity = Pattern::matching(self.identity).unwrap();
        let root = TrustedRoot::parse(self.root.as_bytes()).unwrap();
        let issuer = Pattern::Exact(self.issuer.to_owned());
        CertificateTrust::new(identity, root, Timestamp::UNIX_EPOCH).issuer(Some(issuer))
    }

    fn verify(&self, bundle: &[u8], trust: &CertificateTrust) -> Result<(), Refusal> {
        bundle::verify(bundle, &digest(), Some(KIND), &Trust::Certificate(Box::new(trust.clone()))).map(drop)
    }

    /// Verifies with changes to the bundle.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
        let mut value = serde_json::from_str(self.bundle).unwrap();
        change(&mut value);
        self.verify(value.to_string().as_bytes(), &self.trust())
    }

    /// Verifies with changes to the trusted root.
    fn with_root(&self, change: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
        let mut value = serde_json::from_str(self.root).unwrap();
        change(&mut value);
        let root = TrustedRoot::parse(value.to_string().as_bytes()).unwrap();
        self.verify(self.bundle.as_bytes(), &CertificateTrust { root, ..self.trust() })
    }
}

#[test]
fn bundles_of_public_logs_verify() {
    for recorded in &BOTH {
        assert_eq!(recorded.verify(recorded.bundle.as_bytes(), &recorded.trust()), Ok(()));
    }
}

#[test]
fn identity_and_issuer_must_match() {
    for recorded in &BOTH {
        let exact = |text: &str| Pattern::Exact(text.to_owned());
        let trust = recorded.trust();
        for (identity, issuer) in [
            (exact("other@example.com"), trust.issuer.clone()),
            (Pattern::matching("x.*").unwrap(), trust.issuer.clone()),
            (trust.identity.clone(), Some(exact("https://issuer.example"))),
            (trust.identity.clone(), Some(exact(""))),
            (exact(""), None),
        ] {
            let trust = CertificateTrust { identity, issuer, ..recorded.trust() };
            let refused = recorded.verify(recorded.bundle.as_bytes(), &trust);
            assert!(matches!(refused, Err(Refusal::OtherIdentity(_))), "{refused:?}");
        }
        let any_issuer = CertificateTrust { issuer: None, ..recorded.trust() };
        assert_eq!(recorded.verify(recorded.bundle.as_bytes(), &any_issuer), Ok(()));
        let (bundle, trust) = (recorded.bundle.as_bytes(), Trust::Certificate(Box::new(trust)));
        let another = bundle::verify(bundle, &Digest::sha256_of(b""), Some(KIND), &trust);
        assert!(matches!(another, Err(Refusal::OtherSubject(_))), "{another:?}");
        let another = bundle::verify(bundle, &digest(), Some("https://slsa.dev/provenance/v1"), &trust);
        assert!(matches!(another, Err(Refusal::OtherPredicate(_))), "{another:?}");
    }
}

#[test]
fn every_part_of_a_trusted_root_is_required_and_valid() {
    for (recorded, parts) in [
        (&VERSION_1, &["tlogs", "certificateAuthorities", "ctlogs"][..]),
        (&VERSION_2, &["tlogs", "certificateAuthorities", "ctlogs", "timestampAuthorities"]),
    ] {
        for part in parts {
            let without = recorded.with_root(|root| root[part] = json!([]));
            assert!(without.is_err(), "{part}");
            for validity in [
                json!({"start": "2099-01-01T00:00:00Z"}),
                json!({"start": "2010-01-01T00:00:00Z", "end": "2020-01-01T00:00:00Z"}),
            ] {
                let at_another_time = recorded.with_root(|root| {
                    for entry in root[part].as_array_mut().unwrap() {
                        let place = if entry["publicKey"].is_null() { entry } else { &mut entry["publicKey"] };
                        place["validFor"] = validity.clone();
                    }
                });
                assert!(at_another_time.is_err(), "{part} {validity}");
            }
        }
        let other = BOTH.iter().find(|other| other.root != recorded.root).unwrap();
        assert!(recorded.verify(recorded.bundle.as_bytes(), &other.trust()).is_err());
        // A log is found by its ID and verified by its key.
        let key = STANDARD.encode(testing::TestServices::new().log.public_key().to_der());
        for part in ["tlogs", "ctlogs"] {
            let with_another_key = recorded.with_root(|root| {
                for log in root[part].as_array_mut().unwrap() {
                    log["publicKey"]["rawBytes"] = json!(key);
                    log["publicKey"]["keyDetails"] = json!("PKIX_ECDSA_P256_SHA_256");
                }
            });
            assert!(with_another_key.is_err(), "{part}");
        }
    }
}

#[test]
fn skipped_checks_need_no_evidence() {
    let trust = CertificateTrust { certificate_log: LogCheck::Skipped, ..VERSION_1.trust() };
    let mut without = trust.clone();
    without.root.certificate_logs.clear();
    assert_eq!(VERSION_1.verify(VERSION_1.bundle.as_bytes(), &without), Ok(()));
    // Without the log the signing time is unknown, and the certificate is not valid now.
    let trust = CertificateTrust { log: LogCheck::Skipped, ..VERSION_1.trust() };
    let refused = VERSION_1.verify(VERSION_1.bundle.as_bytes(), &trust);
    assert!(matches!(refused, Err(Refusal::Certificates(_))), "{refused:?}");
    let then = CertificateTrust { now: "2025-09-01T12:14:00Z".parse().unwrap(), ..trust };
    assert_eq!(VERSION_1.verify(VERSION_1.bundle.as_bytes(), &then), Ok(()));
    // A timestamp replaces the log.
    let trust = CertificateTrust { log: LogCheck::Skipped, ..VERSION_2.trust() };
    assert_eq!(VERSION_2.verify(VERSION_2.bundle.as_bytes(), &trust), Ok(()));
}

#[test]
fn parts_of_a_bundle_cannot_be_left_out_or_exchanged() {
    let entry = |bundle: &mut Value| bundle["verificationMaterial"]["tlogEntries"][0].take();
    for recorded in &BOTH {
        let other = BOTH.iter().find(|other| other.bundle != recorded.bundle).unwrap();
        let others: Value = serde_json::from_str(other.bundle).unwrap();
        let changes: [&dyn Fn(&mut Value); 12] = [
            &|bundle| bundle["verificationMaterial"]["tlogEntries"] = json!([]),
            &|bundle| bundle["verificationMaterial"]["tlogEntries"] = json!([entry(&mut others.clone())]),
            &|bundle| {
                let own = entry(bundle);
                bundle["verificationMaterial"]["tlogEntries"] = json!([own, entry(&mut others.clone())]);
            },
            &|bundle| bundle["verificationMaterial"]["tlogEntries"] = json!(vec![entry(bundle); 17]),
            &|bundle| drop(bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"].take()),
            &|bundle| bundle["verificationMaterial"]["tlogEntries"][0]["unknown"] = json!(1),
            &|bundle| bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = json!("1756728840"),
            &|bundle| bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["treeSize"] = json!("1"),
            &|bundle| {
                bundle["verificationMaterial"]["tlogEntries"][0]["kindVersion"] =
                    json!({"kind": "intoto", "version": "0.0.2"});
            },
            &|bundle| bundle["verificationMaterial"]["certificate"] = json!({"rawBytes": ""}),
            &|bundle| bundle["verificationMaterial"]["publicKey"] = json!({"hint": ""}),
            &|bundle| {
                bundle["verificationMaterial"]["timestampVerificationData"] =
                    json!({"rfc3161Timestamps": [{"signedTimestamp": "MAA="}]});
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(recorded.changed(change).is_err(), "{number}");
        }
    }
    // A v1 entry without a signed entry timestamp has no time; a v2 entry never has one.
    let refused = VERSION_1.changed(|bundle| {
        bundle["verificationMaterial"]["tlogEntries"][0].as_object_mut().unwrap().remove("inclusionPromise");
    });
    assert!(matches!(refused, Err(Refusal::Timestamp(_))), "{refused:?}");
    let refused = VERSION_2.changed(|bundle| drop(bundle["verificationMaterial"]["timestampVerificationData"].take()));
    assert!(matches!(refused, Err(Refusal::Timestamp(_))), "{refused:?}");
}

/// Returns the parts of a bundle that no signature covers and that are not evaluated: the signatures of witnesses,
/// and the certificates in a timestamp, which the trusted root has as well.
fn uncovered(bundle: &str) -> Vec<Range<usize>> {
    let value: Value = serde_json::from_str(bundle).unwrap();
    let material = &value["verificationMaterial"];
    let place = |text: &str| {
        let text = text.replace('\n', "\\n");
        let start = bundle.find(&text).unwrap();
        start..start + text.len()
    };
    let checkpoint = material["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
    let signatures = checkpoint.split_once("\n\n").unwrap().1.lines();
    let mut found: Vec<_> = signatures.skip(1).map(|line| place(line.trim_start_matches("— "))).collect();
    if let Some(stamp) = material["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"].as_str() {
        let bytes = STANDARD.decode(stamp).unwrap();
        let root = TrustedRoot::parse(VERSION_2.root.as_bytes()).unwrap();
        let known = root.timestamp_authorities.iter().flat_map(|authority| &authority.chain);
        let ranges = known.filter_map(|known| {
            let known = known.to_der();
            let start = bytes.windows(known.len()).position(|window| window == known)?;
            // Three bytes are four characters in base64.
            Some(start / 3 * 4..(start + known.len()).div_ceil(3) * 4)
        });
        let start = place(stamp).start;
        found.extend(ranges.map(|range| start + range.start..start + range.end));
    }
    found
}

#[test]
fn no_byte_can_be_changed() {
    for recorded in &BOTH {
        let (trust, uncovered) = (recorded.trust(), uncovered(recorded.bundle));
        let mut unnoticed = 0;
        for position in 0..recorded.bundle.len() {
            for mask in [1, 0x20] {
                let mut changed = recorded.bundle.as_bytes().to_vec();
                changed[position] ^= mask;
                if recorded.verify(&changed, &trust).is_ok() {
                    assert!(uncovered.iter().any(|range| range.contains(&position)), "{position}");
                    unnoticed += 1;
                }
            }
        }
        assert_eq!(unnoticed > 0, !uncovered.is_empty());
    }
}

#[test]
fn roots_are_read_strictly() {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::from_str(VERSION_2.root).unwrap();
        change(&mut value);
        TrustedRoot::parse(value.to_string().as_bytes())
    };
    assert!(changed(&|_| {}).is_ok());
    let refused: [&dyn Fn(&mut Value); 8] = [
        &|root| root["unknown"] = json!(1),
        &|root| root["mediaType"] = json!("application/vnd.dev.sigstore.trustedroot.v9+json"),
        &|root| root["tlogs"][0]["hashAlgorithm"] = json!("SHA1"),
        &|root| root["tlogs"][0]["logId"]["keyId"] = json!("AAAA"),
        &|root| root["tlogs"][0]["publicKey"]["validFor"] = json!({"start": "once"}),
        &|root| root["certificateAuthorities"][0]["certChain"]["certificates"] = json!([]),
        &|root| root["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"] = json!("AAAA"),
        // The intermediate did not issue itself.
        &|root| {
            let certificates = &mut root["certificateAuthorities"][0]["certChain"]["certificates"];
            certificates[1] = certificates[0].clone();
        },
    ];
    for (number, change) in refused.into_iter().enumerate() {
        assert!(changed(change).is_err(), "{number}");
    }
    // A log whose key type is not supported is skipped.
    let other = changed(&|root| {
        root["tlogs"][0]["publicKey"]["rawBytes"] = json!("AAAA");
        root["tlogs"][0]["publicKey"]["keyDetails"] = json!("ML_DSA_65");
    });
    assert_eq!(other.unwrap().logs.len() + 1, changed(&|_| {}).unwrap().logs.len());
}

/// sigstore-conformance, `trust-root-tlog-missing-validity-start_fail`, and the same for the other parts.
#[test]
fn sigstore_conformance_validity_without_a_start_is_refused() {
    for recorded in &BOTH {
        let root: Value = serde_json::from_str(recorded.root).unwrap();
        for part in ["tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"] {
            for validity in [None, Some(json!({})), Some(json!({"end": "2099-01-01T00:00:00Z"})), Some(json!(null))] {
                let mut root = root.clone();
                let Some(Value::Object(place)) = root[part].get_mut(0) else { continue };
                let place = if part.ends_with("logs") { place["publicKey"].as_object_mut().unwrap() } else { place };
                match &validity {
                    None => drop(place.remove("validFor")),
                    Some(validity) => place["validFor"] = validity.clone(),
                }
                let found = TrustedRoot::parse(root.to_string().as_bytes());
                let is_refused = found.is_err_and(|error| match &validity {
                    Some(Value::Null) => true,
                    _ => error.to_string().contains("has no validFor.start"),
                });
                assert!(is_refused, "{part} {validity:?}");
            }
        }
    }
}

#[test]
fn a_key_in_a_root_is_of_the_type_that_its_details_say() {
    let key = |kind| PrivateKey::generate(kind).unwrap().public_key().to_der().to_vec();
    let (p256, p384, p521) = (key(KeyKind::P256), key(KeyKind::P384), key(KeyKind::P521));
    let (ed25519, rsa) = (key(KeyKind::Ed25519), key(KeyKind::Rsa { bits: 2048 }));
    // The key, its details, and whether the log is kept; `None` if the root is refused.
    for (key, details, expected) in [
        (&p256[..], json!("PKIX_ECDSA_P256_SHA_256"), Some(true)),
        (&p384, json!("PKIX_ECDSA_P384_SHA_384"), Some(true)),
        (&p384, json!("PKIX_ECDSA_P384_SHA_256"), Some(true)),
        (&p521, json!("PKIX_ECDSA_P521_SHA_512"), Some(true)),
        (&ed25519, json!("PKIX_ED25519"), Some(true)),
        (&rsa, json!("PKIX_RSA_PKCS1V15_2048_SHA256"), Some(true)),
        (&rsa, json!("PKIX_RSA_PKCS1V5"), Some(true)),
        (&p256, json!("PKIX_ECDSA_P384_SHA_384"), None),
        (&p384, json!("PKIX_ECDSA_P256_SHA_256"), None),
        (&p256, json!("PKIX_ED25519"), None),
        (&ed25519, json!("PKIX_ECDSA_P256_SHA_256"), None),
        (&rsa, json!("PKIX_RSA_PKCS1V15_4096_SHA256"), None),
        (&rsa, json!("PKIX_ECDSA_P256_SHA_256"), None),
        (&p256, json!("PKIX_RSA_PKCS1V5"), None),
        (b"no key", json!("PKIX_ECDSA_P256_SHA_256"), None),
        (&p256, json!(""), None),
        (&p256, json!("PUBLIC_KEY_DETAILS_UNSPECIFIED"), None),
        (&p256, json!(5), None),
        (&p256, json!(null), None),
        (&ed25519, json!("PKIX_ED25519_PH"), Some(false)),
        (&rsa, json!("PKIX_RSA_PSS_2048_SHA256"), Some(false)),
        (&rsa, json!("PKCS1_RSA_PKCS1V5"), Some(false)),
        (b"no key", json!("ML_DSA_87"), Some(false)),
        (b"no key", json!("OF_THE_FUTURE"), Some(false)),
    ] {
        for part in ["tlogs", "ctlogs"] {
            let mut root: Value = serde_json::from_str(VERSION_1.root).unwrap();
            root[part].as_array_mut().unwrap().truncate(1);
            root[part][0]["publicKey"]["rawBytes"] = STANDARD.encode(key).into();
            root[part][0]["publicKey"]["keyDetails"] = details.clone();
            let found = TrustedRoot::parse(root.to_string().as_bytes()).ok();
            let logs = |root: TrustedRoot| if part == "tlogs" { root.logs } else { root.certificate_logs };
            assert_eq!(found.map(|root| !logs(root).is_empty()), expected, "{part} {details}");
        }
    }
    let mut root: Value = serde_json::from_str(VERSION_1.root).unwrap();
    root["tlogs"][0]["publicKey"].as_object_mut().unwrap().remove("keyDetails");
    assert!(TrustedRoot::parse(root.to_string().as_bytes()).is_err());
}

#[test]
fn times_in_a_root_are_those_of_rfc_3339() {
    for (start, is_read) in [
        ("2021-01-12T11:53:27.000Z", true),
        ("2021-01-12T11:53:27Z", true),
        ("2021-01-12T12:53:27+01:00", true),
        ("2021-01-12 11:53:27Z", false),
        ("2021-01-12T11:53Z", false),
        ("20210112T115327Z", false),
        ("2021-01-12T11:53:27", false),
        ("2021-01-12", false),
    ] {
        let mut root: Value = serde_json::from_str(VERSION_1.root).unwrap();
        root["tlogs"][0]["publicKey"]["validFor"]["start"] = start.into();
        assert_eq!(TrustedRoot::parse(root.to_string().as_bytes()).is_ok(), is_read, "{start}");
    }
}

proptest::proptest! {
    #[test]
    fn untrusted_input_does_not_panic(text in ".*", place in 0_usize..7000, byte in proptest::prelude::any::<u8>()) {
        let _ = TrustedRoot::parse(text.as_bytes());
        let trust = VERSION_2.trust();
        let mut bundle = VERSION_2.bundle.as_bytes().to_vec();
        bundle[place] = byte;
        let _ = VERSION_2.verify(&bundle, &trust);
    }
}
