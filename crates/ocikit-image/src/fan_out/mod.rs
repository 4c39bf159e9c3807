//! Copies from one source to several targets: each blob is read and hashed once and passed to every target that needs
//! it.
//!
//! Targets in the same registry form one lane, because blobs are mounted between its repositories; every other target
//! is its own lane. Each lane follows the same plan, and [`Pace`] limits the distance between them. A blob is read by a
//! [`Channel`], which keeps a short window of it for slower lanes.

mod channel;
mod lane;
mod pace;
mod per_target;
mod tee;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use ocikit_spec::{Descriptor, Digest};

use crate::copy::{Copied, CopyOptions, Progress, copy, graphs, or_unnamed};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::add_size;
use crate::merge::{KeptTag, PendingRoot, settle};
use crate::related::related;
use crate::root::Root;
use crate::source::{Naming, Put, Sink};

use lane::{Lane, Member};
pub use per_target::PerTarget;
pub use tee::Tee;

/// The total time for which a target may delay the others. After that it reads from the source by itself.
const MAX_TARGET_DELAY: Duration = Duration::from_secs(10);

/// A target of a copy, and the names to give to the root there. Without names, the root is published without one.
#[derive(Debug, Clone)]
pub struct Target {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// The names, in the order in which they are published.
    pub names: Vec<Naming>,
}

/// Copies a root to several targets in parallel, as [`copy`] does for one. The names are given with each target;
/// [`CopyOptions::names`] is ignored.
///
/// Each blob is read and hashed once, whatever the number of targets, and at most about 1 MiB of it is held. A slow
/// target delays the others for at most 10 seconds in total and then reads by itself; so does one that has to restart a
/// read. The results are in the order of the targets. A target that fails does not stop the others.
pub async fn copy_to_each(from: &Root, targets: &[Target], options: &CopyOptions) -> PerTarget<Copied> {
    if let [target] = targets {
        let options = CopyOptions { names: target.names.clone(), ..options.clone() };
        return [copy(from, &target.sink, &options).await].into_iter().collect();
    }
    let found = related(from, &options.referrers, &options.only).await;
    let referrers = match found {
        Ok(referrers) => referrers,
        Err(error) => {
            let error = Arc::new(error);
            return targets.iter().map(|_| Err(Error::again(&error))).collect();
        }
    };
    let wanted =
        join_all(targets.iter().map(|target| MissingRoots::of(from, &referrers, target, options))).boxed().await;
    let mut outcomes: Vec<Option<Result<Copied>>> = Vec::new();
    let mut groups = BTreeMap::<GroupKey, Vec<usize>>::new();
    let mut missing_by_target = Vec::new();
    for (position, wanted) in wanted.into_iter().enumerate() {
        let (outcome, missing) = match wanted {
            Err(error) => (Some(Err(error)), MissingRoots::default()),
            Ok(missing) if missing.is_nothing() => (Some(Ok(copied(from, &referrers, Vec::new(), &missing))), missing),
            Ok(missing) => {
                groups.entry(missing.group_key(position)).or_default().push(position);
                (None, missing)
            }
        };
        outcomes.push(outcome);
        missing_by_target.push(missing);
    }
    let copies = groups.values().map(|positions| {
        let members: Vec<_> = positions.iter().map(|position| &targets[*position]).collect();
        // All targets of a group lack the same roots.
        let missing = &missing_by_target[positions[0]];
        async move { (positions, copy_group(from, missing, &members, options).await) }
    });
    for (positions, group) in join_all(copies).boxed().await {
        for (position, outcome) in positions.iter().zip(group) {
            let missing = &missing_by_target[*position];
            outcomes[*position] = Some(outcome.map(|blobs| copied(from, &referrers, blobs, missing)));
        }
    }
    outcomes.into_iter().flatten().collect()
}

fn copied(from: &Root, referrers: &[(Root, Naming)], blobs: Vec<(Descriptor, Put)>, missing: &MissingRoots) -> Copied {
    let referrers = referrers.iter().map(|(root, _)| root.descriptor().clone()).collect();
    let root = missing.root.as_ref().unwrap_or(from).descriptor().clone();
    Copied { root, blobs, referrers, kept: missing.kept.clone() }
}

/// The key that groups targets: those that lack the same roots, unless roots are merged with what a target has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    root: bool,
    referrers: Vec<Digest>,
    alone: Option<usize>,
}

/// What a target lacks.
#[derive(Debug, Default)]
struct MissingRoots {
    root: Option<Root>,
    referrers: Vec<PendingRoot>,
    /// Whether a root was merged with what the target has, so that it differs from that of other targets.
    merged: bool,
    kept: Vec<KeptTag>,
}

impl MissingRoots {
    async fn of(
        from: &Root,
        referrers: &[(Root, Naming)],
        target: &Target,
        options: &CopyOptions,
    ) -> Result<MissingRoots> {
        let mut merged = HashMap::new();
        let root = PendingRoot { position: 0, root: from.clone(), names: or_unnamed(&target.names) };
        let (root, kept) = settle(vec![root], &target.sink, options.comparing(), &mut merged).await?;
        if let Some((_, kept)) = kept.first() {
            return Err(kept.refuse(&target.sink));
        }
        let pending = referrers.iter().map(|(root, naming)| PendingRoot {
            position: 0,
            root: root.clone(),
            names: vec![naming.clone()],
        });
        let (lacking_referrers, kept_referrers) =
            settle(pending.collect(), &target.sink, options.comparing(), &mut merged).await?;
        let known: HashSet<_> = referrers.iter().map(|(root, _)| root.digest()).chain([from.digest()]).collect();
        let root = root.into_iter().next().map(|pending| pending.root);
        let all = lacking_referrers.iter().map(|pending| &pending.root).chain(&root);
        Ok(MissingRoots {
            merged: all.into_iter().any(|root| !known.contains(&root.digest())),
            root,
            referrers: lacking_referrers,
            kept: kept_referrers.into_iter().map(|(_, kept)| kept).collect(),
        })
    }

    fn group_key(&self, position: usize) -> GroupKey {
        GroupKey {
            root: self.root.is_some(),
            referrers: self.referrers.iter().map(|pending| pending.root.digest()).collect(),
            alone: self.merged.then_some(position),
        }
    }

    fn is_nothing(&self) -> bool {
        self.root.is_none() && self.referrers.is_empty()
    }
}

type Outcome = Result<Vec<(Descriptor, Put)>>;

/// Copies to targets that lack the same roots.
async fn copy_group(from: &Root, missing: &MissingRoots, targets: &[&Target], options: &CopyOptions) -> Vec<Outcome> {
    let MissingRoots { root, referrers, .. } = missing;
    let root: Vec<_> =
        root.iter().map(|root| PendingRoot { position: 0, root: root.clone(), names: Vec::new() }).collect();
    let (graph, more) = match graphs(&root, referrers, options).await {
        Ok(graphs) => graphs,
        Err(error) => {
            let error = Arc::new(error);
            return targets.iter().map(|_| Err(Error::again(&error))).collect();
        }
    };
    let plan = [graph.plan(), more.plan()].concat();
    let bytes = plan.iter().fold(0, add_size);
    let progress = Progress(options.observer.clone());
    progress.event(Event::Planned { blobs: plan.len(), bytes });
    let stages = graph.stages().chain(more.stages()).map(Vec::as_slice).collect::<Vec<_>>();
    let members = targets.iter().map(|target| Member {
        sink: target.sink.clone(),
        names: if root.is_empty() { Vec::new() } else { or_unnamed(&target.names) },
    });
    let lanes = Lane::sort(members.collect());
    let named = root.first().map_or(from, |pending| &pending.root).descriptor();
    lane::run(&lanes, &stages, &plan, referrers, named, options.jobs, &progress).await
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
