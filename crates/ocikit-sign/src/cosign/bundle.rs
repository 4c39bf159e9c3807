//! Sigstore bundles of version 0.3 with an in-toto statement in a DSSE envelope, signed by a key or by whom a certificate names.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ocikit_spec::{Algorithm, Digest};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::budget::MAX_CERTIFICATE_BYTES;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::maker::{Maker, Names};
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

/// A bundle as it is read. What is long is borrowed, and what is not looked at stays text: a stranger wrote it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    verification_material: Material<'a>,
    #[serde(borrow)]
    dsse_envelope: Option<Envelope<'a>>,
    /// The other kind of content; no image is signed so.
    #[serde(default)]
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material<'a> {
    #[serde(default)]
    public_key: Option<Hint>,
    #[serde(default)]
    certificate: Option<RawCertificate>,
    #[serde(default)]
    x509_certificate_chain: Option<IgnoredAny>,
    /// With a key at hand these add nothing that is trusted.
    #[serde(default, borrow)]
    tlog_entries: Option<&'a RawValue>,
    #[serde(default, borrow)]
    timestamp_verification_data: Option<&'a RawValue>,
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
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    payload_type: Cow<'a, str>,
    #[serde(deserialize_with = "the_only_one")]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

/// A list of which no more than two are held: several are refused anyway.
fn the_only_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EnvelopeSignature>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
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

    deserializer.deserialize_seq(Few)
}

/// A bundle as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewBundle<'a> {
    media_type: &'a str,
    verification_material: NewMaterial,
    dsse_envelope: Envelope<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMaterial {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<RawCertificate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Timestamps>,
}

/// What was signed, in-toto "Statement layer specification" v1. It is read after its signature was checked, so fields that
/// are not known are the signer's business.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: Vec<Subject<'a>>,
    #[serde(borrow)]
    predicate_type: Cow<'a, str>,
    #[serde(default, borrow)]
    predicate: Option<&'a RawValue>,
}

/// Of the digests of a subject only those are held that images have.
#[derive(Serialize, Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    digest: Digests<'a>,
}

#[derive(Default, Serialize, Deserialize)]
struct Digests<'a> {
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    sha256: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    sha512: Option<Cow<'a, str>>,
}

impl<'a> Digests<'a> {
    fn of(digest: &Digest) -> Digests<'a> {
        let hex = Some(Cow::Owned(digest.hex()));
        match digest.algorithm() {
            Algorithm::Sha512 => Digests { sha512: hex, sha256: None },
            _ => Digests { sha256: hex, sha512: None },
        }
    }

    /// The one by the same algorithm as another.
    fn like(&self, digest: &Digest) -> Option<&str> {
        match digest.algorithm() {
            Algorithm::Sha512 => self.sha512.as_deref(),
            _ => self.sha256.as_deref(),
        }
    }
}

/// What an attestation says, as the JSON text that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate(Bytes);

impl Predicate {
    /// The text of JSON.
    pub fn as_str(&self) -> &str {
        // It was a part of text that was parsed.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }
}

impl Serialize for Predicate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.as_str()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Makes a bundle that says something of a digest: with [`PREDICATE_TYPE`] and an empty predicate, that it was signed.
pub(crate) async fn sign(
    digest: &Digest,
    predicate_type: &str,
    predicate: &Value,
    signer: &dyn Signer,
    vouchers: Option<&Vouchers>,
) -> Result<Vec<u8>> {
    let predicate = to_raw_value(predicate).map_err(|error| Error::Signer(error.to_string()))?;
    let statement = Statement {
        kind: STATEMENT_TYPE.into(),
        subject: vec![Subject { digest: Digests::of(digest) }],
        predicate_type: predicate_type.into(),
        predicate: Some(&predicate),
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
    let forms = evidence.timestamps.into_iter().map(|stamp| TimestampForm { signed_timestamp: Base64(stamp) });
    let timestamps = Timestamps { rfc3161_timestamps: forms.collect() };
    json(&NewBundle {
        media_type: MEDIA_TYPE,
        verification_material: NewMaterial {
            public_key,
            certificate,
            tlog_entries: evidence.entries,
            timestamp_verification_data: (!timestamps.rfc3161_timestamps.is_empty()).then_some(timestamps),
        },
        dsse_envelope: Envelope {
            payload: STANDARD.encode(payload).into(),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![EnvelopeSignature { sig: STANDARD.encode(sig), keyid: String::new() }],
        },
    })
}

/// Whether a bundle is of this very statement, and by this key.
pub(crate) fn is_of(bundle: &[u8], statement: &[u8], key: &PublicKey) -> bool {
    let signed = Bundle::read(bundle).and_then(|bundle| bundle.signed());
    signed.is_ok_and(|(payload, signature)| {
        payload == statement && key.verifies_cosign(&authenticated(PAYLOAD_TYPE, &payload), &signature)
    })
}

/// Checks that a bundle is by this key and says something of this type, or of any, of this digest. Returns what it says.
///
/// Entries of transparency logs and timestamps in it are not looked at: with the key at hand nothing depends on them.
pub(crate) fn verify(
    bundle: &[u8],
    digest: &Digest,
    predicate_type: Option<&str>,
    key: &PublicKey,
) -> Result<Predicate, Refusal> {
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
    says(&payload.into(), digest, predicate_type)
}

/// Checks that a bundle is by somebody whose certificate is trusted, and says something of this type, or of any, of this
/// digest. Returns whom the certificate names, who made it, and what it says.
pub(crate) fn verify_certificate(
    bundle: &[u8],
    digest: &Digest,
    predicate_type: Option<&str>,
    trust: &CertificateTrust,
) -> Result<(Named, Maker, Predicate), Refusal> {
    let bundle = Bundle::read(bundle)?;
    let material = &bundle.verification_material;
    if material.public_key.is_some() {
        return Err(Refusal::OtherSigner);
    }
    let leaf = material.certificate.as_ref().ok_or_else(|| malformed("it does not say by what it is verified"))?;
    if leaf.raw_bytes.0.len() > MAX_CERTIFICATE_BYTES {
        return Err(malformed("its certificate is too long"));
    }
    let leaf = Certificate::from_der(&leaf.raw_bytes.0).map_err(|error| malformed(&error.to_string()))?;
    let (payload, signature) = bundle.signed()?;
    let message = authenticated(PAYLOAD_TYPE, &payload);
    if !leaf.key()?.verifies_cosign(&message, &signature) {
        return Err(Refusal::WrongSignature);
    }
    let signed = Signed { by: By::Certificate(&leaf), message: &message, payload: &payload, signature: &signature };
    let named = trust.check(&leaf, &signed, &material.evidence()?)?;
    let maker = Maker::of_certificate(&leaf, Names::Alternative)?;
    drop(message);
    Ok((named, maker, says(&payload.into(), digest, predicate_type)?))
}

impl<'a> Bundle<'a> {
    fn read(bundle: &'a [u8]) -> Result<Bundle<'a>, Refusal> {
        let bundle: Bundle<'a> = serde_json::from_slice(bundle).map_err(|error| malformed(&error.to_string()))?;
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

impl Material<'_> {
    fn evidence(&self) -> Result<Evidence, Refusal> {
        let wrong = |error: serde_json::Error| malformed(&error.to_string());
        // Real ones have a few thousand bytes each, and no signature needs many.
        let long = |raw: &&RawValue| raw.get().len() > MAX_EVIDENCE_BYTES;
        if self.tlog_entries.as_ref().is_some_and(long) || self.timestamp_verification_data.as_ref().is_some_and(long) {
            return Err(malformed("its entries in logs, or its timestamps, are too long"));
        }
        let entries: Option<Vec<Entry>> = self.tlog_entries.map(parsed).transpose().map_err(wrong)?.flatten();
        let timestamps: Option<Timestamps> =
            self.timestamp_verification_data.map(parsed).transpose().map_err(wrong)?.flatten();
        let timestamps = timestamps.unwrap_or_default().rfc3161_timestamps;
        let timestamps = timestamps.into_iter().map(|form| form.signed_timestamp.0).collect();
        Ok(Evidence { entries: entries.unwrap_or_default(), timestamps, needs_proofs: true })
    }
}

/// What raw JSON is; `None` for null.
fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> serde_json::Result<Option<T>> {
    serde_json::from_str(raw.get())
}

/// The longest entries in logs, and the longest timestamps, of a signature in bytes. An entry holds its own copy of a
/// statement's hash and not the statement, so that real ones have less than 20,000.
const MAX_EVIDENCE_BYTES: usize = 1 << 20;

fn malformed(why: &str) -> Refusal {
    Refusal::Malformed(why.to_owned())
}

/// The type of what a bundle says. Nothing was checked: this is for whoever checks it next.
pub(crate) fn predicate_type_unverified(bundle: &[u8]) -> Result<String, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    let bundle: Bundle<'_> = serde_json::from_slice(bundle).map_err(malformed)?;
    let payload = bundle.dsse_envelope.and_then(|envelope| STANDARD.decode(&*envelope.payload).ok());
    let payload = payload.ok_or_else(|| Refusal::Malformed("it has no envelope in base64".to_owned()))?;
    Ok(serde_json::from_slice::<Statement<'_>>(&payload).map_err(malformed)?.predicate_type.into_owned())
}

/// Checks all of a bundle that needs no key: its form, and that it is about this digest. Returns the type of what it says.
pub(crate) fn about_unverified(bundle: &[u8], digest: &Digest) -> Result<String, Refusal> {
    let kind = predicate_type_unverified(bundle)?;
    let (payload, _) = Bundle::read(bundle)?.signed()?;
    says(&payload.into(), digest, Some(&kind))?;
    Ok(kind)
}

/// Whether bytes are a statement of in-toto, whatever it says.
pub(crate) fn is_statement(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Form<'a> {
        #[serde(rename = "_type", borrow)]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice::<Form<'_>>(bytes).is_ok_and(|form| form.kind.starts_with("https://in-toto.io/Statement/"))
}

/// A statement that nobody signed, and what it is about.
pub(crate) struct Unsigned {
    /// Its bytes, which are those that came unless something was put in.
    pub(crate) bytes: Vec<u8>,
    /// Its type.
    pub(crate) kind: String,
    /// The digest that it named, if another was put in its place.
    pub(crate) before: Option<Digest>,
}

/// The key of what a promoted statement says of its subject: the digest that it named when BuildKit wrote it.
pub(crate) const ANNOTATED_FROM: &str = "dev.ocikit.annotated-from";

/// A statement that nobody signed, about this digest and nothing else. One that names no subject gets this one; one that
/// names nothing but a digest which `is_before` accepts gets it too, and says so.
pub(crate) fn statement_about(
    bytes: &[u8],
    digest: &Digest,
    is_before: impl Fn(&Digest) -> bool,
) -> Result<Unsigned, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    let statement: Statement<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
    let kind = statement.predicate_type.clone().into_owned();
    let name = digest.algorithm().name();
    let mut named: Vec<_> = statement.subject.iter().map(|subject| subject.digest.like(digest)).collect();
    named.dedup();
    let (subject, before) = match named[..] {
        [Some(hex)] if hex == digest.hex() => {
            says(&Bytes::copy_from_slice(bytes), digest, Some(&kind))?;
            return Ok(Unsigned { bytes: bytes.to_vec(), kind, before: None });
        }
        [] => (serde_json::json!([{"name": "", "digest": {name: digest.hex()}}]), None),
        [Some(hex)] => match format!("{name}:{hex}").parse::<Digest>().ok().filter(is_before) {
            Some(before) => {
                let note = serde_json::json!({ANNOTATED_FROM: before});
                (serde_json::json!([{"name": "", "digest": {name: digest.hex()}, "annotations": note}]), Some(before))
            }
            None => return Err(Refusal::OtherSubject(format!("{name}:{hex}"))),
        },
        _ => {
            let other = named.iter().flatten().find(|hex| **hex != digest.hex());
            return Err(Refusal::OtherSubject(
                other.map_or_else(|| "nothing".to_owned(), |hex| format!("{name}:{hex}")),
            ));
        }
    };
    let bytes = with_subject(bytes, &subject.to_string()).map_err(malformed)?;
    says(&Bytes::copy_from_slice(&bytes), digest, Some(&kind))?;
    Ok(Unsigned { bytes, kind, before })
}

/// A statement with another subject, and every other byte as it was.
fn with_subject(bytes: &[u8], subject: &str) -> serde_json::Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Form<'a> {
        #[serde(borrow)]
        subject: &'a RawValue,
    }
    let Form { subject: old } = serde_json::from_slice(bytes)?;
    // Raw values are parts of what they were read from.
    let start = (old.get().as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    let (before, after) = (bytes.get(..start), bytes.get(start.saturating_add(old.get().len())..));
    Ok([before.unwrap_or_default(), subject.as_bytes(), after.unwrap_or_default()].concat())
}

/// What a statement, whose signature was checked, says of a digest, if it is of that type. Any will do if none is named.
fn says(payload: &Bytes, digest: &Digest, predicate_type: Option<&str>) -> Result<Predicate, Refusal> {
    let statement: Statement<'_> =
        serde_json::from_slice(payload).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if ![STATEMENT_TYPE, STATEMENT_TYPE_BEFORE].contains(&&*statement.kind) {
        return Err(Refusal::NotUnderstood(format!("statements of type {}", statement.kind)));
    }
    // An attestation is signed as well, and does not say what a signature says.
    if predicate_type.is_some_and(|wanted| statement.predicate_type != wanted) {
        return Err(Refusal::OtherPredicate(statement.predicate_type.into_owned()));
    }
    let hex = digest.hex();
    if statement.subject.iter().any(|subject| subject.digest.like(digest) == Some(&hex)) {
        let predicate = statement.predicate.map_or("null", RawValue::get);
        // A part of the payload, which is then held as a whole.
        let is_part = payload.as_ptr_range().contains(&predicate.as_ptr());
        return Ok(Predicate(match is_part {
            true => payload.slice_ref(predicate.as_bytes()),
            false => Bytes::from_static(b"null"),
        }));
    }
    let other = statement.subject.iter().find_map(|subject| subject.digest.like(digest));
    Err(Refusal::OtherSubject(other.unwrap_or("nothing").to_owned()))
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
        super::sign(digest, PREDICATE_TYPE, &serde_json::json!({}), signer, None).await
    }

    fn verify(bundle: &[u8], digest: &Digest, key: &PublicKey) -> Result<(), Refusal> {
        super::verify(bundle, digest, Some(PREDICATE_TYPE), key).map(drop)
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
            says(&payload.into(), &digest(), Some(PREDICATE_TYPE)),
            Err(Refusal::OtherPredicate("https://slsa.dev/provenance/v1".to_owned()))
        );
        let bundle = sign(&digest(), &key).await.unwrap();
        let mut value: Value = serde_json::from_slice(&bundle).unwrap();
        // A second signature, a second content, another kind of material: each is another bundle than this reads.
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

    #[test]
    fn a_statement_is_about_one_digest_or_gets_it() {
        let hex = digest().hex();
        let text = |subject: &str| {
            format!(
                r#"{{"_type":"{STATEMENT_TYPE}","subject":{subject},"predicateType":"x:y","predicate":{{"n":1.50}}}}"#
            )
        };
        let about = |text: &str| statement_about(text.as_bytes(), &digest(), |_| false);
        let own = format!(r#"{{"name":"a","digest":{{"sha256":"{hex}"}}}}"#);
        for subject in [format!("[{own}]"), format!("[{own}, {own}]")] {
            let unsigned = about(&text(&subject)).unwrap();
            assert_eq!((unsigned.bytes, &*unsigned.kind), (text(&subject).into_bytes(), "x:y"), "no byte is changed");
        }
        let put_in = about(&text("[]")).unwrap().bytes;
        let wanted = text(&format!(r#"[{{"name":"","digest":{{"sha256":"{hex}"}}}}]"#));
        assert_eq!(String::from_utf8(put_in.clone()).unwrap(), wanted, "numbers and order stay");
        let said = says(&put_in.into(), &digest(), Some("x:y")).unwrap();
        assert_eq!((said.as_str(), serde_json::to_string(&said).unwrap().as_str()), (r#"{"n":1.50}"#, r#"{"n":1.50}"#));
        let other = r#"{"name":"b","digest":{"sha256":"00"}}"#;
        for subject in [format!("[{own}, {other}]"), format!("[{other}]"), r#"[{"name":"a","digest":{}}]"#.to_owned()] {
            let refused = about(&text(&subject)).map(|unsigned| unsigned.kind);
            assert!(matches!(refused, Err(Refusal::OtherSubject(_))), "{subject}: {refused:?}");
        }
        for text in [text("{}"), text("null"), text("[]").replace("/v1", "/v9"), "[]".to_owned()] {
            assert!(about(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_statement_about_the_digest_before_says_so() {
        let (before, other) = (Digest::sha256_of(b"before"), Digest::sha256_of(b"other"));
        let text = |subjects: &str| {
            format!(r#"{{"_type":"{STATEMENT_TYPE}","subject":[{subjects}],"predicateType":"x:y","predicate":{{}}}}"#)
        };
        let of = |digest: &Digest| format!(r#"{{"name":"a","digest":{{"sha256":"{}"}}}}"#, digest.hex());
        let about = |text: &str| statement_about(text.as_bytes(), &digest(), |named| *named == before);
        let unsigned = about(&text(&of(&before))).unwrap();
        assert_eq!(unsigned.before, Some(before));
        let value: Value = serde_json::from_slice(&unsigned.bytes).unwrap();
        assert_eq!(value["subject"][0]["annotations"][ANNOTATED_FROM], before.to_string());
        assert_eq!(value["subject"].as_array().unwrap().len(), 1);
        assert!(says(&unsigned.bytes.into(), &digest(), Some("x:y")).is_ok());
        for subjects in
            [of(&other), format!("{},{}", of(&before), of(&other)), format!("{},{}", of(&digest()), of(&other))]
        {
            assert!(matches!(about(&text(&subjects)), Err(Refusal::OtherSubject(_))), "{subjects}");
        }
    }

    #[tokio::test]
    async fn what_a_stranger_writes_into_a_bundle_is_not_held() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let bundle = String::from_utf8(sign(&digest(), &key).await.unwrap()).unwrap();
        let zeros = format!("[{}0]", "0,".repeat(1000));
        // With the key nothing depends on them, and they stay text.
        let entries = bundle.replacen('}', &format!(r#"}},"tlogEntries":{zeros}"#), 1);
        assert_eq!(verify(entries.as_bytes(), &digest(), key.public_key()), Ok(()));
        let signatures =
            bundle.replacen(r#""signatures":["#, &format!(r#""signatures":[{}"#, r#"{"sig":""},"#.repeat(1000)), 1);
        let refused = verify(signatures.as_bytes(), &digest(), key.public_key());
        assert_eq!(refused, Err(Refusal::Malformed("it has not one signature".to_owned())));
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
            let _ = says(&bytes.clone().into(), &digest(), None);
            let _ = (about_unverified(&bytes, &digest()), is_statement(&bytes));
            let _ = statement_about(&bytes, &digest(), |_| true);
        }
    }
}
