use std::sync::LazyLock;

use ocikit_spec::{Digest, MediaType};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::key::{KeyKind, PrivateKey, Scheme};
use crate::notation::NotationTrust;
use crate::notation::attributes::{PAYLOAD_TYPE, PLUGIN, SCHEME, SIGNING_TIME, TIMESTAMP, to_fixed};
use crate::notation::chain::Chain;
use crate::notation::testing::*;
use crate::verification::Verification;

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
            let Verification { by, warnings, metadata, .. } = trust.verify(form, &bytes, &subject()).unwrap();
            assert_eq!(by, key.public_key().fingerprint().to_string());
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
