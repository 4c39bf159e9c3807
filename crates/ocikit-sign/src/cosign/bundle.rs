//! Sigstore bundles v0.3: an in-toto statement in a DSSE envelope, verified with a key or a certificate.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::Digest;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::budget::MAX_CERTIFICATE_BYTES;
use crate::cosign::{statement, verify_signer};
use crate::error::{Result, to_json, to_raw_json};
use crate::key::{PublicKey, Scheme};
use crate::pki::Certificate;
use crate::refusal::{Refusal, malformed};
use crate::signer::{Signer, checked};
use crate::sigstore::entry::{PAYLOAD_TYPE, SignedMessage, VerificationKey};
use crate::sigstore::log::LogEntry;
use crate::sigstore::{Base64, CertificateJson, Evidence, TimestampJson, TimestampsJson, VerificationMaterial};
use crate::trust::Trust;
use crate::verification::Verification;

/// The media type of bundles, their layers and their artifacts.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A bundle. In one that is read, long fields are borrowed, and unused fields stay unparsed, because the bundle is untrusted
/// input.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    verification_material: MaterialJson<'a>,
    #[serde(borrow)]
    dsse_envelope: Option<Envelope<'a>>,
    /// The other kind of content that bundles allow. Images are not signed this way.
    #[serde(default, skip_serializing)]
    message_signature: Option<IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MaterialJson<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKeyJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateJson>,
    #[serde(default, skip_serializing)]
    x509_certificate_chain: Option<IgnoredAny>,
    /// A signature verified with a key does not depend on log entries or timestamps.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    tlog_entries: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyJson {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    payload_type: Cow<'a, str>,
    #[serde(deserialize_with = "at_most_two")]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

/// Deserializes a list of signatures and keeps at most two: several are refused anyway.
fn at_most_two<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EnvelopeSignature>, D::Error> {
    struct AtMostTwo;

    impl<'de> Visitor<'de> for AtMostTwo {
        type Value = Vec<EnvelopeSignature>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of signatures")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<EnvelopeSignature>, A::Error> {
            let mut found = Vec::new();
            while found.len() < 2
                && let Some(signature) = list.next_element()?
            {
                found.push(signature);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(found)
        }
    }

    deserializer.deserialize_seq(AtMostTwo)
}

/// Creates a bundle with a statement about a digest. [`SIGNATURE_PREDICATE_TYPE`](crate::predicate::SIGNATURE_PREDICATE_TYPE) with an empty predicate is a plain signature.
pub(crate) async fn sign(
    digest: &Digest,
    predicate_type: &str,
    predicate: &Value,
    signer: &dyn Signer,
    material: Option<&VerificationMaterial>,
) -> Result<Vec<u8>> {
    seal(&statement::new(digest, predicate_type, predicate)?, signer, material).await
}

/// Creates a bundle that signs this statement byte for byte.
pub(crate) async fn seal(
    payload: &[u8],
    signer: &dyn Signer,
    material: Option<&VerificationMaterial>,
) -> Result<Vec<u8>> {
    let public = signer.public_key();
    let message = pre_authentication_encoding(PAYLOAD_TYPE, payload);
    let sig = checked(signer, Scheme::of_cosign(public.kind()), &message).await?;
    let leaf = material.and_then(VerificationMaterial::leaf);
    let by = leaf.map_or(VerificationKey::Key(public), VerificationKey::Certificate);
    let evidence = match material {
        Some(material) => {
            material
                .collect_evidence(&SignedMessage { by, message: &message, payload, signature: &sig }, signer)
                .await?
        }
        None => Evidence::default(),
    };
    let certificate = leaf.map(|leaf| CertificateJson { raw_bytes: Base64(leaf.to_der().to_vec()) });
    let public_key = certificate.is_none().then(|| PublicKeyJson { hint: public.hint() });
    let forms = evidence.timestamps.into_iter().map(|stamp| TimestampJson { signed_timestamp: Base64(stamp) });
    let timestamps = TimestampsJson { rfc3161_timestamps: forms.collect() };
    let entries = (!evidence.entries.is_empty()).then(|| to_raw_json(&evidence.entries)).transpose()?;
    let timestamps = (!timestamps.rfc3161_timestamps.is_empty()).then(|| to_raw_json(&timestamps)).transpose()?;
    to_json(&Bundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: MaterialJson {
            public_key,
            certificate,
            x509_certificate_chain: None,
            tlog_entries: entries.as_deref(),
            timestamp_verification_data: timestamps.as_deref(),
        },
        dsse_envelope: Some(Envelope {
            payload: STANDARD.encode(payload).into(),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![EnvelopeSignature { sig: STANDARD.encode(sig), keyid: String::new() }],
        }),
        message_signature: None,
    })
}

/// Returns whether a bundle holds exactly this statement, signed by this key.
pub(crate) fn is_of(bundle: &[u8], statement: &[u8], key: &PublicKey) -> bool {
    let signed = Bundle::read(bundle).and_then(|bundle| bundle.signed());
    signed.is_ok_and(|(payload, signature)| {
        payload == statement && key.verifies_cosign(&pre_authentication_encoding(PAYLOAD_TYPE, &payload), &signature)
    })
}

/// Verifies a bundle: its signature by a trusted signer, its subject and, if one is given, its predicate type.
pub(crate) fn verify(
    bundle: &[u8],
    digest: &Digest,
    predicate_type: Option<&str>,
    trust: &Trust,
) -> Result<Verification, Refusal> {
    let bundle = Bundle::read(bundle)?;
    let MaterialJson { public_key, certificate, .. } = &bundle.verification_material;
    let unnamed = || malformed("it does not say by what it is verified");
    let leaf;
    let by = match trust {
        Trust::Key { key, .. } if certificate.is_none() => {
            let PublicKeyJson { hint } = public_key.as_ref().ok_or_else(unnamed)?;
            // The hint is not signed. A hint for another key only saves the verification.
            if !hint.is_empty() && *hint != key.hint() {
                return Err(Refusal::OtherSigner);
            }
            VerificationKey::Key(key)
        }
        Trust::Certificate(_) if public_key.is_none() => {
            let CertificateJson { raw_bytes } = certificate.as_ref().ok_or_else(unnamed)?;
            if raw_bytes.0.len() > MAX_CERTIFICATE_BYTES {
                return Err(malformed("its certificate is too long"));
            }
            leaf = Certificate::from_der(&raw_bytes.0).map_err(malformed)?;
            VerificationKey::Certificate(&leaf)
        }
        _ => return Err(Refusal::OtherSigner),
    };
    let (payload, signature) = bundle.signed()?;
    let message = pre_authentication_encoding(PAYLOAD_TYPE, &payload);
    let signed = SignedMessage { by, message: &message, payload: &payload, signature: &signature };
    let verification = verify_signer(trust, &signed, || bundle.verification_material.evidence())?;
    drop(message);
    let predicate = statement::check(&payload.into(), digest, predicate_type)?;
    Ok(Verification { predicate: Some(predicate), ..verification })
}

impl<'a> Bundle<'a> {
    fn read(bundle: &'a [u8]) -> Result<Bundle<'a>, Refusal> {
        let bundle: Bundle<'a> = serde_json::from_slice(bundle).map_err(malformed)?;
        if bundle.media_type != MEDIA_TYPE {
            return Err(Refusal::NotUnderstood(format!("bundles of type {}", bundle.media_type)));
        }
        // Bundles v0.3 hold the leaf certificate without its chain.
        if bundle.verification_material.x509_certificate_chain.is_some() {
            return Err(Refusal::OtherSigner);
        }
        Ok(bundle)
    }

    /// Returns the payload and the signature. Neither is verified.
    fn signed(&self) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
        if self.message_signature.is_some() {
            return Err(Refusal::NotUnderstood("a signature without a statement".to_owned()));
        }
        let envelope = self.dsse_envelope.as_ref().ok_or_else(|| malformed("it has no envelope"))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(Refusal::NotUnderstood(format!("payloads of type {}", envelope.payload_type)));
        }
        let [signature] = &envelope.signatures[..] else {
            return Err(malformed("it does not have exactly one signature"));
        };
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| malformed("it is not in base64"));
        Ok((decode(&envelope.payload)?, decode(&signature.sig)?))
    }
}

impl MaterialJson<'_> {
    fn evidence(&self) -> Result<Evidence, Refusal> {
        // Real ones have a few thousand bytes each, and no signature needs many.
        let long = |raw: &&RawValue| raw.get().len() > MAX_EVIDENCE_BYTES;
        if self.tlog_entries.as_ref().is_some_and(long) || self.timestamp_verification_data.as_ref().is_some_and(long) {
            return Err(malformed("its entries in logs, or its timestamps, are too long"));
        }
        let entries: Option<Vec<LogEntry>> = self.tlog_entries.map(parsed).transpose().map_err(malformed)?.flatten();
        let timestamps: Option<TimestampsJson> =
            self.timestamp_verification_data.map(parsed).transpose().map_err(malformed)?.flatten();
        let timestamps = timestamps.unwrap_or_default().rfc3161_timestamps;
        let timestamps = timestamps.into_iter().map(|form| form.signed_timestamp.0).collect();
        Ok(Evidence { entries: entries.unwrap_or_default(), timestamps, needs_proofs: true })
    }
}

/// Parses raw JSON; `None` for null.
fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> serde_json::Result<Option<T>> {
    serde_json::from_str(raw.get())
}

/// The maximum size of the log entries, and of the timestamps, of one signature, in bytes. An entry holds the hash of
/// the statement instead of the statement, so real ones have less than 20,000.
const MAX_EVIDENCE_BYTES: usize = 1 << 20;

/// Returns the predicate type of a bundle. Nothing is verified; the caller must verify the bundle before it trusts
/// the type.
pub(crate) fn predicate_type_unverified(bundle: &[u8]) -> Result<String, Refusal> {
    let bundle: Bundle<'_> = serde_json::from_slice(bundle).map_err(malformed)?;
    let payload = bundle.dsse_envelope.and_then(|envelope| STANDARD.decode(&*envelope.payload).ok());
    let payload = payload.ok_or_else(|| malformed("it has no envelope in base64"))?;
    statement::predicate_type(&payload)
}

/// Checks everything about a bundle that needs no key: its format and its subject. Returns the predicate type.
pub(crate) fn check_unverified(bundle: &[u8], digest: &Digest) -> Result<String, Refusal> {
    let kind = predicate_type_unverified(bundle)?;
    let (payload, _) = Bundle::read(bundle)?.signed()?;
    statement::check(&payload.into(), digest, Some(&kind))?;
    Ok(kind)
}

/// Returns the bytes that a DSSE signature covers: the "Pre-Authentication Encoding".
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, PrivateKey};
    use crate::predicate::SIGNATURE_PREDICATE_TYPE;

    fn digest() -> Digest {
        Digest::sha256_of(b"an image")
    }

    async fn sign(digest: &Digest, signer: &dyn Signer) -> Result<Vec<u8>> {
        super::sign(digest, SIGNATURE_PREDICATE_TYPE, &serde_json::json!({}), signer, None).await
    }

    fn verify(bundle: &[u8], digest: &Digest, key: &PublicKey) -> Result<(), Refusal> {
        let trust = Trust::Key { name: String::new(), key: key.clone() };
        super::verify(bundle, digest, Some(SIGNATURE_PREDICATE_TYPE), &trust).map(drop)
    }

    #[tokio::test]
    async fn a_bundle_verifies_with_its_key_and_digest() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let other = PrivateKey::generate(KeyKind::P256).unwrap();
        let bundle = sign(&digest(), &key).await.unwrap();
        assert_eq!(verify(&bundle, &digest(), key.public_key()), Ok(()));
        assert_eq!(verify(&bundle, &digest(), other.public_key()), Err(Refusal::OtherSigner));
        let another = Digest::sha256_of(b"another");
        assert_eq!(verify(&bundle, &another, key.public_key()), Err(Refusal::OtherSubject(digest().hex())));
        // Without a hint the key is tried.
        let text = String::from_utf8(bundle).unwrap();
        let (mine, yours) = (key.public_key().hint(), other.public_key().hint());
        let unnamed = text.replace(&mine, "");
        assert_eq!(verify(unnamed.as_bytes(), &digest(), key.public_key()), Ok(()));
        assert_eq!(verify(unnamed.as_bytes(), &digest(), other.public_key()), Err(Refusal::WrongSignature));
        let stolen = text.replace(&mine, &yours);
        assert_eq!(verify(stolen.as_bytes(), &digest(), other.public_key()), Err(Refusal::WrongSignature));
    }

    #[tokio::test]
    async fn no_byte_can_be_changed() {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let key = PrivateKey::generate(kind).unwrap();
            let bundle = sign(&digest(), &key).await.unwrap();
            for position in 0..bundle.len() {
                for mask in [1, 2, 4, 8, 16, 32, 64, 128] {
                    let mut changed = bundle.clone();
                    changed[position] ^= mask;
                    assert!(verify(&changed, &digest(), key.public_key()).is_err(), "{position} {mask}");
                }
            }
            for length in 0..bundle.len() {
                assert!(verify(&bundle[..length], &digest(), key.public_key()).is_err(), "{length}");
            }
        }
    }

    #[tokio::test]
    async fn a_bundle_has_one_signature_and_one_kind_of_material() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let bundle = sign(&digest(), &key).await.unwrap();
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        // A second signature, a second content or another kind of material makes a bundle that is not supported.
        let copy = value["dsseEnvelope"]["signatures"][0].clone();
        value["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(copy);
        assert!(verify(value.to_string().as_bytes(), &digest(), key.public_key()).is_err());
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        value["messageSignature"] = serde_json::json!({});
        assert!(verify(value.to_string().as_bytes(), &digest(), key.public_key()).is_err());
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        value["verificationMaterial"]["certificate"] = serde_json::json!({"rawBytes": ""});
        assert_eq!(verify(value.to_string().as_bytes(), &digest(), key.public_key()), Err(Refusal::OtherSigner));
    }

    #[tokio::test]
    async fn untrusted_lists_in_a_bundle_are_not_kept_in_memory() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let bundle = String::from_utf8(sign(&digest(), &key).await.unwrap()).unwrap();
        let zeros = format!("[{}0]", "0,".repeat(1000));
        // Verification with a key does not depend on log entries, so they are not parsed.
        let entries = bundle.replacen('}', &format!(r#"}},"tlogEntries":{zeros}"#), 1);
        assert_eq!(verify(entries.as_bytes(), &digest(), key.public_key()), Ok(()));
        let signatures =
            bundle.replacen(r#""signatures":["#, &format!(r#""signatures":[{}"#, r#"{"sig":""},"#.repeat(1000)), 1);
        let refused = verify(signatures.as_bytes(), &digest(), key.public_key());
        assert_eq!(refused, Err(malformed("it does not have exactly one signature")));
    }

    #[test]
    fn pre_authentication_encoding_follows_dsse() {
        // The example of DSSE's `protocol.md`.
        let bytes = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    proptest::proptest! {
        #[test]
        fn untrusted_input_does_not_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            use std::sync::LazyLock;
            static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate(KeyKind::P256).unwrap());
            let _ = verify(&bytes, &digest(), KEY.public_key());
            let _ = check_unverified(&bytes, &digest());
        }
    }
}
