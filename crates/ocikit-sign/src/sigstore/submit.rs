//! Creating transparency log entries with both versions of Rekor's API.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::key::{self, KeyKind, Scheme};
use crate::redact::address;
use crate::sigstore::config::{LogUrl, LogVersion};
use crate::sigstore::entry::{self, PAYLOAD_TYPE, SignedMessage};
use crate::sigstore::json::{Base64, LogId, Number};
use crate::sigstore::log::{CheckpointText, InclusionPromise, InclusionProof, KindVersion, LogEntry};
use crate::sigstore::services::{JSON, MAX_RESPONSE_BYTES, read};

/// Creates a log entry for a signature by a key of this kind. The entry is checked to be about this signature; the
/// caller must verify the log's proofs.
///
/// # Errors
///
/// [`Error::Unsupported`] for kinds of keys that logs do not accept, [`Error::Service`] if the response is not an
/// entry, [`Error::Refused`] if the entry is about something else.
pub(super) async fn submit(http: &Http, log: &LogUrl, signed: &SignedMessage<'_>, kind: KeyKind) -> Result<LogEntry> {
    let base = log.url.trim_end_matches('/');
    let entry = match log.version {
        LogVersion::One => submit_v1(http, base, signed, kind).await?,
        LogVersion::Two => {
            let url = format!("{base}/api/v2/log/entries");
            let answer = http
                .post(&url, JSON, &[], request_v2(signed, kind)?.to_string().into_bytes(), MAX_RESPONSE_BYTES)
                .await?;
            read(&url, &answer)?
        }
    };
    entry::check(entry.kind_version.parts(), &entry.canonicalized_body.0, signed).map_err(Error::Refused)?;
    Ok(entry)
}

async fn submit_v1(http: &Http, base: &str, signed: &SignedMessage<'_>, kind: KeyKind) -> Result<LogEntry> {
    let url = format!("{base}/api/v1/log/entries");
    let mut answer =
        http.post(&url, JSON, &[], request_v1(signed, kind)?.to_string().into_bytes(), MAX_RESPONSE_BYTES).await?;
    // Conflict: the entry exists already, for example if the same content is signed twice with RSA. Only the last
    // part of the location is used.
    let there = answer.header("location").and_then(|location| location.rsplit('/').next());
    if let (409, Some(id)) = (answer.status, there)
        && !id.is_empty()
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        answer = http.get(&format!("{url}/{id}"), &[("accept", JSON)], MAX_RESPONSE_BYTES).await?;
    }
    let refuse = |problem: &str| Error::Service { place: address(&url), problem: problem.to_owned() };
    let answer: BTreeMap<String, LogEntryV1> = read(&url, &answer)?;
    let mut entries = answer.into_values();
    let (Some(entry), None) = (entries.next(), entries.next()) else {
        return Err(refuse("its response does not have exactly one entry"));
    };
    entry
        .into_entry()
        .ok_or_else(|| refuse("its response is malformed: a hash is not hexadecimal, or the body not of an entry"))
}

/// Returns the request for a v1 log: the hash of the message, or the envelope, which the log does not keep.
fn request_v1(signed: &SignedMessage<'_>, kind: KeyKind) -> Result<Value> {
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    let (label, der) = signed.by.block();
    let verifier = text(key::write(label, der).as_bytes());
    if signed.is_envelope() {
        let envelope = json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": text(signed.payload),
            "signatures": [{"sig": text(signed.signature)}],
        });
        let content = json!({"envelope": envelope.to_string(), "verifiers": [verifier]});
        return Ok(json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {"proposedContent": content}}));
    }
    let hash = hash(kind)?;
    let (name, value) = (format!("sha{}", hash.bits()), hex::encode(hash.digest(signed.message)));
    Ok(json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": {"algorithm": name, "value": value}},
        "signature": {"content": text(signed.signature), "publicKey": {"content": verifier}},
    }}))
}

/// Returns the hash that cosign uses with keys of a kind.
fn hash(kind: KeyKind) -> Result<Hash> {
    Hash::of_scheme(Scheme::of_cosign(kind)).ok_or_else(|| not_taken(kind))
}

/// Logs accept Ed25519ph only, which is another signature.
fn not_taken(kind: KeyKind) -> Error {
    Error::Unsupported(format!("logs take no signatures by keys of kind {kind}"))
}

fn request_v2(signed: &SignedMessage<'_>, kind: KeyKind) -> Result<Value> {
    let details = match kind {
        KeyKind::P256 => "PKIX_ECDSA_P256_SHA_256",
        KeyKind::P384 => "PKIX_ECDSA_P384_SHA_384",
        KeyKind::P521 => "PKIX_ECDSA_P521_SHA_512",
        KeyKind::Rsa { bits: 2048 } => "PKIX_RSA_PKCS1V15_2048_SHA256",
        KeyKind::Rsa { bits: 3072 } => "PKIX_RSA_PKCS1V15_3072_SHA256",
        KeyKind::Rsa { bits: 4096 } => "PKIX_RSA_PKCS1V15_4096_SHA256",
        KeyKind::Ed25519 | KeyKind::Rsa { .. } => return Err(not_taken(kind)),
    };
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    let (_, by) = signed.by.block();
    Ok(json!({"hashedRekordRequestV002": {
        "digest": text(&hash(kind)?.digest(signed.message)),
        "signature": {
            "content": text(signed.signature),
            "verifier": {"keyDetails": details, signed.by.field_v2(): {"rawBytes": text(by)}},
        },
    }}))
}

/// The response of a v1 log, below the UUID of the entry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntryV1 {
    body: Base64,
    integrated_time: Number,
    #[serde(rename = "logID")]
    log_id: String,
    log_index: Number,
    verification: VerificationV1,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationV1 {
    inclusion_proof: ProofV1,
    signed_entry_timestamp: Base64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProofV1 {
    checkpoint: String,
    hashes: Vec<String>,
    log_index: Number,
    root_hash: String,
    tree_size: Number,
}

impl LogEntryV1 {
    /// Converts the entry to the format of bundles. `None` if a hash is not hexadecimal, or the body is not an entry.
    fn into_entry(self) -> Option<LogEntry> {
        let bytes = |text: &String| hex::decode(text).ok().map(Base64);
        let KindVersionV1 { kind, api_version } = serde_json::from_slice(&self.body.0).ok()?;
        let VerificationV1 { inclusion_proof: proof, signed_entry_timestamp } = self.verification;
        Some(LogEntry {
            log_index: self.log_index,
            log_id: LogId { key_id: bytes(&self.log_id)? },
            kind_version: KindVersion { kind, version: api_version },
            integrated_time: self.integrated_time,
            inclusion_promise: Some(InclusionPromise { signed_entry_timestamp }),
            inclusion_proof: Some(InclusionProof {
                log_index: proof.log_index,
                root_hash: bytes(&proof.root_hash)?,
                tree_size: proof.tree_size,
                hashes: proof.hashes.iter().map(bytes).collect::<Option<_>>()?,
                checkpoint: CheckpointText { envelope: proof.checkpoint },
            }),
            canonicalized_body: self.body,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KindVersionV1 {
    kind: String,
    api_version: String,
}
