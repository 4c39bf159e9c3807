//! The output of copies.

use std::fmt::Display;

use ocikit::image::KeptTag;
use ocikit::{Copied, Descriptor, Digest, Location, Planned, Put};
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::file::writes_to_stdout;
use crate::output::{self, Lines, counted};

/// The result of a copy to one target.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetOutput {
    target: String,
    pub(crate) digest: Digest,
    sent: BlobCount,
    mounted: BlobCount,
    present: BlobCount,
    /// The copied referrers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    referrers: Vec<Digest>,
    /// Tags of referrers that the target keeps unchanged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<KeptTagOutput>,
    /// Whether this is the plan of a dry run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// Whether it is a docker archive with zstd layers.
    #[serde(skip)]
    has_zstd_for_docker: bool,
}

/// A tag that was not copied, because that would remove a referrer from the target.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeptTagOutput {
    tag: String,
    digest: Digest,
    not_copied: Digest,
}

impl From<&KeptTag> for KeptTagOutput {
    fn from(kept: &KeptTag) -> KeptTagOutput {
        KeptTagOutput { tag: kept.tag.to_string(), digest: kept.there, not_copied: kept.not_copied }
    }
}

#[derive(Default, Serialize)]
struct BlobCount {
    blobs: usize,
    bytes: u64,
}

/// Combines the failures of several items: the failure itself if there was only one item, and else a summary, with the exit
/// code for partial success if the items differ.
pub(crate) fn partial(mut failures: Vec<(impl Display, Failure)>, succeeded: usize, what: &str) -> Result {
    if failures.len() == 1 && succeeded == 0 {
        return Err(failures.remove(0).1);
    }
    let codes: Vec<_> = failures.iter().map(|(_, failure)| failure.code).collect();
    let Some(first) = codes.first() else { return Ok(()) };
    let same = codes.iter().all(|code| code == first);
    let code = if succeeded == 0 && same { *first } else { Code::Partial };
    let message = format!("{} of {} {what} failed", failures.len(), failures.len() + succeeded);
    Err(Failure::of_items(code, message, failures))
}

/// Prints the results on standard error. It is the only output of a copy whose archive goes to standard output.
pub(crate) fn say(context: &Context, results: &[TargetOutput]) {
    for result in results {
        context.output.say(result.words());
        for KeptTagOutput { tag, digest, not_copied } in &result.kept {
            context
                .output
                .say(format!("warning: {} keeps {tag} at {digest}; {not_copied} was not copied", result.target));
        }
    }
    warn_of_zstd(context, results);
}

/// Returns whether a location is a docker archive and gets zstd layers.
pub(crate) fn has_zstd_for_docker<'a>(target: &Location, mut blobs: impl Iterator<Item = &'a Descriptor>) -> bool {
    let is_zstd = |blob: &Descriptor| blob.media_type.is_layer() && blob.media_type.as_str().ends_with("zstd");
    target.is_docker_archive() && blobs.any(is_zstd)
}

/// Warns once of archives that old versions of docker refuse.
pub(crate) fn warn_of_zstd(context: &Context, results: &[TargetOutput]) {
    if let Some(result) = results.iter().find(|result| result.has_zstd_for_docker) {
        say_zstd(context, &result.target);
    }
}

/// Says that old versions of docker refuse an archive.
pub(crate) fn say_zstd(context: &Context, target: impl Display) {
    context.output.say(format!(
        "warning: {target} has zstd layers, which docker before version 23 cannot load; \
         `ocikit build --compression gzip` and `ocikit recompress --compression gzip` make others"
    ));
}

/// Prints the results of copies to these targets: on standard error only, if one of them is standard output.
pub(crate) fn report_beside(context: &Context, targets: &[Location], results: Vec<TargetOutput>) -> Result {
    if targets.iter().any(writes_to_stdout) {
        say(context, &results);
        return Ok(());
    }
    report(context, results)
}

/// Prints the results of the targets that succeeded.
pub(crate) fn report(context: &Context, results: Vec<TargetOutput>) -> Result {
    say(context, &results);
    context.output.result(&json!({ "targets": results }), || {
        let lines = results.iter().map(|result| match result.target.contains('@') {
            true => result.target.clone(),
            false => format!("{}@{}", result.target, result.digest),
        });
        lines.collect::<Lines>()
    })
}

impl TargetOutput {
    fn words(&self) -> String {
        let mut parts = Vec::new();
        let copied = if self.dry_run { "to copy" } else { "copied" };
        let exist = if self.present.blobs == 1 { "already exists" } else { "already exist" };
        for (count, what) in [(&self.sent, copied), (&self.mounted, "mounted"), (&self.present, exist)] {
            if count.blobs > 0 {
                let blobs = counted(count.blobs, "blob", "blobs");
                parts.push(format!("{blobs} {what} ({})", output::bytes(count.bytes)));
            }
        }
        if parts.is_empty() {
            parts.push("already exists".to_owned());
        }
        if !self.referrers.is_empty() {
            parts.push(counted(self.referrers.len(), "referrer", "referrers"));
        }
        let dry_run = if self.dry_run { "dry run: " } else { "" };
        format!("{dry_run}{}: {}", self.target, parts.join(", "))
    }

    /// Returns the plan for a target. Whether a blob can be mounted is known only after the attempt, so blobs to mount count as
    /// blobs to copy.
    pub(crate) fn of_plan(target: &Location, planned: &Planned) -> TargetOutput {
        let count = |wanted: bool| {
            let found = planned.blobs.iter().filter(|(_, present)| *present == wanted);
            found.fold(BlobCount::default(), |count, (blob, _)| BlobCount {
                blobs: count.blobs + 1,
                bytes: count.bytes.saturating_add(blob.size),
            })
        };
        TargetOutput {
            target: target.to_string(),
            digest: planned.root.digest,
            sent: count(false),
            mounted: BlobCount::default(),
            present: count(true),
            referrers: planned.referrers.iter().map(|referrer| referrer.digest).collect(),
            kept: planned.kept.iter().map(KeptTagOutput::from).collect(),
            dry_run: true,
            has_zstd_for_docker: has_zstd_for_docker(target, planned.blobs.iter().map(|(blob, _)| blob)),
        }
    }

    pub(crate) fn of(target: &Location, copied: &Copied) -> TargetOutput {
        let count = |put| {
            let (blobs, bytes) = copied.count(put);
            BlobCount { blobs, bytes }
        };
        TargetOutput {
            target: target.to_string(),
            digest: copied.root.digest,
            sent: count(Put::Copied),
            mounted: count(Put::Mounted),
            present: count(Put::Present),
            referrers: copied.referrers.iter().map(|referrer| referrer.digest).collect(),
            kept: copied.kept.iter().map(KeptTagOutput::from).collect(),
            dry_run: false,
            has_zstd_for_docker: has_zstd_for_docker(target, copied.blobs.iter().map(|(blob, _)| blob)),
        }
    }
}
