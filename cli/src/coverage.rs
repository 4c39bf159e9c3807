//! What is told of signatures that were looked for.

use ocikit::{Annotations, Digest, Platform};
use ocikit_sign::{Check, Outcome, Refused};
use serde::Serialize;

use crate::output::Lines;

/// What was found of one signer's signature of one digest.
#[derive(Serialize)]
pub(crate) struct CellFacts {
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    signer: String,
    /// The format of the signature that was found, or those of which one would have done.
    formats: Vec<&'static str>,
    /// `verified`, `skipped`, `missing`, or `not-understood` of an entry that is nothing known.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Digest>,
    /// Who made it: the digest of the public key, or whom the certificate names.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// What is wrong and by the policy does not matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// What the signer signed along.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    metadata: Annotations,
    /// What was attested.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicate: Option<ocikit_sign::Predicate>,
    /// What was found and does not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedFacts>,
    /// How many more of those there are.
    #[serde(rename = "moreRefused", skip_serializing_if = "is_zero")]
    more_refused: usize,
    /// Why the digest itself is not understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct RefusedFacts {
    signature: Digest,
    why: String,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl CellFacts {
    pub(crate) fn of(cell: &Check) -> CellFacts {
        let facts = CellFacts {
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
        let refused = |found: &Refused| RefusedFacts { signature: found.signature, why: found.why.to_string() };
        match &cell.outcome {
            Outcome::Skipped => facts,
            Outcome::NotUnderstood(why) => CellFacts { outcome: "not-understood", problem: Some(why.clone()), ..facts },
            Outcome::Missing(found) => {
                CellFacts { outcome: "missing", refused: found.iter().map(refused).collect(), ..facts }
            }
            Outcome::Verified(proof) => CellFacts {
                formats: vec![proof.format.as_str()],
                outcome: "verified",
                signature: Some(proof.signature),
                by: Some(proof.by.clone()),
                warnings: proof.warnings.iter().map(ToString::to_string).collect(),
                metadata: proof.metadata.clone(),
                predicate: proof.predicate.clone(),
                ..facts
            },
        }
    }
}

/// A line for each cell, and below it what is wrong with what was found.
pub(crate) fn table(cells: &[CellFacts]) -> Lines {
    let mut lines = Lines::default();
    for cell in cells {
        let platform = cell.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
        let by = cell.signature.map(|signature| format!(" by {signature}")).unwrap_or_default();
        let CellFacts { digest, signer, outcome, .. } = cell;
        lines.push(format!("{digest} {platform} {signer} {} {outcome}{by}", cell.formats.join("|")));
        for warning in &cell.warnings {
            lines.push(format!("  warning: {warning}"));
        }
        for refused in &cell.refused {
            lines.push(format!("  {}: {}", refused.signature, refused.why));
        }
        if cell.more_refused > 0 {
            lines.push(format!("  and {} more that failed", cell.more_refused));
        }
        if let Some(problem) = &cell.problem {
            lines.push(format!("  {problem}"));
        }
    }
    lines
}
