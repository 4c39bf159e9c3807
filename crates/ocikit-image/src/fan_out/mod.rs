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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, join_all, try_join_all};
use ocikit_spec::Descriptor;

use crate::copy::{Copied, CopyOptions, Teller, Wanting, copy, graphs, is_complete, or_unnamed};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::add_size;
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
    let wants = join_all(targets.iter().map(|target| Wants::of(from, &along, target, options))).boxed().await;
    let mut outcomes: Vec<Option<Result<Copied>>> = Vec::new();
    let mut groups = BTreeMap::<Wants, Vec<usize>>::new();
    for (position, wants) in wants.into_iter().enumerate() {
        outcomes.push(match wants {
            Err(error) => Some(Err(error)),
            Ok(wants) if wants.is_nothing() => Some(Ok(copied(from, &along, Vec::new()))),
            Ok(wants) => {
                groups.entry(wants).or_default().push(position);
                None
            }
        });
    }
    let copies = groups.iter().map(|(wants, positions)| {
        let members: Vec<_> = positions.iter().map(|position| &targets[*position]).collect();
        let along = &along;
        async move { (positions, copy_group(from, along, wants, &members, options).await) }
    });
    for (positions, group) in join_all(copies).boxed().await {
        for (position, outcome) in positions.iter().zip(group) {
            outcomes[*position] = Some(outcome.map(|blobs| copied(from, &along, blobs)));
        }
    }
    outcomes.into_iter().flatten().collect()
}

fn copied(from: &Root, along: &[(Root, Naming)], blobs: Vec<(Descriptor, Put)>) -> Copied {
    let referrers = along.iter().map(|(root, _)| root.descriptor().clone()).collect();
    Copied { root: from.descriptor().clone(), blobs, referrers }
}

/// What a target lacks: those that lack the same get the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wants {
    root: bool,
    /// Which of what goes along.
    along: Vec<usize>,
}

impl Wants {
    async fn of(from: &Root, along: &[(Root, Naming)], target: &Target, options: &CopyOptions) -> Result<Wants> {
        if options.recheck {
            return Ok(Wants { root: true, along: (0..along.len()).collect() });
        }
        let root = !is_complete(from.descriptor(), &target.sink, or_unnamed(&target.names), options).await?;
        let complete = along.iter().map(|(root, naming)| target.sink.is_complete(root.descriptor(), naming));
        let complete = try_join_all(complete).boxed().await?;
        let lacking = complete.iter().enumerate().filter(|(_, complete)| !**complete);
        Ok(Wants { root, along: lacking.map(|(position, _)| position).collect() })
    }

    fn is_nothing(&self) -> bool {
        !self.root && self.along.is_empty()
    }
}

type Outcome = Result<Vec<(Descriptor, Put)>>;

/// Copies to targets that lack the same.
async fn copy_group(
    from: &Root,
    along: &[(Root, Naming)],
    wants: &Wants,
    targets: &[&Target],
    options: &CopyOptions,
) -> Vec<Outcome> {
    let wanting = |root: &Root, names| Wanting { position: 0, root: root.clone(), names };
    let root: Vec<_> = wants.root.then(|| wanting(from, Vec::new())).into_iter().collect();
    let along = wants.along.iter().map(|position| &along[*position]);
    let along: Vec<_> = along.map(|(root, naming)| wanting(root, vec![naming.clone()])).collect();
    let (graph, more) = match graphs(&root, &along, &options.only).await {
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
        names: if wants.root { or_unnamed(&target.names) } else { Vec::new() },
    });
    let lanes = Lane::sort(members.collect());
    lane::run(&lanes, &stages, &plan, &along, from.descriptor(), options.jobs, &tell).await
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
