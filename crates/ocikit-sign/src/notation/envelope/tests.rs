use std::sync::LazyLock;

use ocikit_spec::{Digest, MediaType};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints,
};

use super::*;
use crate::key::{KeyKind, PrivateKey};
use crate::notation::trust::VerifiedEnvelope;
use crate::notation::{NotationTrust, TrustPolicy, TrustStore};
use crate::pki::Certificate;
use crate::timestamp::testing::{TokenContent, Tsa};

/// Keys and certificates that an authority issues, with changes by the test.
struct Authority {
    root: rcgen::Certificate,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

type Change = Box<dyn FnOnce(&mut CertificateParams)>;

fn params(name: &str) -> CertificateParams {
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

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    Authority { root, issuer: Issuer::new(params, key) }
}

impl Authority {
    fn certificate(&self) -> Certificate {
        Certificate::from_der(self.root.der()).unwrap()
    }

    fn issue(&self, key: &PrivateKey, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = params("signer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut params);
        let key = rcgen::KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
        Certificate::from_der(params.signed_by(&key, &self.issuer).unwrap().der()).unwrap()
    }
}

fn something_critical() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

fn at(day: &str) -> Timestamp {
    format!("{day}T00:00:00Z").parse().unwrap()
}

fn subject() -> Descriptor {
    Descriptor::of(MediaType::OCI_MANIFEST, b"an image")
}

fn plain<'a>(signer: &'a dyn Signer, chain: &'a Chain, metadata: &'a Annotations) -> Options<'a> {
    Options {
        by: EnvelopeSigner::Key { signer, chain },
        time: at("2026-06-01"),
        expiry: None,
        metadata,
        scheme: SigningScheme::X509,
        authority: None,
    }
}

async fn seal(envelope_format: EnvelopeFormat, key: &PrivateKey, chain: &Chain, expiry: Option<&str>) -> Vec<u8> {
    let metadata = Annotations::new();
    let options = Options { expiry: expiry.map(at), ..plain(key, chain, &metadata) };
    sign(envelope_format, &subject(), &options).await.unwrap().0
}

fn policy(level: &str) -> TrustPolicy {
    let text = format!(
        r#"{{"version":"1.0","trustPolicies":[{{"name":"p","registryScopes":["*"],
        "signatureVerification":{{"level":"{level}"}},"trustStores":["ca:acme"],
        "trustedIdentities":["x509.subject: C=US, ST=WA, O=Acme"]}}]}}"#
    );
    TrustPolicy::parse(text.as_bytes()).unwrap()
}

fn trust(level: &str, trusted: &Authority, now: &str) -> NotationTrust {
    let mut store = TrustStore::new();
    store.add("ca", "acme", vec![trusted.certificate()]);
    NotationTrust::new(&policy(level), &store, "", at(now)).unwrap()
}

const SEALS: [EnvelopeFormat; 2] = [EnvelopeFormat::Jws, EnvelopeFormat::Cose];

#[tokio::test]
async fn envelopes_with_every_kind_of_key_verify() {
    let authority = authority("root", |_| {});
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa { bits: 2048 }, KeyKind::Rsa { bits: 3072 }]
    {
        let key = PrivateKey::generate(kind).unwrap();
        let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
        for form in SEALS {
            let bytes = seal(form, &key, &chain, Some("2026-12-01")).await;
            let trust = trust("strict", &authority, "2026-07-01");
            let VerifiedEnvelope { by, warnings, metadata, .. } = trust.verify(form, &bytes, &subject()).unwrap();
            assert_eq!(by, key.public_key().fingerprint());
            assert!(warnings.is_empty() && metadata.is_empty(), "{kind}");
            let other = Descriptor { digest: Digest::sha256_of(b"other"), ..subject() };
            assert!(matches!(trust.verify(form, &bytes, &other), Err(Refusal::OtherSubject(_))));
            let other = Descriptor { media_type: MediaType::OCI_INDEX, ..subject() };
            assert!(matches!(trust.verify(form, &bytes, &other), Err(Refusal::OtherSubject(_))));
        }
    }
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    assert!(Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).is_err());
}

#[tokio::test]
async fn no_byte_can_be_changed() {
    let authority = authority("root", |_| {});
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
    let trust = trust("strict", &authority, "2026-07-01");
    for form in SEALS {
        let bytes = seal(form, &key, &chain, Some("2026-12-01")).await;
        for position in 0..bytes.len() {
            for mask in [1, 2, 4, 8, 16, 32, 64, 128] {
                let mut changed = bytes.clone();
                changed[position] ^= mask;
                assert!(trust.verify(form, &changed, &subject()).is_err(), "{form:?} {position} {mask}");
            }
            assert!(trust.verify(form, &bytes[..position], &subject()).is_err(), "{form:?} {position}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(trust.verify(form, &longer, &subject()).is_err());
    }
}

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
                let excluded_subtrees = vec![GeneralSubtree::DirectoryName(DistinguishedName::new())];
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

#[test]
fn an_unavailable_plugin_is_not_skipped() {
    let attributes = |others: Value, critical: &[&str]| {
        let attributes = Attributes {
            critical: [&[SCHEME], critical].concat().into_iter().map(str::to_owned).collect(),
            content_type: Some(PAYLOAD_TYPE),
            scheme: Some("notary.x509"),
            time: Some(at("2026-06-01")),
            authentic_time: None,
            expiry: None,
            others: others.as_object().unwrap().clone(),
        };
        attributes.check().map(|(_, extended)| extended)
    };
    use serde_json::json;
    assert_eq!(attributes(json!({"com.example.note": 1}), &[]), Ok(None));
    let extended = attributes(
        json!({PLUGIN: "p", PLUGIN_VERSION: "1.0.0", "com.example.note": 1, "com.example.must": "x"}),
        &[PLUGIN, PLUGIN_VERSION, "com.example.must"],
    );
    let others = json!({"com.example.must": "x"}).as_object().unwrap().clone();
    assert_eq!(extended, Ok(Some(PluginRequest { plugin: "p".to_owned(), version: Some("1.0.0".to_owned()), others })));
    for (others, critical) in [
        (json!({PLUGIN: "p"}), &[][..]),
        (json!({PLUGIN: "p", PLUGIN_VERSION: "1.0.0"}), &[PLUGIN]),
        (json!({PLUGIN: " "}), &[PLUGIN]),
        (json!({PLUGIN: 1}), &[PLUGIN]),
        (json!({PLUGIN_VERSION: "1.0.0"}), &[PLUGIN_VERSION]),
        (json!({"io.cncf.notary.x": "p"}), &[]),
        (json!({"com.example.must": "x"}), &["com.example.must"]),
        (json!({PLUGIN: "p"}), &[PLUGIN, "com.example.must"]),
    ] {
        assert!(attributes(others.clone(), critical).is_err(), "{others} {critical:?}");
    }
}

#[tokio::test]
async fn plugins_are_named_in_both_envelopes() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use coset::TaggedCborSerializable;
    use coset::cbor::Value as Cbor;

    let authority = authority("root", |_| {});
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
    let sealed = |message: &[u8]| {
        to_fixed(Scheme::EcdsaP256Sha256, key.sign(Scheme::EcdsaP256Sha256, message).unwrap()).unwrap()
    };
    let again = |form: EnvelopeFormat, bytes: &[u8], more: &[(&str, &str)]| match form {
        EnvelopeFormat::Jws => {
            let mut envelope: Value = serde_json::from_slice(bytes).unwrap();
            let protected = URL_SAFE_NO_PAD.decode(envelope["protected"].as_str().unwrap()).unwrap();
            let mut protected: Value = serde_json::from_slice(&protected).unwrap();
            for (name, value) in more {
                protected[name] = (*value).into();
                protected["crit"].as_array_mut().unwrap().push((*name).into());
            }
            let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
            let message = format!("{protected}.{}", envelope["payload"].as_str().unwrap());
            envelope["protected"] = protected.into();
            envelope["signature"] = URL_SAFE_NO_PAD.encode(sealed(message.as_bytes())).into();
            envelope.to_string().into_bytes()
        }
        EnvelopeFormat::Cose => {
            let mut envelope = coset::CoseSign1::from_tagged_slice(bytes).unwrap();
            envelope.protected.original_data = None;
            for (name, value) in more {
                let header = &mut envelope.protected.header;
                header.rest.push((coset::Label::Text((*name).to_owned()), Cbor::Text((*value).to_owned())));
                header.crit.push(coset::RegisteredLabelWithPrivate::Text((*name).to_owned()));
            }
            envelope.signature = sealed(&envelope.tbs_data(&[]));
            envelope.to_tagged_vec().unwrap()
        }
    };
    for form in SEALS {
        let plain = seal(form, &key, &chain, None).await;
        assert_eq!(open_extended(form, &again(form, &plain, &[])).unwrap().extended, None, "{form:?}");
        let asking = again(form, &plain, &[(PLUGIN, "p"), ("com.example.must", "x")]);
        let found = open_extended(form, &asking).unwrap().extended.unwrap();
        assert_eq!((found.plugin.as_str(), &found.others["com.example.must"]), ("p", &"x".into()), "{form:?}");
        assert!(matches!(open(form, &asking), Err(Refusal::NotUnderstood(_))), "{form:?}");
        let trust = trust("audit", &authority, "2026-07-01");
        assert!(matches!(trust.verify(form, &asking, &subject()), Err(Refusal::NotUnderstood(_))), "{form:?}");
        for more in [&[("com.example.must", "x")][..], &[("io.cncf.notary.x", "x")], &[(PLUGIN, "")]] {
            assert!(open_extended(form, &again(form, &plain, more)).is_err(), "{form:?} {more:?}");
        }
    }
}

/// Taken from the mock registry of notation's tests: `io.cncf.notary.SigningAgent`, as notation 1.0 wrote it.
#[tokio::test]
async fn notation_unsigned_attributes_that_are_unknown_are_ignored() {
    use coset::TaggedCborSerializable;
    use coset::cbor::Value as Cbor;

    let authority = authority("root", |_| {});
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
    let trust = trust("strict", &authority, "2026-07-01");
    let with = |form: EnvelopeFormat, bytes: &[u8], name: &str| match form {
        EnvelopeFormat::Jws => {
            let mut envelope: Value = serde_json::from_slice(bytes).unwrap();
            envelope["header"][name] = "x".into();
            envelope.to_string().into_bytes()
        }
        EnvelopeFormat::Cose => {
            let mut envelope = coset::CoseSign1::from_tagged_slice(bytes).unwrap();
            let label = coset::Label::Text(name.to_owned());
            envelope.unprotected.rest.push((label, Cbor::Text("x".to_owned())));
            envelope.to_tagged_vec().unwrap()
        }
    };
    for form in SEALS {
        let bytes = seal(form, &key, &chain, None).await;
        for (name, counts) in [
            ("io.cncf.notary.signingAgent", true),
            ("io.cncf.notary.SigningAgent", true),
            ("com.example.note", true),
            // A plugin that the envelope does not require.
            (PLUGIN, true),
            // A signed attribute must not be repeated in the unprotected header, and a timestamp must be valid or
            // absent.
            (SCHEME, false),
            (SIGNING_TIME, false),
        ] {
            let found = trust.verify(form, &with(form, &bytes, name), &subject());
            assert_eq!(found.is_ok(), counts, "{form:?} {name}: {found:?}");
        }
    }
    // Attributes that must be signed are not read from the unprotected header.
    let jws = seal(EnvelopeFormat::Jws, &key, &chain, None).await;
    for name in ["crit", "alg", "cty"] {
        assert!(
            trust.verify(EnvelopeFormat::Jws, &with(EnvelopeFormat::Jws, &jws, name), &subject()).is_err(),
            "{name}"
        );
    }
    let changes: [fn(&mut coset::Header); 5] = [
        |header| header.alg = Some(coset::RegisteredLabelWithPrivate::Assigned(coset::iana::Algorithm::ES256)),
        |header| header.crit.push(coset::RegisteredLabelWithPrivate::Text(SCHEME.to_owned())),
        |header| header.content_type = Some(coset::ContentType::Text(PAYLOAD_TYPE.to_owned())),
        |header| header.rest.push((coset::Label::Text(TIMESTAMP.to_owned()), Cbor::Text("x".to_owned()))),
        |header| header.rest.clear(),
    ];
    let cose = seal(EnvelopeFormat::Cose, &key, &chain, None).await;
    for (number, change) in changes.into_iter().enumerate() {
        let mut envelope = coset::CoseSign1::from_tagged_slice(&cose).unwrap();
        change(&mut envelope.unprotected);
        assert!(
            trust.verify(EnvelopeFormat::Cose, &envelope.to_tagged_vec().unwrap(), &subject()).is_err(),
            "{number}"
        );
    }
    let mut envelope = coset::CoseSign1::from_tagged_slice(&cose).unwrap();
    envelope.unprotected.key_id = b"a key".to_vec();
    assert!(trust.verify(EnvelopeFormat::Cose, &envelope.to_tagged_vec().unwrap(), &subject()).is_ok());
}

/// notation-core-go decodes times with a library that accepts floating point numbers (RFC 8949, 3.4.2).
#[tokio::test]
async fn notation_times_in_cose_may_have_fractions() {
    use coset::TaggedCborSerializable;
    use coset::cbor::Value as Cbor;

    let authority = authority("root", |_| {});
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
    let bytes = seal(EnvelopeFormat::Cose, &key, &chain, None).await;
    let noon = at("2026-06-01").as_second();
    for (time, expected) in [
        (Cbor::Tag(1, Box::new(Cbor::Integer(noon.into()))), Some("2026-06-01T00:00:00Z")),
        (Cbor::Tag(1, Box::new(Cbor::Float(noon as f64))), Some("2026-06-01T00:00:00Z")),
        (Cbor::Tag(1, Box::new(Cbor::Float(noon as f64 + 0.5))), Some("2026-06-01T00:00:00.5Z")),
        (Cbor::Tag(1, Box::new(Cbor::Float(f64::NAN))), None),
        (Cbor::Tag(1, Box::new(Cbor::Float(f64::INFINITY))), None),
        (Cbor::Tag(1, Box::new(Cbor::Float(1e300))), None),
        (Cbor::Tag(1, Box::new(Cbor::Integer(u64::MAX.into()))), None),
        (Cbor::Float(noon as f64), None),
        (Cbor::Integer(noon.into()), None),
        (Cbor::Tag(0, Box::new(Cbor::Text("2026-06-01T00:00:00Z".to_owned()))), None),
    ] {
        let mut envelope = coset::CoseSign1::from_tagged_slice(&bytes).unwrap();
        envelope.protected.original_data = None;
        let rest = &mut envelope.protected.header.rest;
        let place = rest.iter_mut().find(|(label, _)| *label == coset::Label::Text(SIGNING_TIME.to_owned())).unwrap();
        place.1 = time.clone();
        let signature = key.sign(Scheme::EcdsaP256Sha256, &envelope.tbs_data(&[])).unwrap();
        envelope.signature = to_fixed(Scheme::EcdsaP256Sha256, signature).unwrap();
        let found =
            open(EnvelopeFormat::Cose, &envelope.to_tagged_vec().unwrap()).map(|opened| opened.said.time.to_string());
        assert_eq!(found.as_deref().ok(), expected, "{time:?} {found:?}");
    }
}

#[tokio::test]
async fn times_in_jws_are_those_of_rfc_3339() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let authority = authority("root", |_| {});
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = Chain::new(vec![authority.issue(&key, |_| {}), authority.certificate()]).unwrap();
    let bytes = seal(EnvelopeFormat::Jws, &key, &chain, None).await;
    for (time, is_read) in [
        ("2026-06-01T00:00:00Z", true),
        // notation writes local times.
        ("2026-05-31T14:20:21-07:00", true),
        ("2026-06-01T00:00:00.123456789Z", true),
        ("2026-06-01 00:00:00Z", false),
        ("2026-06-01T00:00:00+02", false),
        ("2026-06-01T00:00:00+02:00[Europe/Berlin]", false),
    ] {
        let mut envelope: Value = serde_json::from_slice(&bytes).unwrap();
        let protected = URL_SAFE_NO_PAD.decode(envelope["protected"].as_str().unwrap()).unwrap();
        let mut protected: Value = serde_json::from_slice(&protected).unwrap();
        protected[SIGNING_TIME] = time.into();
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let message = format!("{protected}.{}", envelope["payload"].as_str().unwrap());
        let signature = key.sign(Scheme::EcdsaP256Sha256, message.as_bytes()).unwrap();
        envelope["protected"] = protected.into();
        envelope["signature"] = URL_SAFE_NO_PAD.encode(to_fixed(Scheme::EcdsaP256Sha256, signature).unwrap()).into();
        assert_eq!(open(EnvelopeFormat::Jws, envelope.to_string().as_bytes()).is_ok(), is_read, "{time}");
    }
}

#[test]
fn attributes_have_to_agree() {
    let time = Some(at("2026-06-01"));
    let check = |change: &dyn Fn(&mut Attributes<'_>)| {
        let mut attributes = Attributes {
            critical: vec![SCHEME.to_owned()],
            content_type: Some(PAYLOAD_TYPE),
            scheme: Some("notary.x509"),
            time,
            authentic_time: None,
            expiry: None,
            others: Map::new(),
        };
        change(&mut attributes);
        attributes.check()
    };
    assert!(check(&|_| {}).is_ok());
    let changes: [&dyn Fn(&mut Attributes<'_>); 9] = [
        &|all| all.critical.clear(),
        &|all| all.critical.push(SCHEME.to_owned()),
        &|all| all.critical.push("io.cncf.notary.verificationPlugin".to_owned()),
        &|all| all.critical.push(AUTHENTIC_TIME.to_owned()),
        &|all| all.scheme = Some("notary.x509.signingAuthority"),
        &|all| all.scheme = Some("notary.x510"),
        &|all| all.authentic_time = time,
        &|all| {
            all.expiry = time;
            all.critical.push(EXPIRY.to_owned());
        },
        &|all| all.time = None,
    ];
    for (position, change) in changes.into_iter().enumerate() {
        assert!(check(change).is_err(), "{position}");
    }
}

static TRUST: LazyLock<NotationTrust> = LazyLock::new(|| trust("audit", &authority("root", |_| {}), "2026-06-01"));

proptest! {
    #[test]
    fn untrusted_input_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for form in SEALS {
            prop_assert!(TRUST.verify(form, &bytes, &subject()).is_err());
        }
        // After the tag of COSE_Sign1 and a list of four.
        prop_assert!(TRUST.verify(EnvelopeFormat::Cose, &[&[0xd2, 0x84][..], &bytes].concat(), &subject()).is_err());
    }
}
