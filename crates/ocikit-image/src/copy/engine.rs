//! The engine: one run copies roots to targets.
//!
//! Targets that lack the same roots form a group and follow one plan. Within a group, targets of the same registry form
//! one lane, because blobs are mounted between its repositories; every other target is its own lane. A lane never waits
//! at the end of a stage for another one; [`Pace`] limits the distance between them. If a group has several lanes, each
//! blob is read once by a channel, which keeps a short window of it for slower lanes. With one lane, the sink reads
//! from the source.
//!
//! The referrers are looked up while the blobs are being copied. Targets of a group that lack the same referrers share
//! a second plan, which follows the first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, Shared, join_all, ready};
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Descriptor, Digest, Tag};

use super::lane::{FanOutPlan, Lane, LaneRun, MAX_TARGET_DELAY, Mode, TargetState, any_left, fail_all};
use super::options::{Copied, CopyOptions};
use super::pace::Pace;
use super::per_target::PerTarget;
use super::staged::Unpublished;
use crate::error::Result;
use crate::event::{Event, Progress};
use crate::graph::{Graph, MAX_PARALLEL_READS};
use crate::merge::{KeptTag, PendingRoot, settle};
use crate::related::related;
use crate::root::Root;
use crate::source::{Naming, Put, Sink};

/// A target of a run, and the names of each root there.
pub(super) struct Destination<'a> {
    pub(super) sink: &'a Arc<dyn Sink>,
    pub(super) names: Vec<Vec<Naming>>,
}

/// Copies roots to targets, or with [`Mode::DryRun`] queries what they lack. No name changes at a target before it has
/// all roots. Returns one result for each root, for each target.
pub(super) async fn run(
    roots: &[Root],
    to: Vec<Destination<'_>>,
    options: &CopyOptions,
    mode: Mode,
) -> PerTarget<Vec<Copied>> {
    let results = run_staged(roots, to, options, mode).await;
    results.into_iter().map(|result| result.map(|(copied, _)| copied)).collect()
}

/// As [`run`]; with [`Mode::Stage`] each target also has what is to be published there.
pub(super) async fn run_staged(
    roots: &[Root],
    to: Vec<Destination<'_>>,
    options: &CopyOptions,
    mode: Mode,
) -> PerTarget<TargetResult> {
    let run = Run { roots, options, mode, progress: Progress(options.observer.clone()) };
    let states: Vec<_> = to.iter().map(|target| TargetState::new(target.sink)).collect();
    let members = to.into_iter().zip(&states).enumerate();
    let members = members.map(|(position, (target, state))| run.settle_roots(position, state, target.names));
    let mut groups = BTreeMap::<GroupKey, Vec<Member>>::new();
    for member in join_all(members).boxed().await.into_iter().flatten() {
        let key = GroupKey::of(member.position, &member.pending, &roots.iter().map(Root::digest).collect());
        groups.entry(key).or_default().push(member);
    }
    let related = run.find_related(&states).boxed().shared();
    let groups = groups.into_values().map(|members| run.copy_group(members, related.clone()));
    let mut copied: HashMap<_, _> = join_all(groups).boxed().await.into_iter().flatten().collect();
    let outcome = |(position, state): (_, &Arc<TargetState>)| copied.remove(&position).ok_or_else(|| state.error());
    states.iter().enumerate().map(outcome).collect()
}

/// The key that groups targets: those that lack the same roots, unless roots are merged with what a target has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    lacking: Vec<(usize, Digest)>,
    alone: Option<usize>,
}

impl GroupKey {
    /// Returns the key of a target; `unmerged` are the digests at the source.
    fn of(target: usize, pending: &[PendingRoot], unmerged: &HashSet<Digest>) -> GroupKey {
        let lacking: Vec<_> = pending.iter().map(|pending| (pending.position, pending.root.digest())).collect();
        let is_merged = lacking.iter().any(|(_, digest)| !unmerged.contains(digest));
        GroupKey { lacking, alone: is_merged.then_some(target) }
    }
}

/// A target, and what it lacks of the roots.
struct Member {
    position: usize,
    state: Arc<TargetState>,
    pending: Vec<PendingRoot>,
    kept: Vec<(usize, KeptTag)>,
    /// The roots to store under referrer tags so far.
    merged: HashMap<Tag, Root>,
}

/// The referrers of each root. `None` if they cannot be found, which is the error of every target.
type Related = Option<Arc<Vec<Vec<(Root, Naming)>>>>;

/// What was copied to a target, for each root, and what is to be published there.
type TargetResult = (Vec<Copied>, Unpublished);

/// A lookup that several tasks wait for.
type Lookup<'a, T> = Shared<BoxFuture<'a, T>>;

/// The referrers that the targets of a group lack.
#[derive(Default)]
struct ReferrerPhase {
    /// The referrers of each root.
    related: Vec<Vec<Descriptor>>,
    plans: Vec<FanOutPlan>,
    /// What each target lacks.
    lacking: HashMap<usize, Lacking>,
}

impl ReferrerPhase {
    /// Returns the position of the plan that a target follows.
    fn plan_of(&self, member: &Member) -> Option<usize> {
        Some(self.lacking.get(&member.position)?.plan)
    }
}

struct Lacking {
    /// The position of the plan.
    plan: usize,
    pending: Vec<PendingRoot>,
    kept: Vec<(usize, KeptTag)>,
}

struct Run<'a> {
    roots: &'a [Root],
    options: &'a CopyOptions,
    mode: Mode,
    progress: Progress,
}

impl Run<'_> {
    /// Determines which roots a target lacks. Returns `None` if that fails.
    async fn settle_roots(&self, position: usize, state: &Arc<TargetState>, names: Vec<Vec<Naming>>) -> Option<Member> {
        let roots = self.roots.iter().zip(names).enumerate();
        let pending = roots.map(|(position, (root, names))| PendingRoot {
            position,
            root: root.clone(),
            // A dry run does not look at names.
            names: if names.is_empty() && self.mode.writes() { vec![Naming::default()] } else { names },
        });
        let mut merged = HashMap::new();
        match settle(pending.collect(), &state.sink, self.options.comparing(), &mut merged).await {
            Ok((pending, kept)) => Some(Member { position, state: state.clone(), pending, kept, merged }),
            Err(error) => {
                state.fail(error);
                None
            }
        }
    }

    /// Finds the referrers of the roots, once for all targets.
    async fn find_related(&self, states: &[Arc<TargetState>]) -> Related {
        let Run { roots, options, .. } = self;
        let found = stream::iter(*roots).map(|root| related(root, &options.referrers, &options.only, &options.present));
        match found.buffered(options.jobs.max(1)).boxed().try_collect().await {
            Ok(found) => Some(Arc::new(found)),
            Err(error) => {
                fail_all(states, error);
                None
            }
        }
    }

    /// Copies to targets that lack the same roots. Returns the results of those that did not fail.
    async fn copy_group(&self, members: Vec<Member>, related: Lookup<'_, Related>) -> Vec<(usize, TargetResult)> {
        let Run { options, mode, .. } = self;
        let pending = &members[0].pending.clone();
        let states: Vec<_> = members.iter().map(|member| member.state.clone()).collect();
        let graph = match Graph::of(&roots_of(pending), &options.only, options.foreign_layers, &options.present).await {
            Ok(graph) => graph,
            Err(error) => {
                fail_all(&states, error);
                return Vec::new();
            }
        };
        let lanes = Lane::sort(members, |member| &member.state);
        let pace = Arc::new(Pace::new(lanes.len(), Some(MAX_TARGET_DELAY), options.jobs.max(1).saturating_mul(2)));
        let plan = FanOutPlan::new(graph, pending, &pace, &vec![true; lanes.len()]);
        if !plan.is_empty() && mode.writes() {
            self.progress.planned(plan.blobs().map(|(_, blob)| blob));
        }
        let phase = self.plan_referrers(&lanes, &plan, &pace, related).boxed().shared();
        let copies = lanes.iter().enumerate().map(|(number, lane)| {
            let run = LaneRun { number, pace: pace.clone(), jobs: options.jobs, mode: *mode, progress: &self.progress };
            self.copy_lane(run, lane, &plan, phase.clone())
        });
        join_all(copies).boxed().await.into_iter().flatten().collect()
    }

    /// Finds the referrers that the targets lack, and plans their copies after that of the roots.
    async fn plan_referrers(
        &self,
        lanes: &[Lane<Member>],
        before: &FanOutPlan,
        pace: &Arc<Pace>,
        related: Lookup<'_, Related>,
    ) -> Arc<ReferrerPhase> {
        let Some(related) = related.await else { return Arc::default() };
        let mut unmerged: HashSet<_> = related.iter().flatten().map(|(root, _)| root.digest()).collect();
        unmerged.extend(self.roots.iter().map(Root::digest));
        let members = lanes
            .iter()
            .enumerate()
            .flat_map(|(lane, members)| members.members.iter().map(move |member| (lane, member)));
        let settled = members.map(|(lane, member)| {
            let related = &related;
            async move { (lane, member, self.settle_referrers(member, related).await) }
        });
        let mut groups = BTreeMap::<GroupKey, Vec<_>>::new();
        for (lane, member, settled) in join_all(settled).boxed().await {
            match settled {
                Err(error) => member.state.fail(error),
                Ok((pending, kept)) => {
                    let key = GroupKey::of(member.position, &pending, &unmerged);
                    groups.entry(key).or_default().push((lane, member, pending, kept));
                }
            }
        }
        let digests = |found: &Vec<(Root, Naming)>| found.iter().map(|(root, _)| root.descriptor().clone()).collect();
        let mut phase = ReferrerPhase { related: related.iter().map(digests).collect(), ..ReferrerPhase::default() };
        for group in groups.into_values() {
            let pending = &group[0].2;
            let graph = match Graph::after(before.graph(), &roots_of(pending)).await {
                Ok(graph) => graph,
                Err(error) => {
                    fail_all(group.iter().map(|(_, member, ..)| &member.state), error);
                    continue;
                }
            };
            let takes_part: Vec<_> =
                (0..lanes.len()).map(|lane| group.iter().any(|(found, ..)| *found == lane)).collect();
            let plan = FanOutPlan::new(graph, pending, pace, &takes_part);
            if !pending.is_empty() && self.mode.writes() {
                self.progress.planned(before.blobs().chain(plan.blobs()).map(|(_, blob)| blob));
            }
            for (_, member, pending, kept) in group {
                phase.lacking.insert(member.position, Lacking { plan: phase.plans.len(), pending, kept });
            }
            phase.plans.push(plan);
        }
        Arc::new(phase)
    }

    /// Determines which referrers a target lacks.
    async fn settle_referrers(
        &self,
        member: &Member,
        related: &[Vec<(Root, Naming)>],
    ) -> Result<(Vec<PendingRoot>, Vec<(usize, KeptTag)>)> {
        let pending = related.iter().enumerate().flat_map(|(position, related)| {
            let pending = move |(root, naming): &(Root, Naming)| PendingRoot {
                position,
                root: root.clone(),
                names: vec![naming.clone()],
            };
            related.iter().map(pending)
        });
        settle(pending.collect(), &member.state.sink, self.options.comparing(), &mut member.merged.clone()).await
    }

    /// Copies both plans to the targets of a lane, and publishes the roots. Returns the results of the targets that did
    /// not fail.
    async fn copy_lane(
        &self,
        run: LaneRun<'_>,
        lane: &Lane<Member>,
        plan: &FanOutPlan,
        phase: Lookup<'_, Arc<ReferrerPhase>>,
    ) -> Vec<(usize, TargetResult)> {
        let referrers = phase.clone().map(|_| any_left(&lane.states));
        let mut found = None;
        if run.put_plan(plan, &lane.states, referrers).await.is_ok() {
            let phase = phase.clone().await;
            for (number, behind) in phase.plans.iter().enumerate() {
                let states = lane.members.iter().filter(|member| phase.plan_of(member) == Some(number));
                let states: Arc<[_]> = states.map(|member| member.state.clone()).collect();
                if !states.is_empty() {
                    // The errors are recorded in the states.
                    let _ = run.put_plan(behind, &states, ready(Ok(()))).await;
                }
            }
            found = Some(phase);
        }
        run.leave([plan].into_iter().chain(phase.peek().iter().flat_map(|phase| &phase.plans)));
        let Some(found) = found else { return Vec::new() };
        let finished = lane.members.iter().map(|member| self.finish(member, plan, &found));
        join_all(finished).boxed().await.into_iter().flatten().collect()
    }

    /// Publishes the roots at a target and returns its results. Returns `None` if the target has failed.
    async fn finish(&self, member: &Member, plan: &FanOutPlan, phase: &ReferrerPhase) -> Option<(usize, TargetResult)> {
        let Member { position, state, pending, kept, .. } = member;
        let lacking = phase.lacking.get(position).filter(|_| !state.has_failed())?;
        let mut copied: Vec<_> = self.roots.iter().map(|root| Copied::nothing(root.descriptor().clone())).collect();
        for pending in pending {
            copied[pending.position].root = pending.root.descriptor().clone();
        }
        for (copied, related) in copied.iter_mut().zip(&phase.related) {
            copied.referrers.clone_from(related);
        }
        for (position, kept) in kept.iter().chain(&lacking.kept) {
            copied[*position].kept.push(kept.clone());
        }
        for (position, blob) in plan.blobs().chain(phase.plans[lacking.plan].blobs()) {
            // Nothing is published before everything is stored.
            copied[position].blobs.push((blob.clone(), state.put_of(blob)?));
        }
        let lists = [lacking.pending.clone(), pending.clone()];
        let unpublished = Unpublished::new(&state.sink, lists, self.options.comparing().keep_tags, &self.progress);
        if self.mode.writes()
            && !unpublished.is_empty()
            && let Err(error) = self.complete(state, &unpublished).await
        {
            state.fail(error);
            return None;
        }
        if self.mode.writes() && self.options.observer.is_some() {
            self.progress.event(Event::Stored { target: &state.sink.to_string() });
        }
        Some((*position, (copied, unpublished)))
    }

    /// Reads back the roots that were uploaded, and with [`Mode::Copy`] gives them their names.
    async fn complete(&self, state: &TargetState, unpublished: &Unpublished) -> Result<()> {
        // A root that already existed was read from the target just now. One that was uploaded is read back before it
        // is named.
        let mut confirmed = HashSet::new();
        let uploaded = |root: &&Descriptor| state.put_of(root) == Some(Put::Copied) && confirmed.insert(root.digest);
        let unsure = unpublished.roots().filter(uploaded);
        let confirm = unsure.map(|root| state.sink.confirm(root));
        stream::iter(confirm).buffered(MAX_PARALLEL_READS).boxed().try_collect::<()>().await?;
        if self.mode == Mode::Copy { unpublished.publish().await } else { Ok(()) }
    }
}

fn roots_of(pending: &[PendingRoot]) -> Vec<&Root> {
    pending.iter().map(|pending| &pending.root).collect()
}
