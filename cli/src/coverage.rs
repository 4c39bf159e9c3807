//! The output of verification: one check per digest, signer and format.

use ocikit::{Annotations, Digest, Location, Platform};
use ocikit_sign::{Check, Outcome, Refused, VerifyReport};
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::output::{Lines, is_zero};
use crate::quote::quoted;

/// The result of checking one digest for a signature of one signer.
#[derive(Serialize)]
pub(crate) struct CheckOutput {
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    signer: String,
    /// The format of the verified signature, or else all accepted formats.
    formats: Vec<&'static str>,
    /// `verified`, `skipped`, `missing`, or `not-understood` for an entry of unknown type.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Digest>,
    /// The signer: the digest of the public key, or the identity in the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// Failed checks that the verification level of the policy only logs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// The user metadata of the signature.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    metadata: Annotations,
    /// The predicate of the attestation.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicate: Option<ocikit_sign::Predicate>,
    /// Signatures that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<FailedSignature>,
    /// The number of further failed signatures.
    #[serde(rename = "moreRefused", skip_serializing_if = "is_zero")]
    more_refused: usize,
    /// The reason for `not-understood`.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct FailedSignature {
    signature: Digest,
    why: String,
}

impl CheckOutput {
    pub(crate) fn of(cell: &Check) -> CheckOutput {
        let check = CheckOutput {
            digest: cell.subject.digest,
            platform: cell.platform.clone(),
            signer: cell.signer.clone(),
            formats: cell.formats.iter().map(|format| format.as_str()).collect(),
            outcome: "skipped",
            signature: None,
            by: None,
            warnings: Vec::new(),
            metadata: Annotations::new(),
            predicate: None,
            refused: Vec::new(),
            more_refused: cell.more_refused,
            problem: None,
        };
        let refused = |found: &Refused| FailedSignature { signature: found.signature, why: found.why.to_string() };
        match &cell.outcome {
            Outcome::Skipped => check,
            Outcome::NotUnderstood(why) => {
                CheckOutput { outcome: "not-understood", problem: Some(why.clone()), ..check }
            }
            Outcome::Missing(found) => {
                CheckOutput { outcome: "missing", refused: found.iter().map(refused).collect(), ..check }
            }
            Outcome::Verified(proof) => CheckOutput {
                formats: vec![proof.format.as_str()],
                outcome: "verified",
                signature: Some(proof.signature),
                by: Some(proof.by.clone()),
                warnings: proof.warnings.iter().map(ToString::to_string).collect(),
                metadata: proof.metadata.clone(),
                predicate: proof.predicate.clone(),
                ..check
            },
        }
    }
}

/// Returns a line for each check, followed by lines for its warnings and failed signatures.
pub(crate) fn table(cells: &[CheckOutput]) -> Lines {
    let mut lines = Lines::default();
    for cell in cells {
        let platform = cell.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
        let by = cell.signature.map(|signature| format!(" by {signature}")).unwrap_or_default();
        let CheckOutput { digest, signer, outcome, .. } = cell;
        lines.push(format!("{digest} {platform} {signer} {} {outcome}{by}", cell.formats.join("|")));
        for warning in &cell.warnings {
            lines.push(format!("  warning: {warning}"));
        }
        for refused in &cell.refused {
            lines.push(format!("  {}: {}", refused.signature, refused.why));
        }
        if cell.more_refused > 0 {
            lines.push(format!("  and {} more failed signatures", cell.more_refused));
        }
        if let Some(problem) = &cell.problem {
            lines.push(format!("  {problem}"));
        }
    }
    lines
}

/// Returns the failure for an image that lacks required signatures.
pub(crate) fn not_verified(location: &Location, coverage: &VerifyReport) -> Failure {
    let missing = coverage.checks.iter().filter(|cell| cell.outcome.is_failure()).count();
    let all = coverage.checks.len();
    if all == 0 {
        let message = format!("{location} is not verified: it has no image");
        return Failure::new(Code::Unverified, message).hint("leave out --images-only to verify the index");
    }
    let message = format!("{location} is not verified: {missing} of {all} required signatures are missing");
    let not_understood = coverage.checks.iter().find_map(|cell| match &cell.outcome {
        Outcome::NotUnderstood(why) => Some((cell.subject.digest, why)),
        _ => None,
    });
    if let Some((digest, why)) = not_understood {
        let message = format!("{message}; {digest} has an unknown type: {}", why);
        return Failure::new(Code::Unverified, message);
    }
    Failure::new(Code::Unverified, message)
        .hint(format_args!("`ocikit referrers {}` lists the signatures", quoted(&location.to_string())))
}
