//! Sigstore bundles of version 0.3 with an in-toto statement in a DSSE envelope, signed by a key or by whom a certificate names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::pki::Certificate;
use crate::refusal::Refusal;
use crate::signer::{Signer, checked};
use crate::sigstore::entry::{By, Signed};
use crate::sigstore::log::Entry;
use crate::sigstore::{Base64, CertificateTrust, Evidence, Named, TimestampForm, Timestamps, Vouchers};

/// The media type of bundles, of their layer and of the artifact.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What a statement says that is nothing but a signature.
pub(crate) const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What cosign calls its attestations still; the fields that count are the same.
const STATEMENT_TYPE_BEFORE: &str = "https://in-toto.io/Statement/v0.1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle {
    media_type: String,
    verification_material: Material,
    #[serde(skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
    /// The other kind of content; no image is signed so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<RawCertificate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x509_certificate_chain: Option<Value>,
    /// With a key at hand these add nothing that is trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCertificate {
    raw_bytes: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

/// What was signed, in-toto "Statement layer specification" v1. It is read after its signature was checked, so fields that
/// are not known are the signer's business.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    digest: Map<String, Value>,
}

/// Makes a bundle that says something of a digest: with [`PREDICATE_TYPE`] and an empty predicate, that it was signed.
pub(crate) async fn sign(
    digest: &Digest,
    predicate_type: &str,
    predicate: &Value,
    signer: &dyn Signer,
    vouchers: Option<&Vouchers>,
) -> Result<Vec<u8>> {
    let name = digest.algorithm().name().to_owned();
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject { digest: Map::from_iter([(name, Value::String(digest.hex()))]) }],
        predicate_type: predicate_type.to_owned(),
        predicate: predicate.clone(),
    };
    seal(&json(&statement)?, signer, vouchers).await
}

/// Makes a bundle of a statement, byte for byte.
pub(crate) async fn seal(payload: &[u8], signer: &dyn Signer, vouchers: Option<&Vouchers>) -> Result<Vec<u8>> {
    let public = signer.public_key();
    let message = authenticated(PAYLOAD_TYPE, payload);
    let sig = checked(signer, Scheme::of_cosign(public.kind()), &message).await?;
    let leaf = vouchers.and_then(Vouchers::leaf);
    let by = leaf.map_or(By::Key(public), By::Certificate);
    let evidence = match vouchers {
        Some(vouchers) => vouchers.vouch(&Signed { by, message: &message, payload, signature: &sig }, signer).await?,
        None => Evidence::default(),
    };
    let certificate = leaf.map(|leaf| RawCertificate { raw_bytes: Base64(leaf.to_der().to_vec()) });
    let public_key = certificate.is_none().then(|| Hint { hint: public.hint() });
    let (tlog_entries, timestamp_verification_data) = evidence.to_values()?;
    json(&Bundle {
        media_type: MEDIA_TYPE.to_owned(),
        verification_material: Material {
            public_key,
            certificate,
            x509_certificate_chain: None,
            tlog_entries,
            timestamp_verification_data,
        },
        dsse_envelope: Some(Envelope {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![EnvelopeSignature { sig: STANDARD.encode(sig), keyid: String::new() }],
        }),
        message_signature: None,
    })
}

/// Whether a bundle is of this very statement, and by this key.
pub(crate) fn is_of(bundle: &[u8], statement: &[u8], key: &PublicKey) -> bool {
    let signed = Bundle::read(bundle).and_then(|bundle| bundle.signed());
    signed.is_ok_and(|(payload, signature)| {
        payload == statement && key.verifies_cosign(&authenticated(PAYLOAD_TYPE, &payload), &signature)
    })
}

/// Checks that a bundle is by this key and says something of that type of this digest. Returns what it says.
///
/// Entries of transparency logs and timestamps in it are not looked at: with the key at hand nothing depends on them.
pub(crate) fn verify(bundle: &[u8], digest: &Digest, predicate_type: &str, key: &PublicKey) -> Result<Value, Refusal> {
    let bundle = Bundle::read(bundle)?;
    let material = &bundle.verification_material;
    if material.certificate.is_some() {
        return Err(Refusal::OtherSigner);
    }
    let hint = material.public_key.as_ref().ok_or_else(|| malformed("it does not say by what it is verified"))?;
    // The hint is not signed. One that names another key only saves the work.
    if !hint.hint.is_empty() && hint.hint != key.hint() {
        return Err(Refusal::OtherSigner);
    }
    let (payload, signature) = bundle.signed()?;
    if !key.verifies_cosign(&authenticated(PAYLOAD_TYPE, &payload), &signature) {
        return Err(Refusal::WrongSignature);
    }
    says(&payload, digest, predicate_type)
}

/// Checks that a bundle is by somebody whose certificate is trusted, and says something of that type of this digest. Returns
/// whom the certificate names, and what it says.
pub(crate) fn verify_certificate(
    bundle: &[u8],
    digest: &Digest,
    predicate_type: &str,
    trust: &CertificateTrust,
) -> Result<(Named, Value), Refusal> {
    let bundle = Bundle::read(bundle)?;
    let material = &bundle.verification_material;
    if material.public_key.is_some() {
        return Err(Refusal::OtherSigner);
    }
    let leaf = material.certificate.as_ref().ok_or_else(|| malformed("it does not say by what it is verified"))?;
    let leaf = Certificate::from_der(&leaf.raw_bytes.0).map_err(|error| malformed(&error.to_string()))?;
    let (payload, signature) = bundle.signed()?;
    let message = authenticated(PAYLOAD_TYPE, &payload);
    if !leaf.key()?.verifies_cosign(&message, &signature) {
        return Err(Refusal::WrongSignature);
    }
    let signed = Signed { by: By::Certificate(&leaf), message: &message, payload: &payload, signature: &signature };
    let named = trust.check(&leaf, &signed, &material.evidence()?)?;
    Ok((named, says(&payload, digest, predicate_type)?))
}

impl Bundle {
    fn read(bundle: &[u8]) -> Result<Bundle, Refusal> {
        let bundle: Bundle = serde_json::from_slice(bundle).map_err(|error| malformed(&error.to_string()))?;
        if bundle.media_type != MEDIA_TYPE {
            return Err(Refusal::NotUnderstood(format!("bundles of type {}", bundle.media_type)));
        }
        // Version 0.3 has the certificate alone.
        if bundle.verification_material.x509_certificate_chain.is_some() {
            return Err(Refusal::OtherSigner);
        }
        Ok(bundle)
    }

    /// What was signed, and its signature. Neither was checked.
    fn signed(&self) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
        if self.message_signature.is_some() {
            return Err(Refusal::NotUnderstood("a signature without a statement".to_owned()));
        }
        let envelope = self.dsse_envelope.as_ref().ok_or_else(|| malformed("it has no envelope"))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(Refusal::NotUnderstood(format!("payloads of type {}", envelope.payload_type)));
        }
        let [signature] = &envelope.signatures[..] else { return Err(malformed("it has not one signature")) };
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| malformed("it is not in base64"));
        Ok((decode(&envelope.payload)?, decode(&signature.sig)?))
    }
}

impl Evidence {
    /// Entries and timestamps as a bundle has them.
    fn to_values(&self) -> Result<(Vec<Value>, Option<Value>)> {
        let value = |error: serde_json::Error| Error::Signer(error.to_string());
        let entries = self.entries.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(value)?;
        if self.timestamps.is_empty() {
            return Ok((entries, None));
        }
        let forms = self.timestamps.iter().map(|stamp| TimestampForm { signed_timestamp: Base64(stamp.clone()) });
        let timestamps = Timestamps { rfc3161_timestamps: forms.collect() };
        Ok((entries, Some(serde_json::to_value(timestamps).map_err(value)?)))
    }
}

impl Material {
    fn evidence(&self) -> Result<Evidence, Refusal> {
        let wrong = |error: serde_json::Error| malformed(&error.to_string());
        let entries = self.tlog_entries.iter().map(Entry::deserialize).collect::<Result<_, _>>();
        let timestamps = self.timestamp_verification_data.as_ref().map(Timestamps::deserialize).transpose();
        let timestamps = timestamps.map_err(wrong)?.unwrap_or_default().rfc3161_timestamps;
        let timestamps = timestamps.into_iter().map(|form| form.signed_timestamp.0).collect();
        Ok(Evidence { entries: entries.map_err(wrong)?, timestamps, needs_proofs: true })
    }
}

fn malformed(why: &str) -> Refusal {
    Refusal::Malformed(why.to_owned())
}

/// The type of what a bundle says. Nothing was checked: this is for whoever checks it next.
pub(crate) fn predicate_type_unverified(bundle: &[u8]) -> Result<String, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(malformed)?;
    let payload = bundle.dsse_envelope.and_then(|envelope| STANDARD.decode(envelope.payload).ok());
    let payload = payload.ok_or_else(|| Refusal::Malformed("it has no envelope in base64".to_owned()))?;
    Ok(serde_json::from_slice::<Statement>(&payload).map_err(malformed)?.predicate_type)
}

/// Checks all of a bundle that needs no key: its form, and that it is about this digest. Returns the type of what it says.
pub(crate) fn about_unverified(bundle: &[u8], digest: &Digest) -> Result<String, Refusal> {
    let kind = predicate_type_unverified(bundle)?;
    let (payload, _) = Bundle::read(bundle)?.signed()?;
    says(&payload, digest, &kind)?;
    Ok(kind)
}

/// A statement that nobody signed, about this digest and nothing else. One that names no subject gets this one.
///
/// Returns its bytes, which are those that came if nothing is missing, and its type.
pub(crate) fn statement_about(bytes: &[u8], digest: &Digest) -> Result<(Vec<u8>, String), Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    let statement: Statement = serde_json::from_slice(bytes).map_err(malformed)?;
    let mut value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let kind = statement.predicate_type.clone();
    if statement.subject.is_empty() {
        let name = digest.algorithm().name();
        value["subject"] = serde_json::json!([{"name": "", "digest": {name: digest.hex()}}]);
        let bytes = serde_json::to_vec(&value).map_err(malformed)?;
        says(&bytes, digest, &kind)?;
        return Ok((bytes, kind));
    }
    for subject in &statement.subject {
        let named = subject.digest.get(digest.algorithm().name()).and_then(Value::as_str);
        if named != Some(&digest.hex()) {
            return Err(Refusal::OtherSubject(named.unwrap_or("nothing").to_owned()));
        }
    }
    says(bytes, digest, &kind)?;
    Ok((bytes.to_vec(), kind))
}

/// What a statement, whose signature was checked, says of a digest, if it is of that type.
fn says(payload: &[u8], digest: &Digest, predicate_type: &str) -> Result<Value, Refusal> {
    let statement: Statement =
        serde_json::from_slice(payload).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if ![STATEMENT_TYPE, STATEMENT_TYPE_BEFORE].contains(&statement.kind.as_str()) {
        return Err(Refusal::NotUnderstood(format!("statements of type {}", statement.kind)));
    }
    // An attestation is signed as well, and does not say what a signature says.
    if statement.predicate_type != predicate_type {
        return Err(Refusal::OtherPredicate(statement.predicate_type));
    }
    let name = digest.algorithm().name();
    let named = |subject: &Subject| subject.digest.get(name).and_then(Value::as_str).map(str::to_owned);
    let subjects: Vec<_> = statement.subject.iter().filter_map(named).collect();
    if subjects.contains(&digest.hex()) {
        return Ok(statement.predicate);
    }
    Err(Refusal::OtherSubject(subjects.into_iter().next().unwrap_or_else(|| "nothing".to_owned())))
}

/// The bytes that a DSSE signature is of: "Pre-Authentication Encoding".
fn authenticated(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Signer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, PrivateKey};

    fn digest() -> Digest {
        Digest::sha256_of(b"an image")
    }

    async fn sign(digest: &Digest, signer: &dyn Signer) -> Result<Vec<u8>> {
        super::sign(digest, PREDICATE_TYPE, &Value::Object(Map::new()), signer, None).await
    }

    fn verify(bundle: &[u8], digest: &Digest, key: &PublicKey) -> Result<(), Refusal> {
        super::verify(bundle, digest, PREDICATE_TYPE, key).map(drop)
    }

    #[tokio::test]
    async fn a_bundle_is_by_its_key_and_about_its_digest() {
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
    async fn a_signed_attestation_is_no_signature() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let payload = format!(
            r#"{{"_type":"{STATEMENT_TYPE}","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{{}}}}"#,
            digest().hex()
        );
        assert_eq!(
            says(payload.as_bytes(), &digest(), PREDICATE_TYPE),
            Err(Refusal::OtherPredicate("https://slsa.dev/provenance/v1".to_owned()))
        );
        let bundle = sign(&digest(), &key).await.unwrap();
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        // A second signature, a second content, another kind of material: each is another bundle than this reads.
        let copy = value["dsseEnvelope"]["signatures"][0].clone();
        value["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(copy);
        assert!(verify(value.to_string().as_bytes(), &digest(), key.public_key()).is_err());
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        value["messageSignature"] = Value::Object(Map::new());
        assert!(verify(value.to_string().as_bytes(), &digest(), key.public_key()).is_err());
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        value["verificationMaterial"]["certificate"] = serde_json::json!({"rawBytes": ""});
        assert_eq!(verify(value.to_string().as_bytes(), &digest(), key.public_key()), Err(Refusal::OtherSigner));
    }

    #[test]
    fn a_statement_is_about_one_digest_or_gets_it() {
        let hex = digest().hex();
        let text = |subject: &str| {
            format!(
                r#"{{"_type":"{STATEMENT_TYPE}","subject":{subject},"predicateType":"x:y","predicate":{{"n":1.50}}}}"#
            )
        };
        let own = format!(r#"{{"name":"a","digest":{{"sha256":"{hex}"}}}}"#);
        for subject in [format!("[{own}]"), format!("[{own}, {own}]")] {
            let (bytes, kind) = statement_about(text(&subject).as_bytes(), &digest()).unwrap();
            assert_eq!((bytes, kind.as_str()), (text(&subject).into_bytes(), "x:y"), "not a byte is changed");
        }
        let (bytes, _) = statement_about(text("[]").as_bytes(), &digest()).unwrap();
        assert_eq!(says(&bytes, &digest(), "x:y").unwrap(), serde_json::json!({"n": 1.5}));
        let other = r#"{"name":"b","digest":{"sha256":"00"}}"#;
        for subject in [format!("[{own}, {other}]"), format!("[{other}]"), r#"[{"name":"a","digest":{}}]"#.to_owned()] {
            let refused = statement_about(text(&subject).as_bytes(), &digest());
            assert!(matches!(refused, Err(Refusal::OtherSubject(_))), "{subject}: {refused:?}");
        }
        for text in [text("{}"), text("null"), text("[]").replace("/v1", "/v9"), "[]".to_owned()] {
            assert!(statement_about(text.as_bytes(), &digest()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The example of DSSE's `protocol.md`.
        let bytes = authenticated("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            use std::sync::LazyLock;
            static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate(KeyKind::P256).unwrap());
            let _ = verify(&bytes, &digest(), KEY.public_key());
            let _ = says(&bytes, &digest(), PREDICATE_TYPE);
            let _ = (about_unverified(&bytes, &digest()), statement_about(&bytes, &digest()));
        }
    }
}
