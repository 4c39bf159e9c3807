//! The body of a transparency log entry: what the entry is about.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::algorithm::Hash;
use crate::key::{PublicKey, blocks};
use crate::pki::Certificate;
use crate::refusal::Refusal;

/// The media type of signed statements: in-toto attestation framework, "Envelope".
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A signature with everything that an entry can refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedMessage<'a> {
    /// The key or certificate of the signer.
    pub(crate) by: VerificationKey<'a>,
    /// The signed bytes.
    pub(crate) message: &'a [u8],
    /// The payload inside of them if they are an envelope; otherwise the same bytes.
    pub(crate) payload: &'a [u8],
    /// The signature.
    pub(crate) signature: &'a [u8],
}

impl SignedMessage<'_> {
    /// Returns whether the message is an envelope around the payload.
    pub(crate) fn is_envelope(&self) -> bool {
        self.message != self.payload
    }
}

/// The key or certificate that verifies a signature.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VerificationKey<'a> {
    Certificate(&'a Certificate),
    Key(&'a PublicKey),
}

impl<'a> VerificationKey<'a> {
    /// Returns the PEM label and the DER encoding.
    pub(crate) fn block(self) -> (&'static str, &'a [u8]) {
        match self {
            VerificationKey::Certificate(certificate) => ("CERTIFICATE", certificate.to_der()),
            VerificationKey::Key(key) => ("PUBLIC KEY", key.to_der()),
        }
    }

    /// Returns the name of its field in entries and requests of version 2.
    pub(crate) fn field_v2(self) -> &'static str {
        match self {
            VerificationKey::Certificate(_) => "x509Certificate",
            VerificationKey::Key(_) => "publicKey",
        }
    }
}

/// Checks that the body of an entry is of this kind and version and about this signature.
pub(crate) fn check((kind, version): (&str, &str), body: &[u8], signed: &SignedMessage<'_>) -> Result<(), Refusal> {
    let refuse = |why: &str| Refusal::Log(why.to_owned());
    let body: Body = serde_json::from_slice(body).map_err(|_| refuse("its body is malformed"))?;
    if body.kind != kind || body.api_version != version {
        return Err(refuse("its body is of another kind than it says"));
    }
    let Body { spec, .. } = &body;
    let is_about = match (kind, version) {
        ("hashedrekord", "0.0.1") => {
            let signature = &spec["signature"];
            is_hash_v1(&spec["data"]["hash"], signed.message)
                && is_base64(&signature["content"], signed.signature)
                && is_verifier(&signature["publicKey"]["content"], signed)
        }
        ("dsse", "0.0.1") => only(&spec["signatures"]).is_some_and(|signature| {
            is_hash_v1(&spec["payloadHash"], signed.payload)
                && is_base64(&signature["signature"], signed.signature)
                && is_verifier(&signature["verifier"], signed)
        }),
        // The predecessor of `dsse`, which bundles from 2023 have (sigstore-conformance,
        // `intoto-with-custom-trust-root`). Its signature is base64-encoded twice.
        ("intoto", "0.0.2") => only(&spec["content"]["envelope"]["signatures"]).is_some_and(|signature| {
            is_hash_v1(&spec["content"]["payloadHash"], signed.payload)
                && is_base64(&signature["sig"], STANDARD.encode(signed.signature).as_bytes())
                && is_verifier(&signature["publicKey"], signed)
        }),
        ("hashedrekord", "0.0.2") => {
            let spec = &spec["hashedRekordV002"];
            is_hash_v2(&spec["data"], signed.message) && is_signature_v2(&spec["signature"], signed)
        }
        ("dsse", "0.0.2") => {
            let spec = &spec["dsseV002"];
            is_hash_v2(&spec["payloadHash"], signed.payload)
                && only(&spec["signatures"]).is_some_and(|signature| is_signature_v2(signature, signed))
        }
        (kind, version) => return Err(Refusal::NotUnderstood(format!("a log entry of type {kind} {version}"))),
    };
    if is_about { Ok(()) } else { Err(refuse("it is about another signature")) }
}

/// Unknown fields are ignored: the log hashed the body, and only the log must know all fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    /// Another form for each kind and version. A missing field reads as `null`, which equals nothing.
    spec: Value,
}

/// Returns the element of a list of one.
fn only(list: &Value) -> Option<&Value> {
    match list.as_array()?.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

/// Returns whether a text is the base64 of these bytes.
fn is_base64(text: &Value, bytes: &[u8]) -> bool {
    decoded(text).is_some_and(|decoded| decoded == bytes)
}

fn decoded(text: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(text.as_str()?).ok()
}

/// Returns the digest of these bytes by the algorithm that an entry names, with this prefix before its length.
fn digest(hash: &Value, prefix: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let name = hash["algorithm"].as_str()?;
    let known = Hash::ALL.into_iter().find(|known| format!("{prefix}{}", known.bits()) == name)?;
    Some(known.digest(bytes))
}

/// Returns whether this is the hash of these bytes, in the format of version 1: hexadecimal digits.
fn is_hash_v1(hash: &Value, bytes: &[u8]) -> bool {
    digest(hash, "sha", bytes).is_some_and(|digest| hash["value"] == hex::encode(digest))
}

/// Returns whether this is the hash of these bytes, in the format of version 2: base64.
fn is_hash_v2(hash: &Value, bytes: &[u8]) -> bool {
    digest(hash, "SHA2_", bytes).is_some_and(|digest| is_base64(&hash["digest"], &digest))
}

/// Returns whether PEM in base64 contains exactly the key or certificate of the signature.
fn is_verifier(pem: &Value, signed: &SignedMessage<'_>) -> bool {
    let Some(Ok(blocks)) = decoded(pem).map(|pem| blocks(&pem)) else { return false };
    matches!(&blocks[..], [block] if (block.label.as_str(), &block.bytes[..]) == signed.by.block())
}

/// Returns whether this is the signature with its key or certificate, in the format of version 2.
fn is_signature_v2(signature: &Value, signed: &SignedMessage<'_>) -> bool {
    let (_, der) = signed.by.block();
    is_base64(&signature["content"], signed.signature)
        && is_base64(&signature["verifier"][signed.by.field_v2()]["rawBytes"], der)
}

#[cfg(test)]
mod tests {
    use ocikit_spec::Digest;
    use serde_json::json;

    use super::*;
    use crate::key::{KeyKind, PrivateKey, Scheme};
    use crate::sigstore::log::KindVersion;
    use crate::sigstore::testing::TestServices;

    /// Returns an entry of each kind for a signature.
    fn bodies(signed: &SignedMessage<'_>) -> Vec<Value> {
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let (label, der) = signed.by.block();
        let pem = text(crate::key::write(label, der).as_bytes());
        let hash = |bytes: &[u8]| json!({"algorithm": "sha256", "value": Digest::sha256_of(bytes).hex()});
        let output =
            |bytes: &[u8]| json!({"algorithm": "SHA2_256", "digest": text(Digest::sha256_of(bytes).as_bytes())});
        let name = signed.by.field_v2();
        let signature = json!({"content": text(signed.signature), "verifier": {name: {"rawBytes": text(der)}}});
        vec![
            json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                "data": {"hash": hash(signed.message)},
                "signature": {"content": text(signed.signature), "publicKey": {"content": pem}},
            }}),
            json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
                "payloadHash": hash(signed.payload),
                "signatures": [{"signature": text(signed.signature), "verifier": pem}],
            }}),
            json!({"apiVersion": "0.0.2", "kind": "intoto", "spec": {"content": {
                "envelope": {"signatures": [{"sig": text(text(signed.signature).as_bytes()), "publicKey": pem}]},
                "payloadHash": hash(signed.payload),
            }}}),
            json!({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
                "data": output(signed.message), "signature": signature,
            }}}),
            json!({"apiVersion": "0.0.2", "kind": "dsse", "spec": {"dsseV002": {
                "payloadHash": output(signed.payload), "signatures": [signature],
            }}}),
        ]
    }

    #[test]
    fn an_entry_must_be_about_the_signature() {
        let (world, key) = (TestServices::new(), PrivateKey::generate(KeyKind::P256).unwrap());
        let [leaf, other] = [(); 2].map(|()| world.certificate(&key, |_| {}));
        let signature = key.sign(Scheme::EcdsaP256Sha256, b"message").unwrap();
        let by_certificate = SignedMessage {
            by: VerificationKey::Certificate(&leaf),
            message: b"message",
            payload: b"payload",
            signature: &signature,
        };
        let by_key = SignedMessage { by: VerificationKey::Key(key.public_key()), ..by_certificate };
        for signed in [by_certificate, by_key] {
            for body in bodies(&signed) {
                let named = |name: &str| body[name].as_str().unwrap().to_owned();
                let kind = KindVersion { kind: named("kind"), version: named("apiVersion") };
                let about = |signed: &SignedMessage<'_>| check(kind.parts(), body.to_string().as_bytes(), signed);
                assert_eq!(about(&signed), Ok(()), "{body}");
                let is_envelope = kind.kind != "hashedrekord";
                for (another, is_told) in [
                    (SignedMessage { message: b"another", ..signed }, !is_envelope),
                    (SignedMessage { payload: b"another", ..signed }, is_envelope),
                    (SignedMessage { signature: b"another", ..signed }, true),
                    (SignedMessage { by: VerificationKey::Certificate(&other), ..signed }, true),
                    (SignedMessage { by: VerificationKey::Key(world.log.public_key()), ..signed }, true),
                ] {
                    assert_eq!(about(&another).is_err(), is_told, "{body}");
                }
                // Another kind or version than declared, and a second signature.
                let otherwise = KindVersion { kind: "rekord".to_owned(), version: kind.version.clone() };
                assert!(check(otherwise.parts(), body.to_string().as_bytes(), &signed).is_err());
                for place in ["/spec/signatures", "/spec/dsseV002/signatures", "/spec/content/envelope/signatures"] {
                    let mut twice = body.clone();
                    let Some(signatures) = twice.pointer_mut(place).and_then(Value::as_array_mut) else { continue };
                    signatures.push(signatures[0].clone());
                    assert!(check(kind.parts(), twice.to_string().as_bytes(), &signed).is_err());
                }
            }
        }
        let older = KindVersion { kind: "intoto".to_owned(), version: "0.0.1".to_owned() };
        let body = br#"{"apiVersion":"0.0.1","kind":"intoto","spec":{}}"#;
        assert!(matches!(check(older.parts(), body, &by_key), Err(Refusal::NotUnderstood(_))));
    }
}
