//! The body of a transparency log entry: what the entry is about.

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::key::{PublicKey, blocks};
use crate::pki::Certificate;
use crate::refusal::Refusal;
use crate::sigstore::json::Base64;

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
}

/// Checks that the body of an entry is of this kind and version and about this signature.
pub(crate) fn check((kind, version): (&str, &str), body: &[u8], signed: &SignedMessage<'_>) -> Result<(), Refusal> {
    let refuse = |why: &str| Refusal::Log(why.to_owned());
    let malformed = |_| refuse("its body is malformed");
    let body: Body = serde_json::from_slice(body).map_err(malformed)?;
    if body.kind != kind || body.api_version != version {
        return Err(refuse("its body is of another kind than it says"));
    }
    let is_about = match (kind, version) {
        ("hashedrekord", "0.0.1") => hashed_v1(body.spec, signed),
        ("dsse", "0.0.1") => envelope_v1(body.spec, signed),
        ("intoto", "0.0.2") => intoto(body.spec, signed),
        ("hashedrekord", "0.0.2") => hashed_v2(body.spec, signed),
        ("dsse", "0.0.2") => envelope_v2(body.spec, signed),
        (kind, version) => return Err(Refusal::NotUnderstood(format!("a log entry of type {kind} {version}"))),
    };
    match is_about.map_err(malformed)? {
        true => Ok(()),
        false => Err(refuse("it is about another signature")),
    }
}

/// Unknown fields are ignored: the log hashed the body, and only the log must know all fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    spec: Value,
}

fn hashed_v1(spec: Value, signed: &SignedMessage<'_>) -> serde_json::Result<bool> {
    #[derive(Deserialize)]
    struct Spec {
        data: Data,
        signature: Signature,
    }
    #[derive(Deserialize)]
    struct Data {
        hash: Hash,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signature {
        content: Base64,
        public_key: Key,
    }
    #[derive(Deserialize)]
    struct Key {
        content: Base64,
    }
    let Spec { data, signature } = serde_json::from_value(spec)?;
    let Signature { content, public_key } = signature;
    Ok(data.hash.is_of(signed.message) && content.0 == signed.signature && is_verifier(&public_key.content.0, signed))
}

fn envelope_v1(spec: Value, signed: &SignedMessage<'_>) -> serde_json::Result<bool> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        payload_hash: Hash,
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        signature: Base64,
        verifier: Base64,
    }
    let Spec { payload_hash, signatures } = serde_json::from_value(spec)?;
    let [Signature { signature, verifier }] = &signatures[..] else { return Ok(false) };
    Ok(payload_hash.is_of(signed.payload) && signature.0 == signed.signature && is_verifier(&verifier.0, signed))
}

/// The predecessor of `dsse`, which bundles from 2023 have (sigstore-conformance, `intoto-with-custom-trust-root`).
/// Its signature is base64-encoded twice.
fn intoto(spec: Value, signed: &SignedMessage<'_>) -> serde_json::Result<bool> {
    #[derive(Deserialize)]
    struct Spec {
        content: Content,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Content {
        envelope: Envelope,
        payload_hash: Hash,
    }
    #[derive(Deserialize)]
    struct Envelope {
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signature {
        sig: Base64,
        public_key: Base64,
    }
    let Content { envelope, payload_hash } = serde_json::from_value::<Spec>(spec)?.content;
    let [Signature { sig, public_key }] = &envelope.signatures[..] else { return Ok(false) };
    let is_signature = STANDARD.decode(&sig.0).is_ok_and(|sig| sig == signed.signature);
    Ok(payload_hash.is_of(signed.payload) && is_signature && is_verifier(&public_key.0, signed))
}

/// A hash in hexadecimal digits, the format of version 1.
#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

impl Hash {
    fn is_of(&self, bytes: &[u8]) -> bool {
        let algorithm = match self.algorithm.as_str() {
            "sha256" => &SHA256,
            "sha384" => &SHA384,
            "sha512" => &SHA512,
            _ => return false,
        };
        hex::encode(digest(algorithm, bytes)) == self.value
    }
}

/// Returns whether PEM contains exactly the key or certificate of the signature.
fn is_verifier(pem: &[u8], signed: &SignedMessage<'_>) -> bool {
    let Ok(blocks) = blocks(pem) else { return false };
    matches!(&blocks[..], [block] if (block.label.as_str(), &block.bytes[..]) == signed.by.block())
}

fn hashed_v2(spec: Value, signed: &SignedMessage<'_>) -> serde_json::Result<bool> {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(rename = "hashedRekordV002")]
        inner: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        data: HashOutput,
        signature: SignatureV2,
    }
    let Spec { data, signature } = serde_json::from_value::<Outer>(spec)?.inner;
    Ok(data.is_of(signed.message) && signature.is(signed))
}

fn envelope_v2(spec: Value, signed: &SignedMessage<'_>) -> serde_json::Result<bool> {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(rename = "dsseV002")]
        inner: Spec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        payload_hash: HashOutput,
        signatures: Vec<SignatureV2>,
    }
    let Spec { payload_hash, signatures } = serde_json::from_value::<Outer>(spec)?.inner;
    let [signature] = &signatures[..] else { return Ok(false) };
    Ok(payload_hash.is_of(signed.payload) && signature.is(signed))
}

#[derive(Deserialize)]
struct HashOutput {
    algorithm: String,
    digest: Base64,
}

impl HashOutput {
    fn is_of(&self, bytes: &[u8]) -> bool {
        let algorithm = match self.algorithm.as_str() {
            "SHA2_256" => &SHA256,
            "SHA2_384" => &SHA384,
            "SHA2_512" => &SHA512,
            _ => return false,
        };
        digest(algorithm, bytes).as_ref() == self.digest.0
    }
}

#[derive(Deserialize)]
struct SignatureV2 {
    content: Base64,
    verifier: Verifier,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verifier {
    x509_certificate: Option<Raw>,
    public_key: Option<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: Base64,
}

impl SignatureV2 {
    fn is(&self, signed: &SignedMessage<'_>) -> bool {
        let Verifier { x509_certificate, public_key } = &self.verifier;
        let found = match signed.by {
            VerificationKey::Certificate(_) => x509_certificate,
            VerificationKey::Key(_) => public_key,
        };
        let (_, wanted) = signed.by.block();
        self.content.0 == signed.signature && found.as_ref().is_some_and(|found| found.raw_bytes.0 == wanted)
    }
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
        let name = if matches!(signed.by, VerificationKey::Certificate(_)) { "x509Certificate" } else { "publicKey" };
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
