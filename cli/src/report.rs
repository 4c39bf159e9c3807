//! What became of copies, in words and as facts.

use std::fmt::Display;

use ocikit::image::KeptTag;
use ocikit::{Copied, Digest, Location, Planned, Put};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::{self, Lines};

/// What became of one target.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    target: String,
    pub(crate) digest: Digest,
    sent: Count,
    mounted: Count,
    present: Count,
    /// What went along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    referrers: Vec<Digest>,
    /// Tags of referrers that the target keeps as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Kept>,
    /// Nothing was done; this is what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// A tag that was not copied, so as not to lose what the target has there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    tag: String,
    digest: Digest,
    not_copied: Digest,
}

impl From<&KeptTag> for Kept {
    fn from(kept: &KeptTag) -> Kept {
        Kept { tag: kept.tag.to_string(), digest: kept.there, not_copied: kept.not_copied }
    }
}

#[derive(Default, Serialize)]
struct Count {
    blobs: usize,
    bytes: u64,
}

/// One failure of one is that failure; some of several, a partial success.
pub(crate) fn partial(mut failures: Vec<(impl Display, Failure)>, succeeded: usize, what: &str) -> Result {
    if failures.len() == 1 && succeeded == 0 {
        return Err(failures.remove(0).1);
    }
    let codes: Vec<_> = failures.iter().map(|(_, failure)| failure.code).collect();
    let Some(first) = codes.first() else { return Ok(()) };
    let same = codes.iter().all(|code| code == first);
    let code = if succeeded == 0 && same { *first } else { Code::Partial };
    let details = failures.iter().map(|(name, failure)| format!("{name}: {}", failure.message)).collect();
    let message = format!("{} of {} {what} failed", failures.len(), failures.len() + succeeded);
    let hint = failures.into_iter().find_map(|(_, failure)| failure.hint);
    Err(Failure { hint, details, ..Failure::new(code, message) })
}

/// Says what became of targets, where standard output is one of them and holds nothing else.
pub(crate) fn say(context: &Context, facts: &[Facts]) {
    for fact in facts {
        context.output.say(fact.words());
        for Kept { tag, digest, not_copied } in &fact.kept {
            context
                .output
                .say(format!("warning: {} keeps its own {tag} ({digest}); {not_copied} was not copied", fact.target));
        }
    }
}

/// States what became of the targets that succeeded.
pub(crate) fn report(context: &Context, facts: Vec<Facts>) -> Result {
    #[derive(Serialize)]
    struct All {
        targets: Vec<Facts>,
    }
    say(context, &facts);
    let all = All { targets: facts };
    context.output.facts(&all, || {
        let lines = all.targets.iter().map(|fact| match fact.target.contains('@') {
            true => fact.target.clone(),
            false => format!("{}@{}", fact.target, fact.digest),
        });
        lines.collect::<Lines>()
    })
}

impl Facts {
    fn words(&self) -> String {
        let mut parts = Vec::new();
        let sent = if self.dry_run { "to send" } else { "sent" };
        for (count, what) in [(&self.sent, sent), (&self.mounted, "mounted"), (&self.present, "there already")] {
            if count.blobs > 0 {
                parts.push(format!("{} blobs {what} ({})", count.blobs, output::bytes(count.bytes)));
            }
        }
        if parts.is_empty() {
            parts.push("it was all there already".to_owned());
        }
        if !self.referrers.is_empty() {
            parts.push(format!("{} referrers along with it", self.referrers.len()));
        }
        format!("{}: {}", self.target, parts.join(", "))
    }

    /// What would become of a target. What could be mounted cannot be told before it is tried, and counts as sent.
    pub(crate) fn of_plan(target: &Location, planned: &Planned) -> Facts {
        let count = |wanted: bool| {
            let found = planned.blobs.iter().filter(|(_, present)| *present == wanted);
            found.fold(Count::default(), |count, (blob, _)| Count {
                blobs: count.blobs + 1,
                bytes: count.bytes.saturating_add(blob.size),
            })
        };
        Facts {
            target: target.to_string(),
            digest: planned.root.digest,
            sent: count(false),
            mounted: Count::default(),
            present: count(true),
            referrers: planned.referrers.iter().map(|referrer| referrer.digest).collect(),
            kept: planned.kept.iter().map(Kept::from).collect(),
            dry_run: true,
        }
    }

    pub(crate) fn of(target: &Location, copied: &Copied) -> Facts {
        let count = |put| {
            let (blobs, bytes) = copied.count(put);
            Count { blobs, bytes }
        };
        Facts {
            target: target.to_string(),
            digest: copied.root.digest,
            sent: count(Put::Copied),
            mounted: count(Put::Mounted),
            present: count(Put::Present),
            referrers: copied.referrers.iter().map(|referrer| referrer.digest).collect(),
            kept: copied.kept.iter().map(Kept::from).collect(),
            dry_run: false,
        }
    }
}
