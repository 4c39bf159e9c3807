//! Simple signing: a payload in a layer, its signature in an annotation of the layer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::{Descriptor, Digest, MediaType};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::refusal::Refusal;
use crate::signer::{Signer, checked};

/// The media type of a payload.
pub(crate) const LAYER_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that has the signature, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What a payload calls itself.
const KIND: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
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

/// Makes a payload about a digest under a name, and the descriptor of its layer with the signature.
pub(crate) async fn sign(digest: &Digest, reference: &str, signer: &dyn Signer) -> Result<(Descriptor, Vec<u8>)> {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": KIND,
        },
        "optional": null,
    })
    .to_string()
    .into_bytes();
    let signature = checked(signer, Scheme::of_cosign(signer.public_key().kind()), &payload).await?;
    Ok((layer(&payload, &STANDARD.encode(signature)), payload))
}

/// The descriptor of a payload with its signature, which is in base64.
pub(crate) fn layer(payload: &[u8], signature: &str) -> Descriptor {
    let mut layer = Descriptor::of(MediaType::new(LAYER_TYPE), payload);
    layer.annotations.insert(SIGNATURE, signature);
    layer
}

/// Checks that a layer is a signature by this key of this digest, and returns the name under which it was signed.
pub(crate) fn verify(layer: &Descriptor, payload: &[u8], digest: &Digest, key: &PublicKey) -> Result<String, Refusal> {
    if !key.verifies_cosign(payload, &signature(layer)?) {
        // Nothing tells whether it is another's or was changed.
        return Err(Refusal::WrongSignature);
    }
    says(payload, digest)
}

/// The signature in the annotations of a layer.
pub(crate) fn signature(layer: &Descriptor) -> Result<Vec<u8>, Refusal> {
    let signature = layer.annotations.get(SIGNATURE).ok_or_else(|| malformed("its layer has no signature"))?;
    STANDARD.decode(signature).map_err(|_| malformed("it is not in base64"))
}

fn malformed(why: &str) -> Refusal {
    Refusal::Malformed(why.to_owned())
}

/// The name under which a payload says that a digest was signed.
pub(crate) fn says(payload: &[u8], digest: &Digest) -> Result<String, Refusal> {
    let Payload { critical } =
        serde_json::from_slice(payload).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if critical.kind != KIND {
        return Err(Refusal::NotUnderstood(format!("payloads of type {}", critical.kind)));
    }
    if critical.image.digest != digest.to_string() {
        return Err(Refusal::OtherSubject(critical.image.digest));
    }
    Ok(critical.identity.reference)
}

/// The manifest of all signatures of one digest: what was there, and one more layer. What the old one says besides stays.
///
/// Returns the config and the manifest.
pub(crate) fn manifest(old: Option<&[u8]>, layer: &Descriptor) -> Result<(Vec<u8>, Vec<u8>)> {
    let refuse = |why: &str| Error::Unsupported(format!("the signatures that are there cannot be added to: {why}"));
    let mut manifest = match old {
        Some(old) => serde_json::from_slice(old).map_err(|error| refuse(&error.to_string()))?,
        None => json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": null, "layers": []}),
    };
    let layer = serde_json::to_value(layer).map_err(|error| refuse(&error.to_string()))?;
    let layers = manifest.get_mut("layers").and_then(Value::as_array_mut).ok_or_else(|| refuse("it has no layers"))?;
    layers.push(layer);
    let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    // As go-containerregistry writes the config of an image of nothing, which cosign and registries expect.
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
    use crate::key::{KeyKind, PrivateKey};

    fn digest() -> Digest {
        Digest::sha256_of(b"an image")
    }

    #[tokio::test]
    async fn no_byte_can_be_changed() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let (layer, payload) = sign(&digest(), "registry.example/app", &key).await.unwrap();
        assert_eq!(verify(&layer, &payload, &digest(), key.public_key()).unwrap(), "registry.example/app");
        for position in 0..payload.len() {
            let mut changed = payload.clone();
            changed[position] ^= 1;
            assert_eq!(verify(&layer, &changed, &digest(), key.public_key()), Err(Refusal::WrongSignature));
        }
        let signature = layer.annotations.get(SIGNATURE).unwrap().as_bytes().to_vec();
        for position in 0..signature.len() {
            for mask in [1, 2, 4, 8, 16, 32, 64] {
                let mut changed = signature.clone();
                changed[position] ^= mask;
                let mut layer = layer.clone();
                layer.annotations.insert(SIGNATURE, String::from_utf8(changed).unwrap());
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
    async fn what_is_there_stays() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let (one, _) = sign(&digest(), "a", &key).await.unwrap();
        let (two, _) = sign(&digest(), "b", &key).await.unwrap();
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
        fn nothing_panics(text in ".*") {
            let _ = manifest(Some(text.as_bytes()), &Descriptor::of(MediaType::OCTET_STREAM, b""));
        }
    }
}
