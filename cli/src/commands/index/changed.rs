//! What `index add` and `index remove` share: opening the index, and the result.

use ocikit::{Descriptor, Digest, IndexChange, Location, Root, Session};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};

/// Opens the index of a location.
pub(super) async fn open(session: &Session, location: &Location) -> Result<ocikit::Index> {
    match session.open(location).await? {
        Root::Index(index) => Ok(index),
        other => {
            let kind = &other.descriptor().media_type;
            Err(Failure::usage(format_args!("cannot change {location}: it is of type {kind} and not an index"))
                .hint("create an index with `ocikit index create`"))
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangedIndex<'a> {
    location: String,
    before: Digest,
    digest: Digest,
    changed: bool,
    added: &'a [Descriptor],
    removed: &'a [Descriptor],
    /// Signatures and other referrers that do not apply to the new digest.
    orphaned_referrers: usize,
    /// The number of removed referrers.
    dropped_referrers: usize,
}

/// Prints the result of a change, and says how many referrers do not apply to the new digest.
pub(super) async fn report(
    context: &Context,
    session: &Session,
    location: &Location,
    change: &IndexChange,
    drop_referrers: bool,
) -> Result {
    let IndexChange { before, composed, orphans, .. } = change;
    let dropped = match drop_referrers {
        true => session.drop_referrers(location, orphans).await?,
        false => 0,
    };
    if orphans.len() > dropped {
        let what = "signatures or other referrers do not apply to the new digest";
        context.output.say(format!("warning: {} {what}", orphans.len() - dropped));
    }
    if crate::file::writes_to_stdout(location) {
        return Ok::<_, Failure>(());
    }
    let digest = composed.index.digest();
    let result = ChangedIndex {
        location: location.to_string(),
        before: *before,
        digest,
        changed: digest != *before,
        added: &composed.added,
        removed: &composed.removed,
        orphaned_referrers: orphans.len(),
        dropped_referrers: dropped,
    };
    context.output.result(&result, || digest.to_string())
}
