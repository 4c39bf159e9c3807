use ocikit_spec::Annotations;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints};
use serde_json::Value;

use super::*;
use crate::algorithm::Hash;
use crate::key::{KeyKind, PrivateKey};
use crate::notation::attributes::TIMESTAMP;
use crate::notation::chain::Chain;
use crate::notation::envelope::{EnvelopeFormat, open, sign};
use crate::notation::options::Options;
use crate::notation::testing::*;
use crate::timestamp::testing::{TokenContent, Tsa};

#[tokio::test]
async fn levels_decide_which_failures_are_warnings() {
    let (known, stranger) = (authority("root", |_| {}), authority("stranger", |_| {}));
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![known.issue(&key, |_| {}), known.certificate()]).unwrap();
    for form in SEALS {
        let bytes = seal(form, &key, &chain, Some("2026-07-01")).await;
        // The level, the authority in the trust store, the time, and the number of warnings if the envelope is
        // accepted.
        for (level, trusted, now, outcome) in [
            ("strict", &known, "2026-06-15", Some(0)),
            ("strict", &known, "2026-08-01", None),
            ("strict", &known, "2027-02-01", None),
            ("strict", &stranger, "2026-06-15", None),
            ("permissive", &known, "2026-08-01", Some(1)),
            ("permissive", &known, "2027-02-01", Some(2)),
            ("permissive", &stranger, "2026-06-15", None),
            ("audit", &stranger, "2027-02-01", Some(3)),
        ] {
            let found = trust(level, trusted, now).verify(form, &bytes, &subject());
            assert_eq!(
                found.as_ref().map(|approved| approved.warnings.len()).ok(),
                outcome,
                "{form:?} {level} {now} {found:?}"
            );
        }
        // Changed bytes are refused at every level.
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(trust("audit", &known, "2026-06-15").verify(form, &changed, &subject()).is_err());
    }
}

#[test]
fn certificates_obey_the_rules() {
    let good = authority("root", |_| {});
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = |leaf: Certificate, root: &Authority| Chain::new(vec![leaf, root.certificate()]);
    assert!(chain(good.issue(&key, |_| {}), &good).is_ok());
    assert!(chain(good.issue(&key, |params| params.extended_key_usages = Vec::new()), &good).is_ok());

    let leaves: Vec<(&str, Change)> = vec![
        ("no key usage", Box::new(|params| params.key_usages = Vec::new())),
        ("key encipherment", Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyEncipherment))),
        ("signs certificates", Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("does not sign", Box::new(|params| params.key_usages = vec![KeyUsagePurpose::ContentCommitment])),
        ("servers", Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("any", Box::new(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::Any))),
        ("timestamps", Box::new(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::TimeStamping))),
        ("authority", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("something critical", Box::new(|params| params.custom_extensions.push(something_critical()))),
    ];
    for (name, change) in leaves {
        assert!(chain(good.issue(&key, change), &good).is_err(), "{name}");
    }
    let roots: Vec<(&str, Change)> = vec![
        ("no authority", Box::new(|params| params.is_ca = IsCa::ExplicitNoCa)),
        ("says nothing", Box::new(|params| params.is_ca = IsCa::NoCa)),
        ("does not sign certificates", Box::new(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature])),
        (
            "not for this name",
            Box::new(|params| {
                let excluded_subtrees = vec![GeneralSubtree::DirectoryName(rcgen::DistinguishedName::new())];
                params.name_constraints = Some(NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees });
            }),
        ),
        ("something critical", Box::new(|params| params.custom_extensions.push(something_critical()))),
    ];
    for (name, change) in roots {
        let bad = authority("root", change);
        assert!(chain(bad.issue(&key, |_| {}), &bad).is_err(), "{name}");
    }
    let leaf = good.issue(&key, |_| {});
    let same_name = authority("root", |_| {});
    for (name, certificates) in [
        ("nothing", vec![]),
        ("no root", vec![leaf.clone()]),
        ("wrong order", vec![good.certificate(), leaf.clone()]),
        ("the root twice", vec![leaf.clone(), good.certificate(), good.certificate()]),
        ("another root of that name", vec![leaf.clone(), same_name.certificate()]),
        ("another root", vec![leaf, authority("other", |_| {}).certificate()]),
    ] {
        assert!(Chain::new(certificates).is_err(), "{name}");
    }
}

#[tokio::test]
async fn trusted_identities_select_the_signer() {
    let authority = authority("root", |_| {});
    let [key, other] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
    let metadata = Annotations::new();
    let options = plain(&key, &chain, &metadata);
    for form in SEALS {
        assert!(sign(form, &subject(), &plain(&other, &chain, &metadata)).await.is_err(), "another key");
        let late = Options { time: at("2027-06-01"), ..options.clone() };
        assert!(sign(form, &subject(), &late).await.is_err(), "not valid any more");
        let over = Options { expiry: Some(at("2026-05-01")), ..options.clone() };
        assert!(sign(form, &subject(), &over).await.is_err(), "expired already");
        let mut reserved = Annotations::new();
        reserved.insert("io.cncf.notary.x", "y");
        let reserved = Options { metadata: &reserved, ..options.clone() };
        assert!(sign(form, &subject(), &reserved).await.is_err(), "a key of the specification's");
    }
}

/// Returns the envelope with this timestamp token.
fn stamped(form: EnvelopeFormat, bytes: &[u8], token: Vec<u8>) -> Vec<u8> {
    use base64::Engine;
    use coset::TaggedCborSerializable;

    match form {
        EnvelopeFormat::Jws => {
            let mut envelope: Value = serde_json::from_slice(bytes).unwrap();
            envelope["header"][TIMESTAMP] = base64::engine::general_purpose::STANDARD.encode(token).into();
            serde_json::to_vec(&envelope).unwrap()
        }
        EnvelopeFormat::Cose => {
            let mut envelope = coset::CoseSign1::from_tagged_slice(bytes).unwrap();
            let label = coset::Label::Text(TIMESTAMP.to_owned());
            envelope.unprotected.rest.push((label, coset::cbor::Value::Bytes(token)));
            envelope.to_tagged_vec().unwrap()
        }
    }
}

fn trust_with(statement: Value, stores: &[(&str, &Certificate)], now: &str) -> NotationTrust {
    let mut policy = serde_json::json!({"version": "1.0", "trustPolicies": [{
        "name": "p", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
        "trustStores": [], "trustedIdentities": ["*"],
    }]});
    let mut store = TrustStore::new();
    for (kind, certificate) in stores {
        policy["trustPolicies"][0]["trustStores"].as_array_mut().unwrap().push(format!("{kind}:x").into());
        store.add(kind, "x", vec![(*certificate).clone()]);
    }
    for (key, value) in statement.as_object().unwrap() {
        policy["trustPolicies"][0]["signatureVerification"][key] = value.clone();
    }
    let policy = TrustPolicy::parse(policy.to_string().as_bytes()).unwrap();
    NotationTrust::new(&policy, &store, "", at(now)).unwrap()
}

#[tokio::test]
async fn a_timestamp_outlives_certificates() {
    let (authority, tsa, stranger) = (authority("root", |_| {}), Tsa::new(), Tsa::new());
    let root = authority.certificate();
    let key = PrivateKey::generate(KeyKind::P384).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), root.clone()]).unwrap();
    let (always, after) = (serde_json::json!({}), serde_json::json!({"verifyTimestamp": "afterCertExpiry"}));
    let logged = serde_json::json!({"override": {"authenticTimestamp": "log"}});
    for form in SEALS {
        let bytes = seal(form, &key, &chain, None).await;
        let signature = open(form, &bytes).unwrap().signature;
        let token = |tsa: &Tsa, message: &[u8], time: &str| {
            stamped(form, &bytes, tsa.token(message, &TokenContent { hash: Hash::Sha384, ..TokenContent::at(time) }))
        };
        let good = token(&tsa, &signature, "20260601000001Z");
        // The policy, the envelope, the time, and why it is refused, if it is.
        for (policy, bytes, now, why) in [
            (&always, &good, "2026-07-01", None),
            (&always, &good, "2028-07-01", None),
            (&after, &good, "2026-07-01", None),
            (&after, &good, "2028-07-01", None),
            (&after, &good, "2025-07-01", Some("is not valid now")),
            (&always, &bytes, "2026-07-01", Some("it is missing")),
            (&after, &bytes, "2026-07-01", None),
            (&after, &bytes, "2028-07-01", Some("it is missing")),
            (&always, &token(&stranger, &signature, "20260601000001Z"), "2026-07-01", Some("the signature is wrong")),
            (&after, &token(&stranger, &signature, "20260601000001Z"), "2026-07-01", None),
            (&always, &token(&tsa, b"another", "20260601000001Z"), "2026-07-01", Some("of something else")),
            (&always, &token(&tsa, &signature, "20270101000000Z"), "2026-07-01", Some("may not be valid")),
            (&always, &token(&tsa, &signature, "20261231235958Z"), "2028-07-01", Some("may not be valid")),
            (&always, &token(&tsa, &signature, "20261231235957Z"), "2028-07-01", None),
            (&always, &stamped(form, &bytes, b"none".to_vec()), "2026-07-01", Some("malformed")),
            (&logged, &stamped(form, &bytes, b"none".to_vec()), "2026-07-01", None),
        ] {
            let trust = trust_with(policy.clone(), &[("ca", &root), ("tsa", &tsa.root)], now);
            let found = trust.verify(form, bytes, &subject());
            let said = found.as_ref().err().map(ToString::to_string);
            assert_eq!(said.is_some(), why.is_some(), "{form:?} {policy} {now} {said:?}");
            assert!(said.unwrap_or_default().contains(why.unwrap_or_default()), "{form:?} {policy} {now} {found:?}");
        }
        // Without a `tsa` trust store timestamps are ignored, and do not extend the validity.
        let trust = trust_with(always.clone(), &[("ca", &root)], "2028-07-01");
        assert!(trust.verify(form, &good, &subject()).is_err());
        let trust = trust_with(always.clone(), &[("ca", &root), ("tsa", &tsa.root)], "2026-07-01");
        for position in 0..good.len() {
            let mut changed = good.clone();
            changed[position] ^= 1;
            assert!(trust.verify(form, &changed, &subject()).is_err(), "{form:?} {position}");
        }
    }
}

#[tokio::test]
async fn signing_authorities_need_their_own_trust_store() {
    let authority = authority("root", |_| {});
    let root = authority.certificate();
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), root.clone()]).unwrap();
    let metadata = Annotations::new();
    let said = Options {
        scheme: SigningScheme::SigningAuthority,
        expiry: Some(at("2029-01-01")),
        ..plain(&key, &chain, &metadata)
    };
    let nothing = serde_json::json!({});
    for form in SEALS {
        let theirs = sign(form, &subject(), &said).await.unwrap().0;
        let ours = seal(form, &key, &chain, None).await;
        // The trust stores, the time, and whether the envelopes of the signing authority and of the signer are
        // accepted.
        for (stores, now, counts) in [
            (&["signingAuthority"][..], "2026-07-01", [true, false]),
            (&["ca"], "2026-07-01", [false, true]),
            (&["ca", "signingAuthority"], "2026-07-01", [true, true]),
            // Its signing time is trusted, so its certificates may have expired since.
            (&["ca", "signingAuthority"], "2028-07-01", [true, false]),
            (&["ca", "signingAuthority"], "2029-07-01", [false, false]),
        ] {
            let stores: Vec<_> = stores.iter().map(|kind| (*kind, &root)).collect();
            let trust = trust_with(nothing.clone(), &stores, now);
            let found = [&theirs, &ours].map(|bytes| trust.verify(form, bytes, &subject()).is_ok());
            assert_eq!(found, counts, "{form:?} {now}");
        }
        let trust = trust_with(nothing.clone(), &[("signingAuthority", &root)], "2026-07-01");
        for position in 0..theirs.len() {
            let mut changed = theirs.clone();
            changed[position] ^= 1;
            assert!(trust.verify(form, &changed, &subject()).is_err(), "{form:?} {position}");
        }
    }
}
