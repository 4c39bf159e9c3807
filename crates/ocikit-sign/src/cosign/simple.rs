//! Simple signing, the older format of cosign: the payload is a layer, its signature an annotation of the layer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::{Descriptor, Digest, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cosign::verify_signer;
use crate::error::{Error, Result};
use crate::key::Scheme;
use crate::pki::Certificate;
use crate::refusal::{Refusal, malformed};
use crate::signer::{Signer, checked};
use crate::sigstore::entry::{SignedMessage, VerificationKey};
use crate::sigstore::log::{InclusionPromise, KindVersion, LogEntry};
use crate::sigstore::{Base64, Evidence, LogId, LogVersion, Number, VerificationMaterial};
use crate::trust::{Expected, Trust};
use crate::verification::Verification;

/// The media type of a payload.
pub(crate) const LAYER_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature in base64.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The annotation with the signer's certificate in PEM.
const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// The annotation with the intermediate certificates. It is written but not read: a trusted root has them as well.
const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";
/// The annotation with a Rekor v1 log entry, signed by the log.
const LOG_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// The annotation with the response of a timestamp authority.
const TIMESTAMP_ANNOTATION: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// The type that a payload gives for itself.
const PAYLOAD_KIND: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampAnnotation {
    #[serde(rename = "SignedRFC3161Timestamp")]
    timestamp: Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogAnnotation {
    #[serde(rename = "SignedEntryTimestamp")]
    promise: Base64,
    #[serde(rename = "Payload")]
    payload: LogPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogPayload {
    body: Base64,
    integrated_time: Number,
    log_index: Number,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Creates a payload for a digest and a name. Returns the descriptor of its layer, which holds the signature, and the
/// payload.
pub(crate) async fn sign(
    digest: &Digest,
    reference: &str,
    signer: &dyn Signer,
    material: Option<&VerificationMaterial>,
) -> Result<(Descriptor, Vec<u8>)> {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": PAYLOAD_KIND,
        },
        "optional": null,
    })
    .to_string()
    .into_bytes();
    let signature = checked(signer, Scheme::of_cosign(signer.public_key().kind()), &payload).await?;
    let mut layer = layer(&payload, &STANDARD.encode(&signature));
    if let Some(material) = material {
        add_material(&mut layer, &payload, &signature, signer, material).await?;
    }
    Ok((layer, payload))
}

/// Requests the verification material of a signature and adds it to the annotations of its layer.
async fn add_material(
    layer: &mut Descriptor,
    payload: &[u8],
    signature: &[u8],
    signer: &dyn Signer,
    material: &VerificationMaterial,
) -> Result<()> {
    let unsupported = |what: &str| Err(Error::Unsupported(format!("the format cosign-legacy does not support {what}")));
    if material.logs.iter().any(|log| log.version != LogVersion::One) {
        return unsupported("entries of logs of version 2");
    }
    if material.timestamps.len().max(material.logs.len()) > 1 {
        return unsupported("several timestamps, or entries of several logs");
    }
    let by = material.leaf().map_or(VerificationKey::Key(signer.public_key()), VerificationKey::Certificate);
    let evidence =
        material.collect_evidence(&SignedMessage { by, message: payload, payload, signature }, signer).await?;
    if let Some((leaf, chain)) = material.certificates.split_first() {
        layer.annotations.insert(CERTIFICATE_ANNOTATION, leaf.to_pem());
        if !chain.is_empty() {
            layer.annotations.insert(CHAIN_ANNOTATION, chain.iter().map(Certificate::to_pem).collect::<String>());
        }
    }
    for entry in &evidence.entries {
        layer.annotations.insert(LOG_ANNOTATION, log_annotation(entry));
    }
    for timestamp in evidence.timestamps {
        let form = TimestampAnnotation { timestamp: Base64(timestamp) };
        let text = serde_json::to_string(&form).map_err(|error| Error::Signer(error.to_string()))?;
        layer.annotations.insert(TIMESTAMP_ANNOTATION, text);
    }
    Ok(())
}

/// Returns the annotation with a Rekor v1 log entry and the log's signed entry timestamp.
fn log_annotation(entry: &LogEntry) -> String {
    let promise = entry.inclusion_promise.as_ref().map(|promise| &promise.signed_entry_timestamp);
    json!({
        "SignedEntryTimestamp": promise,
        // This format has JSON numbers where bundles have strings.
        "Payload": {
            "body": entry.canonicalized_body,
            "integratedTime": entry.integrated_time.0,
            "logIndex": entry.log_index.0,
            "logID": hex::encode(&entry.log_id.key_id.0),
        },
    })
    .to_string()
}

/// Returns a copy of a layer descriptor with only the fields and annotations that verification reads.
pub(crate) fn without_unused_fields(layer: &Descriptor) -> Descriptor {
    let mut kept = layer.bare();
    for key in [SIGNATURE_ANNOTATION, CERTIFICATE_ANNOTATION, LOG_ANNOTATION, TIMESTAMP_ANNOTATION] {
        if let Some(value) = layer.annotations.get(key) {
            kept.annotations.insert(key, value);
        }
    }
    kept
}

/// Returns the layer descriptor of a payload with its signature, which is in base64.
pub(crate) fn layer(payload: &[u8], signature: &str) -> Descriptor {
    let mut layer = Descriptor::of(MediaType::new(LAYER_TYPE), payload);
    layer.annotations.insert(SIGNATURE_ANNOTATION, signature);
    layer
}

/// Verifies the signature of a layer by a trusted signer, its subject, and the name under which it was signed.
pub(crate) fn verify(
    layer: &Descriptor,
    payload: &[u8],
    digest: &Digest,
    trust: &Trust,
    expected: Expected<'_>,
) -> Result<Verification, Refusal> {
    let found;
    let by = match trust {
        Trust::Key { key, .. } => VerificationKey::Key(key),
        Trust::Certificate(_) => {
            let certificate = layer.annotations.get(CERTIFICATE_ANNOTATION).ok_or(Refusal::OtherSigner)?;
            found = Certificate::read_all(certificate.as_bytes()).map_err(malformed)?;
            let [leaf] = &found[..] else { return Err(malformed("it does not have exactly one certificate")) };
            VerificationKey::Certificate(leaf)
        }
        Trust::Notation(_) => return Err(Refusal::OtherSigner),
    };
    let signed = SignedMessage { by, message: payload, payload, signature: &signature(layer)? };
    // A signature by another key and a changed payload look the same here.
    let verification = verify_signer(trust, &signed, || evidence(layer))?;
    expected.check_name(&check_payload(payload, digest)?)?;
    Ok(verification)
}

/// Returns the log entry and the timestamp in the annotations of a layer.
fn evidence(layer: &Descriptor) -> Result<Evidence, Refusal> {
    let mut evidence = Evidence::default();
    if let Some(text) = layer.annotations.get(TIMESTAMP_ANNOTATION) {
        let TimestampAnnotation { timestamp } = serde_json::from_str(text).map_err(malformed)?;
        evidence.timestamps.push(timestamp.0);
    }
    if let Some(text) = layer.annotations.get(LOG_ANNOTATION) {
        let LogAnnotation { promise, payload } = serde_json::from_str(text).map_err(malformed)?;
        let body: Value = serde_json::from_slice(&payload.body.0).map_err(malformed)?;
        let said = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key_id = hex::decode(&payload.log_id).map_err(|_| malformed("the ID of its log is not hexadecimal"))?;
        // Upper-case digits would be a second encoding of the same ID.
        if hex::encode(&key_id) != payload.log_id {
            return Err(malformed("the ID of its log is not hexadecimal"));
        }
        evidence.entries.push(LogEntry {
            log_index: payload.log_index,
            log_id: LogId { key_id: Base64(key_id) },
            kind_version: KindVersion { kind: said("kind"), version: said("apiVersion") },
            integrated_time: payload.integrated_time,
            inclusion_promise: Some(InclusionPromise { signed_entry_timestamp: promise }),
            inclusion_proof: None,
            canonicalized_body: payload.body,
        });
    }
    Ok(evidence)
}

/// Returns the signature in the annotations of a layer.
pub(crate) fn signature(layer: &Descriptor) -> Result<Vec<u8>, Refusal> {
    let signature =
        layer.annotations.get(SIGNATURE_ANNOTATION).ok_or_else(|| malformed("its layer has no signature"))?;
    STANDARD.decode(signature).map_err(|_| malformed("it is not in base64"))
}

/// Checks that a payload is about `digest`. Returns the name under which it was signed.
pub(crate) fn check_payload(payload: &[u8], digest: &Digest) -> Result<String, Refusal> {
    let Payload { critical } = serde_json::from_slice(payload).map_err(malformed)?;
    if critical.kind != PAYLOAD_KIND {
        return Err(Refusal::NotUnderstood(format!("payloads of type {}", critical.kind)));
    }
    if critical.image.digest != digest.to_string() {
        return Err(Refusal::OtherSubject(critical.image.digest));
    }
    Ok(critical.identity.reference)
}

/// Returns the config and the manifest that hold all signatures of one digest: the layers of `old` and one more.
/// Other fields of `old` are kept.
pub(crate) fn manifest(old: Option<&[u8]>, layer: &Descriptor) -> Result<(Vec<u8>, Vec<u8>)> {
    let refuse = |why: &str| Error::Unsupported(format!("cannot extend the existing signatures: {why}"));
    let mut manifest = match old {
        Some(old) => serde_json::from_slice(old).map_err(|error| refuse(&error.to_string()))?,
        None => json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": null, "layers": []}),
    };
    let layer = serde_json::to_value(layer).map_err(|error| refuse(&error.to_string()))?;
    let layers = manifest.get_mut("layers").and_then(Value::as_array_mut).ok_or_else(|| refuse("it has no layers"))?;
    layers.push(layer);
    let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    // go-containerregistry writes this config for an empty image; cosign and registries expect it.
    let created = "0001-01-01T00:00:00Z";
    let history: Vec<_> = digests.iter().map(|_| json!({"created": created})).collect();
    let config = json!({
        "architecture": "", "created": created, "history": history, "os": "",
        "rootfs": {"type": "layers", "diff_ids": digests}, "config": {},
    })
    .to_string()
    .into_bytes();
    let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &config);
    manifest["config"] = serde_json::to_value(descriptor).map_err(|error| refuse(&error.to_string()))?;
    Ok((config, manifest.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, PrivateKey, PublicKey};
    use crate::sigstore::testing::TestServices;
    use crate::timestamp::testing::TokenContent;

    fn digest() -> Digest {
        Digest::sha256_of(b"an image")
    }

    /// Verifies a signature under the name `registry.example/app`.
    fn verify_by(trust: &Trust, layer: &Descriptor, payload: &[u8], digest: &Digest) -> Result<(), Refusal> {
        let name = "registry.example/app".parse().unwrap();
        super::verify(layer, payload, digest, trust, Expected::of(None, Some(&name))).map(drop)
    }

    fn verify(layer: &Descriptor, payload: &[u8], digest: &Digest, key: &PublicKey) -> Result<(), Refusal> {
        verify_by(&Trust::Key { name: String::new(), key: key.clone() }, layer, payload, digest)
    }

    #[tokio::test]
    async fn no_byte_can_be_changed() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let (layer, payload) = sign(&digest(), "registry.example/app", &key, None).await.unwrap();
        assert_eq!(verify(&layer, &payload, &digest(), key.public_key()), Ok(()));
        assert_eq!(check_payload(&payload, &digest()).unwrap(), "registry.example/app");
        for position in 0..payload.len() {
            let mut changed = payload.clone();
            changed[position] ^= 1;
            assert_eq!(verify(&layer, &changed, &digest(), key.public_key()), Err(Refusal::WrongSignature));
        }
        let signature = layer.annotations.get(SIGNATURE_ANNOTATION).unwrap().as_bytes().to_vec();
        for position in 0..signature.len() {
            for mask in [1, 2, 4, 8, 16, 32, 64] {
                let mut changed = signature.clone();
                changed[position] ^= mask;
                let mut layer = layer.clone();
                layer.annotations.insert(SIGNATURE_ANNOTATION, String::from_utf8(changed).unwrap());
                assert!(verify(&layer, &payload, &digest(), key.public_key()).is_err(), "{position} {mask}");
            }
        }
        let another = Digest::sha256_of(b"another");
        let found = verify(&layer, &payload, &another, key.public_key());
        assert_eq!(found, Err(Refusal::OtherSubject(digest().to_string())));
        let other = PrivateKey::generate(KeyKind::P256).unwrap();
        assert_eq!(verify(&layer, &payload, &digest(), other.public_key()), Err(Refusal::WrongSignature));
    }

    #[tokio::test]
    async fn a_v1_log_entry_and_a_certificate_verify() {
        let (world, key) = (TestServices::new(), PrivateKey::generate(KeyKind::P256).unwrap());
        let leaf = world.certificate(&key, |_| {});
        let (mut layer, payload) = sign(&digest(), "registry.example/app", &key, None).await.unwrap();
        let made = signature(&layer).unwrap();
        let logged = |time: &str| world.logged(&payload, &made, &leaf, time).to_string();
        layer.annotations.insert(CERTIFICATE_ANNOTATION, leaf.to_pem());
        layer.annotations.insert(LOG_ANNOTATION, logged("2026-06-15T12:00:00Z"));
        let trust = Trust::Certificate(Box::new(world.trust()));
        let verified = |layer: &Descriptor| verify_by(&trust, layer, &payload, &digest());
        assert_eq!(verified(&layer), Ok(()));
        assert!(matches!(verify(&layer, &payload, &digest(), world.log.public_key()), Err(Refusal::WrongSignature)));
        for name in [SIGNATURE_ANNOTATION, CERTIFICATE_ANNOTATION, LOG_ANNOTATION] {
            let text = layer.annotations.get(name).unwrap().as_bytes().to_vec();
            for position in 0..text.len() {
                for mask in [1, 0x20] {
                    let mut changed = text.clone();
                    changed[position] ^= mask;
                    let mut layer = layer.clone();
                    layer.annotations.insert(name, String::from_utf8(changed).unwrap());
                    // White space at the end of a PEM line is not part of the certificate.
                    let is_space = name == CERTIFICATE_ANNOTATION && text[position] == b'\n' && mask == 1;
                    assert!(is_space || verified(&layer).is_err(), "{name} {position} {mask}");
                }
            }
        }
        // Logged before the certificate was valid, after it, for another signature, and not logged.
        let (_, other) = sign(&digest(), "another", &key, None).await.unwrap();
        for logged in [
            logged("2026-05-31T23:59:59Z"),
            logged("2026-07-01T00:00:01Z"),
            world.logged(&other, &made, &leaf, "2026-06-15T12:00:00Z").to_string(),
            "{}".to_owned(),
        ] {
            let mut layer = layer.clone();
            layer.annotations.insert(LOG_ANNOTATION, logged);
            assert!(verified(&layer).is_err());
        }
        // A timestamp next to the log entry must be valid as well.
        let stamp = |message: &[u8]| {
            let answer = world.tsa.answer(message, &TokenContent::at("20260615120000Z"));
            serde_json::to_string(&TimestampAnnotation { timestamp: Base64(answer) }).unwrap()
        };
        layer.annotations.insert(TIMESTAMP_ANNOTATION, stamp(&made));
        assert!(verified(&layer).is_ok());
        layer.annotations.insert(TIMESTAMP_ANNOTATION, stamp(b"another"));
        assert!(matches!(verified(&layer), Err(Refusal::Timestamp(_))));
    }

    #[tokio::test]
    async fn existing_signatures_are_kept() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let (one, _) = sign(&digest(), "a", &key, None).await.unwrap();
        let (two, _) = sign(&digest(), "b", &key, None).await.unwrap();
        let (_, first) = manifest(None, &one).unwrap();
        let mut old: Value = serde_json::from_slice(&first).unwrap();
        old["annotations"] = json!({"k": "v"});
        old["layers"][0]["unknown"] = json!(1);
        let (config, second) = manifest(Some(old.to_string().as_bytes()), &two).unwrap();
        let new: Value = serde_json::from_slice(&second).unwrap();
        assert_eq!((&new["annotations"], &new["layers"][0]), (&old["annotations"], &old["layers"][0]));
        assert_eq!(new["layers"][1]["digest"], two.digest.to_string());
        assert_eq!(new["config"]["digest"], Digest::sha256_of(&config).to_string());
        assert!(manifest(Some(b"{}"), &two).is_err());
        assert!(manifest(Some(b"[1]"), &two).is_err());
    }

    proptest::proptest! {
        #[test]
        fn untrusted_input_does_not_panic(text in ".*") {
            let _ = manifest(Some(text.as_bytes()), &Descriptor::of(MediaType::OCTET_STREAM, b""));
        }
    }
}
