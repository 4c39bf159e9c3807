//! What `index add` and `index remove` share: opening the index, the change, and the result.

use ocikit::{Composed, Error, Index, IndexChange, Location, Root, Session};
use serde_json::json;

use super::create::store;
use super::members::say_notes;
use crate::change::Change;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// Opens the index of a location. `verb` is what the command does with it.
pub(super) async fn open(context: &Context, session: &Session, location: &Location, verb: &str) -> Result<Index> {
    match crate::pipe::open_image(context, session, location, true).await? {
        Root::Index(index) => Ok(index),
        other => {
            let kind = &other.descriptor().media_type;
            Err(Failure::usage(format_args!("cannot {verb} {location}: it is of type {kind} and not an index"))
                .hint("create an index with `ocikit index create`"))
        }
    }
}

/// Changes an index where the arguments say so, in place or with a new one that is stored elsewhere, and reports the result.
/// `explain` adds the hints of the command to errors.
pub(super) async fn run(
    change: &Change<'_>,
    in_place: impl AsyncFnOnce(&Session, &Location) -> ocikit::Result<IndexChange>,
    compose: impl AsyncFnOnce(&Session, &Index) -> ocikit::Result<Composed>,
    explain: impl Fn(Error) -> Failure,
) -> Result {
    let Change { context, session, location, .. } = change;
    let changed = match change.is_in_place().await? {
        true => in_place(session, location).await.map_err(&explain)?,
        false => {
            let index = open(context, session, location, "change").await?;
            let composed = compose(session, &index).await.map_err(&explain)?;
            let changed = IndexChange::planned(&index, composed).await?;
            if let Some(output) = change.writes_to() {
                store(session, &changed.composed.index, output).await?;
            }
            changed
        }
    };
    let IndexChange { before, composed, orphans, orphans_unknown, .. } = &changed;
    say_notes(context, composed);
    let dropped = change.handle_orphans(orphans, orphans_unknown.as_ref(), 0).await?;
    if crate::file::writes_to_stdout(change.target()) {
        return Ok(());
    }
    let digest = composed.index.digest();
    let result = json!({
        "location": change.target().to_string(),
        "before": before,
        "digest": digest,
        "changed": digest != *before,
        "added": composed.added,
        "removed": composed.removed,
        // Signatures and other referrers that do not apply to the new digest.
        "orphanedReferrers": orphans.len(),
        "droppedReferrers": dropped,
    });
    context.output.result(&result, || digest.to_string())
}
