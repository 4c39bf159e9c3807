use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pki::Certificate;
use crate::refusal::Refusal;
use crate::sigstore::entry::Signed;
use crate::sigstore::identity::{Named, Pattern};
use crate::sigstore::json::Base64;
use crate::sigstore::log::Entry;
use crate::sigstore::root::{Log, TrustedRoot};
use crate::sigstore::sct;

/// Whose signature counts where there is no key that is known: whom a certificate names, by authorities, logs and clocks
/// that are trusted. Nothing is asked over a network.
#[derive(Debug, Clone)]
pub struct CertificateTrust {
    /// What to call them.
    pub name: String,
    /// A mail address, a URI or the name of a user, which the certificate has to name.
    pub identity: Pattern,
    /// Who has to have checked that: the issuer of their token, as authorities of sigstore's kind write it down. Authorities
    /// of one's own may not.
    pub issuer: Option<Pattern>,
    /// Who is trusted to say so.
    pub root: TrustedRoot,
    /// Whether the signature has to be in a transparency log.
    pub log: Check,
    /// Whether the certificate has to be in a log of certificates.
    pub certificate_log: Check,
    /// The time at which certificates have to be valid if nobody says when they were used, which is taken only if no
    /// transparency log is asked for.
    pub now: Timestamp,
}

/// Whether something is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It has to be there and right.
    Required,
    /// It is not looked at.
    Skipped,
}

/// What stands beside a signature that was made with a certificate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) entries: Vec<Entry>,
    /// Answers of authorities, or the tokens in them.
    pub(crate) timestamps: Vec<Vec<u8>>,
    /// Whether entries need a proof that the log has them; of old only its signature was stored.
    pub(crate) needs_proofs: bool,
}

/// Timestamps as bundles have them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Timestamps {
    #[serde(default)]
    pub(crate) rfc3161_timestamps: Vec<TimestampForm>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TimestampForm {
    pub(crate) signed_timestamp: Base64,
}

/// No signature has more entries or timestamps.
const MOST: usize = 16;

impl CertificateTrust {
    /// Checks who made a signature, which was checked with the key of the certificate before. Everything that stands beside it
    /// has to be right, not one of each; an entry is not looked at if none is asked for.
    pub(crate) fn check(&self, leaf: &Certificate, signed: &Signed<'_>, evidence: &Evidence) -> Result<Named, Refusal> {
        if evidence.entries.len().max(evidence.timestamps.len()) > MOST {
            return Err(Refusal::Malformed("it has more entries or timestamps than anybody needs".to_owned()));
        }
        let named = Named::of(leaf).map_err(Refusal::Certificates)?;
        let is_identity = named.subjects.iter().any(|subject| self.identity.matches(subject));
        let is_issuer = self.issuer.as_ref().is_none_or(|wanted| {
            // Of somebody who is known by nobody's word no pattern is true.
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
        if times.is_empty() && self.log == Check::Skipped {
            times.push(self.now);
        }
        if times.is_empty() {
            return Err(Refusal::Timestamp("nobody says when it was signed".to_owned()));
        }
        for time in times {
            if logs.iter().any(|log| !log.valid.holds(time)) {
                return Err(Refusal::Log(format!("the log was not trusted at {time}")));
            }
            let issuer = self.root.issuer(leaf, time)?;
            if self.certificate_log == Check::Required {
                sct::verify(leaf, issuer, &self.root.certificate_logs).map_err(Refusal::Certificates)?;
            }
        }
        Ok(named)
    }

    /// The logs that have the signature. Their times come to those that are there.
    fn logged<'a>(
        &'a self,
        signed: &Signed<'_>,
        evidence: &Evidence,
        times: &mut Vec<Timestamp>,
    ) -> Result<Vec<&'a Log>, Refusal> {
        let mut logs = Vec::new();
        if self.log == Check::Skipped {
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
