use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pki::Certificate;
use crate::refusal::{Refusal, malformed};
use crate::sigstore::entry::SignedMessage;
use crate::sigstore::identity::{CertificateIdentity, Pattern};
use crate::sigstore::json::Base64;
use crate::sigstore::log::LogEntry;
use crate::sigstore::root::{Log, TrustedRoot};
use crate::sigstore::sct;

/// Trust in signatures by an identity in a certificate, verified with trusted certificate authorities, logs and
/// timestamp authorities. No network is used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CertificateTrust {
    /// The name of the signer in reports.
    pub name: String,
    /// The identity that the certificate must have: a mail address, a URI or a user name.
    pub identity: Pattern,
    /// The OIDC issuer that the certificate must have. Optional, because certificates of private authorities may not
    /// have one.
    pub issuer: Option<Pattern>,
    /// The trusted root.
    pub root: TrustedRoot,
    /// Whether a transparency log entry is required.
    pub log: LogCheck,
    /// Whether a signed certificate timestamp (SCT) is required.
    pub certificate_log: LogCheck,
    /// The time at which certificates must be valid if no timestamp proves one. It is used only if no log entry is
    /// required.
    pub now: Timestamp,
}

ocikit_spec::setters! {
    CertificateTrust {
        name: String,
        identity: Pattern,
        issuer: Option<Pattern>,
        root: TrustedRoot,
        log: LogCheck,
        certificate_log: LogCheck,
        now: Timestamp,
    }
}

impl CertificateTrust {
    /// Returns the trust in an identity with any issuer, which is also its name in reports. A transparency log entry and an SCT
    /// are required.
    pub fn new(identity: Pattern, root: TrustedRoot, now: Timestamp) -> CertificateTrust {
        CertificateTrust {
            name: identity.to_string(),
            identity,
            issuer: None,
            root,
            log: LogCheck::Required,
            certificate_log: LogCheck::Required,
            now,
        }
    }
}

/// Whether a log is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCheck {
    /// An entry must be present and valid.
    Required,
    /// Entries are not checked.
    Skipped,
}

/// The evidence that a certificate-based signature comes with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) entries: Vec<LogEntry>,
    /// Responses of timestamp authorities, or the tokens in them.
    pub(crate) timestamps: Vec<Vec<u8>>,
    /// Whether entries need an inclusion proof. Cosign's older format has only the log's signature.
    pub(crate) needs_proofs: bool,
}

/// Timestamps in the JSON format of bundles.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TimestampsJson {
    #[serde(default)]
    pub(crate) rfc3161_timestamps: Vec<TimestampJson>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TimestampJson {
    pub(crate) signed_timestamp: Base64,
}

/// The maximum number of log entries, and of timestamps, per signature.
const MAX_EVIDENCE: usize = 16;

impl CertificateTrust {
    /// Checks the identity and the evidence of a signature that was already verified with the certificate's key. All
    /// evidence must be valid, not just one of each kind; log entries are ignored if none is required.
    pub(crate) fn check(
        &self,
        leaf: &Certificate,
        signed: &SignedMessage<'_>,
        evidence: &Evidence,
    ) -> Result<CertificateIdentity, Refusal> {
        if evidence.entries.len().max(evidence.timestamps.len()) > MAX_EVIDENCE {
            return Err(malformed(format!("it has more than {MAX_EVIDENCE} log entries or timestamps")));
        }
        let named = CertificateIdentity::of(leaf)?;
        let is_identity = named.subjects.iter().any(|subject| self.identity.matches(subject));
        let is_issuer = self.issuer.as_ref().is_none_or(|wanted| {
            // A missing issuer matches no pattern.
            named.issuer.as_deref().is_some_and(|issuer| wanted.matches(issuer))
        });
        if !is_identity || !is_issuer {
            return Err(Refusal::OtherIdentity(named.to_string()));
        }
        let mut times = Vec::new();
        for stamp in &evidence.timestamps {
            times.push(self.root.stamped(stamp, signed.signature)?.time);
        }
        let logs = self.logged(signed, evidence, &mut times)?;
        if times.is_empty() && self.log == LogCheck::Skipped {
            times.push(self.now);
        }
        if times.is_empty() {
            return Err(Refusal::Timestamp("the signing time is unknown".to_owned()));
        }
        for time in times {
            if logs.iter().any(|log| !log.valid.holds(time)) {
                return Err(Refusal::Log(format!("the log was not trusted at {time}")));
            }
            let issuer = self.root.issuer(leaf, time)?;
            if self.certificate_log == LogCheck::Required {
                sct::verify(leaf, issuer, &self.root.certificate_logs)?;
            }
        }
        Ok(named)
    }

    /// Verifies the log entries and returns their logs. The times of entries are added to `times`.
    fn logged<'a>(
        &'a self,
        signed: &SignedMessage<'_>,
        evidence: &Evidence,
        times: &mut Vec<Timestamp>,
    ) -> Result<Vec<&'a Log>, Refusal> {
        let mut logs = Vec::new();
        if self.log == LogCheck::Skipped {
            return Ok(logs);
        }
        if evidence.entries.is_empty() {
            return Err(Refusal::Log("there is none".to_owned()));
        }
        for entry in &evidence.entries {
            let (time, log) = entry.verify(signed, &self.root, evidence.needs_proofs)?;
            times.extend(time);
            logs.push(log);
        }
        Ok(logs)
    }
}
