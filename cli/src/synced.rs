//! What `sync` did with an image, and the policy that it applies.

use async_trait::async_trait;
use ocikit::sync::{Done, Item};
use ocikit::{Digest, Error, Location, Put, Reference, Referrers, Root};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output;
use crate::policy::Gate;

#[derive(Serialize)]
pub(crate) struct SyncedImage<'a> {
    from: &'a str,
    pub(crate) to: &'a str,
    /// `same`, `copied`, `planned`, `refused` by the policy, or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    bytes: u64,
    /// Tags of referrers that the target keeps unchanged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The reason why an image was not mirrored.
pub(crate) enum SyncFailure {
    /// The image does not pass the policy.
    Refused(Failure),
    Failed(Failure),
}

impl From<Error> for SyncFailure {
    fn from(error: Error) -> SyncFailure {
        SyncFailure::Failed(error.into())
    }
}

/// A policy that prints the referrers that it skips.
pub(crate) struct ReportingGate<'a> {
    pub(crate) gate: Gate,
    pub(crate) context: &'a Context,
}

#[async_trait]
impl ocikit::sync::Gate<SyncFailure> for ReportingGate<'_> {
    async fn check(&self, from: &Reference, root: &Root, which: &Referrers) -> Result<Referrers, SyncFailure> {
        let from = Location::Registry(from.clone());
        let checked = self.gate.check(&from, root).await;
        checked.map_err(|failure| match failure.code {
            Code::Unverified => SyncFailure::Refused(failure),
            _ => SyncFailure::Failed(failure),
        })?;
        self.gate.referrers(self.context, &from, root, which.clone()).await.map_err(SyncFailure::Failed)
    }
}

/// Returns the result for an image, and the failure if there is one.
pub(crate) fn result(item: &Item, outcome: Result<Done, SyncFailure>) -> (SyncedImage<'_>, Option<Failure>) {
    let (from, to) = (&*item.from, &*item.to);
    let mut result = SyncedImage { from, to, outcome: "same", digest: None, bytes: 0, kept: Vec::new(), error: None };
    match outcome {
        Ok(Done::Same(digest)) => result.digest = Some(digest),
        Ok(Done::Copied(copied)) => {
            result.digest = Some(copied.root.digest);
            result.kept = copied.kept.iter().map(|kept| kept.tag.to_string()).collect();
            (result.outcome, result.bytes) = ("copied", copied.count(Put::Copied).1);
        }
        Ok(Done::Planned(digest, bytes)) => {
            result.digest = Some(digest);
            (result.outcome, result.bytes) = ("planned", bytes);
        }
        Err(error) => {
            let (outcome, failure) = match error {
                SyncFailure::Refused(failure) => ("refused", failure),
                SyncFailure::Failed(failure) => ("failed", failure),
            };
            (result.outcome, result.error) = (outcome, Some(failure.message.clone()));
            return (result, Some(failure));
        }
    }
    (result, None)
}

/// Returns a result in words.
pub(crate) fn words(result: &SyncedImage<'_>) -> String {
    let SyncedImage { from, to, outcome, bytes, error, .. } = result;
    match (error, *outcome) {
        (Some(error), _) => format!("{outcome} {from} -> {to}: {error}"),
        (None, "same") => format!("{outcome} {from} -> {to}"),
        (None, _) => format!("{outcome} {from} -> {to} ({})", output::bytes(*bytes)),
    }
}
