//! Verification material of new signatures: certificates, transparency log entries and timestamps.

use std::fmt;

use aws_lc_rs::rand;
use jiff::Timestamp;

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::http::{Http, times};
use crate::pki::Certificate;
use crate::redact::{RedactedList, address};
use crate::refusal::Refusal;
use crate::signer::Signer;
use crate::sigstore::config::LogUrl;
use crate::sigstore::entry::{SignedMessage, VerificationKey};
use crate::sigstore::identity::Pattern;
use crate::sigstore::root::TrustedRoot;
use crate::sigstore::services::MAX_RESPONSE_BYTES;
use crate::sigstore::submit;
use crate::sigstore::trust::{CertificateTrust, Evidence, LogCheck};
use crate::timestamp;

/// The verification material to add to signatures, and the services that provide it. It lets others verify a
/// signature without the key, or after its certificate has expired.
#[derive(Clone)]
#[non_exhaustive]
pub struct VerificationMaterial {
    /// The HTTP client for the services.
    pub http: Http,
    /// The signer's certificate and its intermediates; empty to sign with a key alone.
    pub certificates: Vec<Certificate>,
    /// The transparency logs; each signature gets an entry in each of them.
    pub logs: Vec<LogUrl>,
    /// The URLs of timestamp authorities; each signature gets a timestamp from each of them.
    pub timestamps: Vec<String>,
    /// The trusted root that verifies the services' responses before they are stored.
    pub root: Option<TrustedRoot>,
    /// The time at which certificates must be valid if no log or timestamp proves one.
    pub now: Timestamp,
}

ocikit_spec::setters! {
    VerificationMaterial {
        http: Http,
        certificates: Vec<Certificate>,
        logs: Vec<LogUrl>,
        timestamps: Vec<String>,
        root: Option<TrustedRoot>,
        now: Timestamp,
    }
}

impl fmt::Debug for VerificationMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationMaterial")
            .field("certificates", &self.certificates)
            .field("logs", &self.logs)
            .field("timestamps", &RedactedList(&self.timestamps))
            .finish_non_exhaustive()
    }
}

impl VerificationMaterial {
    /// Returns empty verification material: no certificates, no services.
    pub fn new(http: Http, now: Timestamp) -> VerificationMaterial {
        VerificationMaterial {
            http,
            certificates: Vec::new(),
            logs: Vec::new(),
            timestamps: Vec::new(),
            root: None,
            now,
        }
    }

    /// Returns the signer's certificate.
    pub(crate) fn leaf(&self) -> Option<&Certificate> {
        self.certificates.first()
    }

    /// Requests all timestamps and log entries for a signature. They are verified if there is a trusted root.
    pub(crate) async fn collect_evidence(&self, signed: &SignedMessage<'_>, signer: &dyn Signer) -> Result<Evidence> {
        let mut evidence = Evidence { needs_proofs: true, ..Evidence::default() };
        for url in &self.timestamps {
            evidence.timestamps.push(self.stamp(url, signed.signature).await?);
        }
        for log in &self.logs {
            evidence.entries.push(submit::submit(&self.http, log, signed, signer.public_key().kind()).await?);
        }
        self.check(signed, &evidence).map_err(Error::Refused)?;
        Ok(evidence)
    }

    /// Requests a timestamp. Returns the response of the authority.
    async fn stamp(&self, url: &str, signature: &[u8]) -> Result<Vec<u8>> {
        let refuse = |problem: String| Error::Service { place: address(url), problem };
        let mut nonce = [0; 8];
        rand::fill(&mut nonce).map_err(|_| Error::Signer("the system has no randomness".to_owned()))?;
        // DER integers are signed and minimal: without the highest bit, and not zero, the number has one encoding.
        let nonce = u64::from_be_bytes(nonce) >> 1 | 1;
        let request = timestamp::request(Hash::Sha256, signature, nonce, self.root.is_none());
        let request = request.map_err(|error| refuse(error.to_string()))?;
        let answer = self.http.post(url, "application/timestamp-query", &[], request, MAX_RESPONSE_BYTES).await?;
        if !(200..300).contains(&answer.status) {
            return Err(refuse(format!("it answers with status {}{}", answer.status, times(answer.attempts))));
        }
        let token = timestamp::token(&answer.body).map_err(|why| refuse(why.to_string()))?;
        if let Some(root) = &self.root {
            let stamp = root.stamped(token, signature).map_err(Error::Refused)?;
            if !timestamp::is_answer(&stamp, nonce) {
                return Err(refuse("its response is to another request".to_owned()));
            }
        }
        Ok(answer.body.into())
    }

    /// Verifies the evidence as a later verification does, before it is stored.
    fn check(&self, signed: &SignedMessage<'_>, evidence: &Evidence) -> Result<(), Refusal> {
        let Some(root) = &self.root else { return Ok(()) };
        let log = if self.logs.is_empty() { LogCheck::Skipped } else { LogCheck::Required };
        let VerificationKey::Certificate(leaf) = signed.by else {
            return evidence.entries.iter().try_for_each(|entry| entry.verify(signed, root, true).map(drop));
        };
        let any_signer = CertificateTrust::new(Pattern::Any, root.clone(), self.now);
        let any_signer = any_signer.log(log).certificate_log(LogCheck::Skipped);
        any_signer.check(leaf, signed, evidence).map(drop)
    }
}
