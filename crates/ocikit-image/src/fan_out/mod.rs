//! One source, several targets: each blob is read and hashed once, and passed to all targets that want it.
//!
//! Targets in the same registry are one lane, since its repositories take blobs over from each other; every other target is a
//! lane of its own. Each lane goes through the same plan by itself, and [`Pace`] keeps them near each other; a blob is read
//! by a [`Channel`], which keeps a short piece of it for the lanes that are behind.

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

use crate::copy::{Copied, CopyOptions, Teller, copy, graphs, or_unnamed};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::add_size;
use crate::merge::{KeptTag, Wanting, settle};
use crate::related::related;
use crate::root::Root;
use crate::source::{Naming, Put, Sink};

use lane::{Lane, Member};
pub use per_target::PerTarget;
pub use tee::Tee;

/// How long a target may keep the others waiting, in all. Then it reads for itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A place to copy to, and the names that the root gets there; without one it becomes visible without a name.
#[derive(Debug, Clone)]
pub struct Target {
    /// The place.
    pub sink: Arc<dyn Sink>,
    /// The names, in the order in which they are given.
    pub names: Vec<Naming>,
}

/// Copies a root to several places at the same time, as [`copy`] does to one; the names are given with each place, and those
/// of the options are not used.
///
/// Each blob of the source is read once and hashed once, whatever the number of places, and no more than about a MiB of it
/// is held. A place that is slow holds the others back for ten seconds in all, and reads for itself from then on; so does one
/// that has to begin again somewhere. What became of each place is told in the order in which they were given: one that
/// fails leaves, and the others go on.
pub async fn copy_to_each(from: &Root, targets: &[Target], options: &CopyOptions) -> PerTarget<Copied> {
    if let [target] = targets {
        let options = CopyOptions { names: target.names.clone(), ..options.clone() };
        return [copy(from, &target.sink, &options).await].into_iter().collect();
    }
    let found = related(from, &options.referrers, &options.only).await;
    let along = match found {
        Ok(along) => along,
        Err(error) => {
            let error = Arc::new(error);
            return targets.iter().map(|_| Err(Error::again(&error))).collect();
        }
    };
    let wants = join_all(targets.iter().map(|target| Lack::of(from, &along, target, options))).boxed().await;
    let mut outcomes: Vec<Option<Result<Copied>>> = Vec::new();
    let mut groups = BTreeMap::<Wants, Vec<usize>>::new();
    let mut lacking = Vec::new();
    for (position, wants) in wants.into_iter().enumerate() {
        let (outcome, lack) = match wants {
            Err(error) => (Some(Err(error)), Lack::default()),
            Ok(lack) if lack.is_nothing() => (Some(Ok(copied(from, &along, Vec::new(), &lack))), lack),
            Ok(lack) => {
                groups.entry(lack.wants(position)).or_default().push(position);
                (None, lack)
            }
        };
        outcomes.push(outcome);
        lacking.push(lack);
    }
    let copies = groups.values().map(|positions| {
        let members: Vec<_> = positions.iter().map(|position| &targets[*position]).collect();
        // Those of a group lack the same.
        let lack = &lacking[positions[0]];
        async move { (positions, copy_group(from, lack, &members, options).await) }
    });
    for (positions, group) in join_all(copies).boxed().await {
        for (position, outcome) in positions.iter().zip(group) {
            let lack = &lacking[*position];
            outcomes[*position] = Some(outcome.map(|blobs| copied(from, &along, blobs, lack)));
        }
    }
    outcomes.into_iter().flatten().collect()
}

fn copied(from: &Root, along: &[(Root, Naming)], blobs: Vec<(Descriptor, Put)>, lack: &Lack) -> Copied {
    let referrers = along.iter().map(|(root, _)| root.descriptor().clone()).collect();
    let root = lack.root.as_ref().unwrap_or(from).descriptor().clone();
    Copied { root, blobs, referrers, kept: lack.kept.clone() }
}

/// Which targets get the same: those that lack the same, unless something is added to what one of them has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wants {
    root: bool,
    along: Vec<Digest>,
    alone: Option<usize>,
}

/// What a target lacks.
#[derive(Debug, Default)]
struct Lack {
    root: Option<Root>,
    along: Vec<Wanting>,
    /// Whether something of it is the target's own, and more.
    merged: bool,
    kept: Vec<KeptTag>,
}

impl Lack {
    async fn of(from: &Root, along: &[(Root, Naming)], target: &Target, options: &CopyOptions) -> Result<Lack> {
        let mut merged = HashMap::new();
        let root = Wanting { position: 0, root: from.clone(), names: or_unnamed(&target.names) };
        let (root, kept) = settle(vec![root], &target.sink, options.comparing(), &mut merged).await?;
        if let Some((_, kept)) = kept.first() {
            return Err(kept.refuse(&target.sink));
        }
        let wanting =
            along.iter().map(|(root, naming)| Wanting { position: 0, root: root.clone(), names: vec![naming.clone()] });
        let (along_lacking, kept_along) =
            settle(wanting.collect(), &target.sink, options.comparing(), &mut merged).await?;
        let known: HashSet<_> = along.iter().map(|(root, _)| root.digest()).chain([from.digest()]).collect();
        let root = root.into_iter().next().map(|wanting| wanting.root);
        let all = along_lacking.iter().map(|wanting| &wanting.root).chain(&root);
        Ok(Lack {
            merged: all.into_iter().any(|root| !known.contains(&root.digest())),
            root,
            along: along_lacking,
            kept: kept_along.into_iter().map(|(_, kept)| kept).collect(),
        })
    }

    fn wants(&self, position: usize) -> Wants {
        Wants {
            root: self.root.is_some(),
            along: self.along.iter().map(|wanting| wanting.root.digest()).collect(),
            alone: self.merged.then_some(position),
        }
    }

    fn is_nothing(&self) -> bool {
        self.root.is_none() && self.along.is_empty()
    }
}

type Outcome = Result<Vec<(Descriptor, Put)>>;

/// Copies to targets that lack the same.
async fn copy_group(from: &Root, lack: &Lack, targets: &[&Target], options: &CopyOptions) -> Vec<Outcome> {
    let Lack { root, along, .. } = lack;
    let root: Vec<_> = root.iter().map(|root| Wanting { position: 0, root: root.clone(), names: Vec::new() }).collect();
    let (graph, more) = match graphs(&root, along, options).await {
        Ok(graphs) => graphs,
        Err(error) => {
            let error = Arc::new(error);
            return targets.iter().map(|_| Err(Error::again(&error))).collect();
        }
    };
    let plan = [graph.plan(), more.plan()].concat();
    let bytes = plan.iter().fold(0, add_size);
    let tell = Teller(options.observer.clone());
    tell.event(Event::Planned { blobs: plan.len(), bytes });
    let stages = graph.stages().chain(more.stages()).map(Vec::as_slice).collect::<Vec<_>>();
    let members = targets.iter().map(|target| Member {
        sink: target.sink.clone(),
        names: if root.is_empty() { Vec::new() } else { or_unnamed(&target.names) },
    });
    let lanes = Lane::sort(members.collect());
    let named = root.first().map_or(from, |wanting| &wanting.root).descriptor();
    lane::run(&lanes, &stages, &plan, along, named, options.jobs, &tell).await
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
