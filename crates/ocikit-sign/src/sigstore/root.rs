use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, PolicyFile, Result};
use crate::key::{KeyKind, PublicKey};
use crate::pki::path::{self, Purpose};
use crate::pki::{Certificate, Rule};
use crate::refusal::Refusal;
use crate::sigstore::json::{Base64, CertificateJson, LogId, Validity};
use crate::timestamp::{self, Authorities, VerifiedTimestamp};

/// A sigstore trusted root: the trusted certificate authorities, transparency logs, certificate logs and timestamp
/// authorities.
#[derive(Debug, Clone, Default)]
pub struct TrustedRoot {
    pub(crate) authorities: Vec<Authority>,
    pub(crate) timestamp_authorities: Vec<Authority>,
    pub(crate) logs: Vec<Log>,
    pub(crate) certificate_logs: Vec<Log>,
}

/// A certificate authority or timestamp authority.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// The chain, each certificate issued by the next; the last one is the trust anchor.
    pub(crate) chain: Vec<Certificate>,
    pub(crate) valid: Validity,
}

/// A transparency log.
#[derive(Clone)]
pub(crate) struct Log {
    /// The host of its URL, which is its name in checkpoints.
    pub(crate) host: String,
    pub(crate) key: PublicKey,
    /// The log ID in entries.
    pub(crate) id: Vec<u8>,
    /// The key ID in checkpoints.
    pub(crate) hint: Vec<u8>,
    pub(crate) valid: Validity,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({} {:?})", self.host, self.key)
    }
}

impl TrustedRoot {
    /// Parses a `trusted_root.json`, as published by sigstore and written by `cosign trusted-root create`.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if it has another media type or version, an unknown field, a malformed certificate, a log or
    /// authority without a start of validity, or a key that does not match its `keyDetails`. A log with unsupported
    /// `keyDetails` is skipped.
    pub fn parse(json: &[u8]) -> Result<TrustedRoot> {
        if json.len() > MAX_TRUSTED_ROOT_BYTES {
            return Err(refuse(format!("it has more than {MAX_TRUSTED_ROOT_BYTES} bytes")));
        }
        let json: TrustedRootJson = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        if !MEDIA_TYPES.contains(&json.media_type.as_str()) {
            return Err(refuse(format!("it is of type {}", json.media_type)));
        }
        let authorities = |found: Vec<AuthorityJson>, what: &str| {
            found.into_iter().map(|authority| Authority::of(authority, what)).collect::<Result<_>>()
        };
        let logs = |found: Vec<LogJson>, what: &str| -> Result<Vec<Log>> {
            found.into_iter().filter_map(|log| Log::of(log, what).transpose()).collect()
        };
        Ok(TrustedRoot {
            authorities: authorities(json.certificate_authorities, "certificate authority")?,
            timestamp_authorities: authorities(json.timestamp_authorities, "timestamp authority")?,
            logs: logs(json.tlogs, "transparency log")?,
            certificate_logs: logs(json.ctlogs, "certificate transparency log")?,
        })
    }

    /// Creates a root from certificate chains. In each chain every certificate is issued by the next, and the last
    /// one is the trust anchor. The root has no logs.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if a chain is empty or broken.
    pub fn of_authorities(issuers: Vec<Vec<Certificate>>, timestamps: Vec<Vec<Certificate>>) -> Result<TrustedRoot> {
        let authorities = |chains: Vec<Vec<Certificate>>| {
            let authority = |chain| Authority::new(chain, Validity::default());
            chains.into_iter().map(authority).collect::<Result<_>>()
        };
        Ok(TrustedRoot {
            authorities: authorities(issuers)?,
            timestamp_authorities: authorities(timestamps)?,
            ..TrustedRoot::default()
        })
    }

    /// Returns the log with this ID.
    pub(crate) fn log(&self, id: &[u8]) -> Option<&Log> {
        self.logs.iter().find(|log| log.id == id)
    }

    /// Finds the certificate authority that issued a leaf certificate valid at this time. Returns the issuing
    /// certificate.
    pub(crate) fn issuer<'a>(&'a self, leaf: &'a Certificate, time: Timestamp) -> Result<&'a Certificate, Refusal> {
        let mut why = Refusal::from(leaf.violates(Rule::NoPath));
        for authority in &self.authorities {
            let Some((trusted, intermediates)) = authority.chain.split_last() else { continue };
            let intermediates: Vec<_> = intermediates.iter().collect();
            match path::find(leaf, std::slice::from_ref(trusted), &intermediates, Purpose::CodeSigning, time) {
                Ok(_) if !authority.valid.holds(time) => {
                    why = Refusal::Certificates(format!(
                        "{}: it is not valid at {time} in the trusted root",
                        trusted.subject()
                    ));
                }
                Ok(path) => return path.get(1).copied().ok_or(why),
                // An authority that did not issue the certificate gives no reason.
                Err(violation) if violation.rule == Rule::NoPath => {}
                Err(violation) => why = violation.into(),
            }
        }
        Err(why)
    }

    /// Verifies a timestamp of a signature by a trusted timestamp authority.
    pub(crate) fn stamped(&self, stamp: &[u8], signature: &[u8]) -> Result<VerifiedTimestamp, Refusal> {
        // Bundles hold the whole response of the authority, other formats only its token.
        let token = timestamp::token(stamp).unwrap_or(stamp);
        let mut why = Refusal::Timestamp("no timestamp authority is trusted".to_owned());
        for authority in &self.timestamp_authorities {
            let Some((last, others)) = authority.chain.split_last() else { continue };
            let authorities = Authorities { roots: std::slice::from_ref(last), others };
            match timestamp::verify(token, signature, authorities) {
                Ok(stamp) if authority.valid.holds(stamp.time) => return Ok(stamp),
                Ok(stamp) => why = Refusal::Timestamp(format!("its authority is not trusted for {}", stamp.time)),
                Err(problem) => why = problem,
            }
        }
        Err(why)
    }
}

impl Authority {
    fn new(chain: Vec<Certificate>, valid: Validity) -> Result<Authority> {
        if chain.is_empty() || chain.len() > MAX_CERTIFICATES {
            return Err(Error::Certificates(format!("an authority has {} certificates", chain.len())));
        }
        for pair in chain.windows(2) {
            if let [child, parent] = pair {
                let issued = child.check_issued_by(parent);
                issued.map_err(|violation| Error::Certificates(violation.to_string()))?;
            }
        }
        Ok(Authority { chain, valid })
    }

    fn of(json: AuthorityJson, what: &str) -> Result<Authority> {
        let valid = checked(json.valid_for, what)?;
        let certificates = json.cert_chain.certificates.iter();
        let chain = certificates.map(|certificate| Certificate::from_der(&certificate.raw_bytes.0));
        let chain = chain.collect::<Result<Vec<_>>>().and_then(|chain| Authority::new(chain, valid));
        chain.map_err(|error| refuse(error.to_string()))
    }
}

impl Log {
    /// Returns `None` if the type of its key is not supported: the signature may be in another log.
    fn of(json: LogJson, what: &str) -> Result<Option<Log>> {
        if let Some(algorithm) = json.hash_algorithm.as_deref().filter(|algorithm| *algorithm != "SHA2_256") {
            return Err(refuse(format!("a {what} hashes with {algorithm}")));
        }
        let id = json.log_id.key_id.0;
        if id.len() != 32 {
            return Err(refuse(format!("the ID of a {what} has not 32 bytes")));
        }
        let hint = match json.checkpoint_key_id {
            Some(hint) => hint.key_id.0,
            None => id.clone(),
        };
        let host = json.base_url.split_once("://").map_or(json.base_url.as_str(), |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned();
        if hint.len() < 4 || host.is_empty() {
            return Err(refuse(format!("a {what} has no address, or a key ID of less than 4 bytes")));
        }
        let valid = checked(json.public_key.valid_for, what)?;
        let key = key(&json.public_key, what)?;
        Ok(key.map(|key| Log { host, key, id, hint, valid }))
    }
}

/// Checks that a validity has a start. Without one the entry would be valid for all past times, but it may have
/// replaced a compromised one; sigstore clients refuse it (sigstore-conformance,
/// `trust-root-tlog-missing-validity-start`).
fn checked(validity: Validity, what: &str) -> Result<Validity> {
    match validity.start() {
        Some(_) => Ok(validity),
        None => Err(refuse(format!("a {what} has no validFor.start"))),
    }
}

/// Returns a key of the type in its details; `None` if the type is not supported.
fn key(json: &KeyJson, what: &str) -> Result<Option<PublicKey>> {
    let details = json.key_details.as_str();
    let is_of: fn(KeyKind) -> bool = match details {
        "PKIX_ECDSA_P256_SHA_256" => |kind| kind == KeyKind::P256,
        "PKIX_ECDSA_P384_SHA_384" | "PKIX_ECDSA_P384_SHA_256" => |kind| kind == KeyKind::P384,
        "PKIX_ECDSA_P521_SHA_512" | "PKIX_ECDSA_P521_SHA_256" => |kind| kind == KeyKind::P521,
        "PKIX_ED25519" => |kind| kind == KeyKind::Ed25519,
        "PKIX_RSA_PKCS1V5" => |kind| matches!(kind, KeyKind::Rsa { .. }),
        "PKIX_RSA_PKCS1V15_2048_SHA256" => |kind| kind == KeyKind::Rsa { bits: 2048 },
        "PKIX_RSA_PKCS1V15_3072_SHA256" => |kind| kind == KeyKind::Rsa { bits: 3072 },
        "PKIX_RSA_PKCS1V15_4096_SHA256" => |kind| kind == KeyKind::Rsa { bits: 4096 },
        "" | "PUBLIC_KEY_DETAILS_UNSPECIFIED" => return Err(refuse(format!("a {what} has a key without keyDetails"))),
        // RSA-PSS, Ed25519ph, the deprecated PKCS #1 types, post-quantum algorithms and future types.
        _ => return Ok(None),
    };
    match PublicKey::from_der(&json.raw_bytes.0) {
        Ok(key) if is_of(key.kind()) => Ok(Some(key)),
        Ok(key) => Err(refuse(format!("a {what} has a key of type {}, and its keyDetails are {details}", key.kind()))),
        Err(error) => Err(refuse(format!("a {what} has a key that is not of type {details}: {error}"))),
    }
}

fn refuse(problem: String) -> Error {
    Error::policy(PolicyFile::TrustedRoot, problem)
}

/// The maximum size of a trusted root, in bytes. That of sigstore's public instance has 7 KiB.
const MAX_TRUSTED_ROOT_BYTES: usize = 4 << 20;
const MAX_CERTIFICATES: usize = 16;
const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
];

/// The file. Unknown fields are refused, because they could contain restrictions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrustedRootJson {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<LogJson>,
    #[serde(default)]
    certificate_authorities: Vec<AuthorityJson>,
    #[serde(default)]
    ctlogs: Vec<LogJson>,
    #[serde(default)]
    timestamp_authorities: Vec<AuthorityJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogJson {
    #[serde(default)]
    base_url: String,
    hash_algorithm: Option<String>,
    public_key: KeyJson,
    log_id: LogId,
    checkpoint_key_id: Option<LogId>,
    #[serde(rename = "operator")]
    _operator: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyJson {
    raw_bytes: Base64,
    #[serde(default)]
    key_details: String,
    #[serde(default)]
    valid_for: Validity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuthorityJson {
    #[serde(rename = "subject")]
    _subject: Option<Value>,
    #[serde(rename = "uri")]
    _uri: Option<Value>,
    #[serde(rename = "operator")]
    _operator: Option<Value>,
    cert_chain: ChainJson,
    #[serde(default)]
    valid_for: Validity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainJson {
    certificates: Vec<CertificateJson>,
}
