//! Copies of roots to targets. One engine does all of them; a copy to one target is a copy to several with one.

mod channel;
mod engine;
mod lane;
mod options;
mod pace;
mod per_target;
mod staged;
mod tee;

use std::slice;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::root::Root;
use crate::source::{Naming, Put, Sink};

use engine::Destination;
use lane::Mode;
pub use options::{Copied, CopyOptions, Planned, Target};
pub use per_target::PerTarget;
pub use staged::{Published, Staged};
pub use tee::Tee;

/// Copies a root and everything below it, then its referrers. Each digest is copied once, up to
/// [`jobs`](CopyOptions::jobs) in parallel, children before their parents. A root that was uploaded is read back
/// ([`Sink::confirm`]) before it gets its names, which come last.
///
/// Signatures, attestations and lists of referrers that the target has under tags like `sha256-HEX.sig` are never lost:
/// the copied ones are merged into them. An SBOM under such a tag cannot be merged, because cosign reads it only if it
/// is the only layer; the target keeps its own, and [`Copied::kept`] reports that.
///
/// If the copy fails, no name has changed at the target. If its future is dropped, the copy stops; a step that already
/// runs on a thread or at the registry may still complete, including the last one, which publishes the root.
///
/// # Errors
///
/// The first error of either side; its `place` tells which. [`Error::Exists`] with [`CopyOptions::keep_tags`], and if
/// the root itself could not be merged with what the target has under its tag.
pub async fn copy(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Copied> {
    let target = Target { sink: to.clone(), names: options.names.clone() };
    only(copy_to_each(from, &[target], options).await)
}

/// Copies a root to several targets in parallel, as [`copy`] does for one. The names are given with each target;
/// [`CopyOptions::names`] is ignored.
///
/// Each blob is read and hashed once, whatever the number of targets, and at most about 1 MiB of it is held. A slow
/// target delays the others for at most 10 seconds in total and then reads by itself; so does one that has to restart a
/// read. The results are in the order of the targets. A target that fails does not stop the others.
pub async fn copy_to_each(from: &Root, targets: &[Target], options: &CopyOptions) -> PerTarget<Copied> {
    let copied = engine::run(slice::from_ref(from), destinations(targets), options, Mode::Copy).await;
    targets.iter().zip(copied).map(|(target, copied)| unless_kept(from, target, copied?.remove(0))).collect()
}

fn destinations(targets: &[Target]) -> Vec<Destination<'_>> {
    targets.iter().map(|Target { sink, names }| Destination { sink, names: vec![names.clone()] }).collect()
}

/// Returns the copy of a root to a target, unless the target keeps what it has under the tag of the root.
fn unless_kept(from: &Root, target: &Target, copied: Copied) -> Result<Copied> {
    match copied.kept.iter().find(|kept| kept.not_copied == from.digest()) {
        Some(kept) => Err(kept.refuse(&target.sink)),
        None => Ok(copied),
    }
}

/// Copies a root to several targets as [`copy_to_each`] does, up to the point where everything is stored and read back.
/// No name changes before [`Staged::publish`], so that names can wait until all targets are ready.
///
/// The results are in the order of the targets. A target that fails does not stop the others.
pub async fn stage_to_each(from: &Root, targets: &[Target], options: &CopyOptions) -> PerTarget<Staged> {
    let staged = engine::run_staged(slice::from_ref(from), destinations(targets), options, Mode::Stage).await;
    let each = targets.iter().zip(staged).map(|(target, staged)| {
        let (mut copied, unpublished) = staged?;
        Ok(Staged { copied: unless_kept(from, target, copied.remove(0))?, unpublished })
    });
    each.collect()
}

/// Copies several roots, which may come from different sources, in one run. A blob that they share is copied once, and
/// no name changes before all roots are stored. The names are given with each root; [`CopyOptions::names`] is ignored.
///
/// There is one result for each root. A shared blob is listed in the result of the first root that has it.
///
/// # Errors
///
/// The first error of any side; its `place` tells which.
pub async fn copy_all(roots: &[(Root, Vec<Naming>)], to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Vec<Copied>> {
    only(copy_all_to_each(roots, slice::from_ref(to), options).await)
}

/// Copies several roots to several targets, as [`copy_all`] does for one target and [`copy_to_each`] for one root: each
/// blob is read once. Each root gets the same names at all targets.
///
/// The results are in the order of the targets. A target that fails does not stop the others.
pub async fn copy_all_to_each(
    roots: &[(Root, Vec<Naming>)],
    to: &[Arc<dyn Sink>],
    options: &CopyOptions,
) -> PerTarget<Vec<Copied>> {
    let (roots, names): (Vec<_>, Vec<_>) = roots.iter().cloned().unzip();
    let destinations = to.iter().map(|sink| Destination { sink, names: names.clone() }).collect();
    engine::run(&roots, destinations, options, Mode::Copy).await
}

/// Returns what [`copy`] would do, without writing. Queries the target for every blob.
///
/// # Errors
///
/// The first error of either side; its `place` tells which.
pub async fn plan(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Planned> {
    only(plan_to_each(from, slice::from_ref(to), options).await)
}

/// Returns what [`copy_to_each`] would do, without writing. Reads the source once and queries each target for every
/// blob. The results are in the order of the targets.
pub async fn plan_to_each(from: &Root, to: &[Arc<dyn Sink>], options: &CopyOptions) -> PerTarget<Planned> {
    // The plan lists every blob, even if a target already has the root under its name.
    let options = CopyOptions { recheck: true, observer: None, ..options.clone() };
    let destinations = to.iter().map(|sink| Destination { sink, names: vec![Vec::new()] }).collect();
    let planned = engine::run(slice::from_ref(from), destinations, &options, Mode::DryRun).await;
    let each = planned.into_iter().map(|planned| {
        let Copied { blobs, referrers, kept, .. } = planned?.remove(0);
        let blobs = blobs.into_iter().map(|(blob, put)| (blob, put == Put::Present)).collect();
        Ok(Planned { root: from.descriptor().clone(), blobs, referrers, kept })
    });
    each.collect()
}

/// Returns the result of the only target.
fn only<T>(results: PerTarget<T>) -> Result<T> {
    let lost = || Error::failed("copy to", "the target", std::io::Error::other("the copy returned no result"));
    results.into_iter().next().unwrap_or_else(|| Err(lost()))
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
