use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::key::PublicKey;
use crate::notation::Certificate;
use crate::refusal::Refusal;
use crate::sigstore::json::{Base64, Validity};
use crate::timestamp::{self, Authorities, Stamp};

/// Who is trusted to say who signed, when, and that everybody can see it: a trusted root of sigstore.
#[derive(Debug, Clone, Default)]
pub struct TrustedRoot {
    pub(crate) authorities: Vec<Authority>,
    pub(crate) timestamp_authorities: Vec<Authority>,
    pub(crate) logs: Vec<Log>,
    pub(crate) certificate_logs: Vec<Log>,
}

/// Who issues certificates.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// Each issued by the next; the last is trusted as it is.
    pub(crate) chain: Vec<Certificate>,
    pub(crate) valid: Validity,
}

/// A log that everybody can read.
#[derive(Clone)]
pub(crate) struct Log {
    /// The host of its address, which it calls itself in checkpoints.
    pub(crate) host: String,
    pub(crate) key: PublicKey,
    /// What entries name it by.
    pub(crate) id: Vec<u8>,
    /// What checkpoints name its key by.
    pub(crate) hint: Vec<u8>,
    pub(crate) valid: Validity,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({} {:?})", self.host, self.key)
    }
}

impl TrustedRoot {
    /// Reads a `trusted_root.json`, as sigstore publishes it and `cosign trusted-root create` writes it.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if it is of another type or version, says something that is not known here, or has keys or
    /// certificates that are not used. A log whose key is not used is as if it were not there.
    pub fn parse(json: &[u8]) -> Result<TrustedRoot> {
        let refuse = |problem: String| Error::Policy { what: "the trusted root".to_owned(), problem };
        if json.len() > LONGEST {
            return Err(refuse(format!("it has more than {LONGEST} bytes")));
        }
        let form: Form = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        if !MEDIA_TYPES.contains(&form.media_type.as_str()) {
            return Err(refuse(format!("it is of type {}", form.media_type)));
        }
        let authorities = |found: Vec<AuthorityForm>| found.into_iter().map(Authority::of).collect::<Result<_, _>>();
        let logs = |found: Vec<LogForm>| -> Result<Vec<Log>, String> {
            Ok(found.into_iter().map(Log::of).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        Ok(TrustedRoot {
            authorities: authorities(form.certificate_authorities).map_err(refuse)?,
            timestamp_authorities: authorities(form.timestamp_authorities).map_err(refuse)?,
            logs: logs(form.tlogs).map_err(refuse)?,
            certificate_logs: logs(form.ctlogs).map_err(refuse)?,
        })
    }

    /// A root of authorities that are not in such a file: for each a chain of certificates, every one issued by the next, the
    /// last one trusted as it is. There are no logs in it.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if a chain is empty, or not one.
    pub fn of_authorities(issuers: Vec<Vec<Certificate>>, timestamps: Vec<Vec<Certificate>>) -> Result<TrustedRoot> {
        let authorities = |chains: Vec<Vec<Certificate>>| {
            let authority = |chain| Authority::new(chain, Validity::default()).map_err(Error::Certificates);
            chains.into_iter().map(authority).collect::<Result<_>>()
        };
        Ok(TrustedRoot {
            authorities: authorities(issuers)?,
            timestamp_authorities: authorities(timestamps)?,
            ..TrustedRoot::default()
        })
    }

    /// The log that entries name so.
    pub(crate) fn log(&self, id: &[u8]) -> Option<&Log> {
        self.logs.iter().find(|log| log.id == id)
    }

    /// What somebody who is trusted says of the time of a signature.
    pub(crate) fn stamped(&self, stamp: &[u8], signature: &[u8]) -> Result<Stamp, Refusal> {
        // Bundles hold whole answers, others the token in them.
        let token = timestamp::token(stamp).unwrap_or(stamp);
        let mut why = Refusal::Timestamp("no authority for timestamps is trusted".to_owned());
        for authority in &self.timestamp_authorities {
            let Some((last, others)) = authority.chain.split_last() else { continue };
            let authorities = Authorities { roots: std::slice::from_ref(last), others };
            match timestamp::verify(token, signature, authorities) {
                Ok(stamp) if authority.is_valid_at(stamp.time) => return Ok(stamp),
                Ok(stamp) => why = Refusal::Timestamp(format!("its authority is not trusted for {}", stamp.time)),
                Err(problem) => why = problem,
            }
        }
        Err(why)
    }
}

impl Authority {
    fn new(chain: Vec<Certificate>, valid: Validity) -> Result<Authority, String> {
        if chain.is_empty() || chain.len() > MOST_CERTIFICATES {
            return Err(format!("an authority has {} certificates", chain.len()));
        }
        for pair in chain.windows(2) {
            if let [child, parent] = pair {
                child.is_issued_by(parent)?;
            }
        }
        Ok(Authority { chain, valid })
    }

    fn of(form: AuthorityForm) -> Result<Authority, String> {
        let certificates = form.cert_chain.certificates.iter();
        let chain = certificates.map(|certificate| Certificate::from_der(&certificate.raw_bytes.0));
        let chain = chain.collect::<Result<Vec<_>>>().map_err(|error| error.to_string())?;
        Authority::new(chain, form.valid_for)
    }

    /// Whether it may be used at a time, by what the root says of it.
    pub(crate) fn is_valid_at(&self, time: Timestamp) -> bool {
        self.valid.holds(time)
    }
}

impl Log {
    /// `None` if its key is of a kind that is not used: others may be.
    fn of(form: LogForm) -> Result<Option<Log>, String> {
        let Some(algorithm) = form.hash_algorithm.as_deref().filter(|algorithm| *algorithm != "SHA2_256") else {
            let id = form.log_id.key_id.0;
            if id.len() != 32 {
                return Err("the ID of a log has not 32 bytes".to_owned());
            }
            let hint = match form.checkpoint_key_id {
                Some(hint) => hint.key_id.0,
                None => id.clone(),
            };
            let host = form.base_url.split_once("://").map_or(form.base_url.as_str(), |(_, rest)| rest);
            let host = host.split('/').next().unwrap_or_default();
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned();
            if hint.len() < 4 || host.is_empty() {
                return Err("a log has no address, or a key without a name".to_owned());
            }
            let valid = form.public_key.valid_for;
            let key = PublicKey::from_der(&form.public_key.raw_bytes.0).ok();
            return Ok(key.map(|key| Log { host, key, id, hint, valid }));
        };
        Err(format!("a log hashes by {algorithm}"))
    }
}

/// The root of sigstore's public services has 7 KiB.
const LONGEST: usize = 4 << 20;
const MOST_CERTIFICATES: usize = 16;
const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
];

/// What such a file may say. What is not here could forbid something.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Form {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<LogForm>,
    #[serde(default)]
    certificate_authorities: Vec<AuthorityForm>,
    #[serde(default)]
    ctlogs: Vec<LogForm>,
    #[serde(default)]
    timestamp_authorities: Vec<AuthorityForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogForm {
    #[serde(default)]
    base_url: String,
    hash_algorithm: Option<String>,
    public_key: KeyForm,
    log_id: IdForm,
    checkpoint_key_id: Option<IdForm>,
    #[serde(rename = "operator")]
    _operator: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyForm {
    raw_bytes: Base64,
    /// The key says itself of what kind it is.
    #[serde(rename = "keyDetails")]
    _details: Option<Value>,
    #[serde(default)]
    valid_for: Validity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdForm {
    key_id: Base64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuthorityForm {
    #[serde(rename = "subject")]
    _subject: Option<Value>,
    #[serde(rename = "uri")]
    _uri: Option<Value>,
    #[serde(rename = "operator")]
    _operator: Option<Value>,
    cert_chain: ChainForm,
    #[serde(default)]
    valid_for: Validity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainForm {
    certificates: Vec<CertificateForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CertificateForm {
    raw_bytes: Base64,
}
