use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{FutureExt, join_all};
use ocikit_spec::{Descriptor, MediaType, Registry};
use tokio::task::JoinSet;

use super::channel::{BlobReader, Channel, LaneSource};
use super::pace::Pace;
use super::{MAX_TARGET_DELAY, Outcome};
use crate::copy::{Observed, Progress, complete};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::Node;
use crate::merge::PendingRoot;
use crate::source::{Naming, Put, Sink, Source};

/// A target of a lane.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) sink: Arc<dyn Sink>,
    /// The names to give to the root; empty if the target already has it under them.
    pub(super) names: Vec<Naming>,
}

/// Targets with their positions that follow the plan together: each blob goes to one after the other.
#[derive(Debug)]
pub(super) struct Lane(Vec<(usize, Member)>);

impl Lane {
    /// Groups the targets by registry: a blob that was uploaded to the first repository is mounted into the others.
    pub(super) fn sort(members: Vec<Member>) -> Vec<Lane> {
        by_registry(members.into_iter().enumerate(), |(_, member)| &member.sink).into_iter().map(Lane).collect()
    }
}

/// Groups items by registry; an item that goes elsewhere forms its own group.
pub(super) fn by_registry<T>(targets: impl IntoIterator<Item = T>, sink: impl Fn(&T) -> &Arc<dyn Sink>) -> Vec<Vec<T>> {
    // A registry target states its repository only for blobs, which can be mounted, and for any blob.
    let nothing = Descriptor::of(MediaType::OCTET_STREAM, b"");
    let mut lanes: Vec<(Option<Registry>, Vec<T>)> = Vec::new();
    for target in targets {
        let registry = sink(&target).repository(&nothing).map(|repository| repository.registry().clone());
        match lanes.iter_mut().find(|(found, _)| found.is_some() && *found == registry) {
            Some((_, lane)) => lane.push(target),
            None => lanes.push((registry, vec![target])),
        }
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

/// The plan that all lanes follow.
struct FanOutPlan<'a> {
    stages: &'a [&'a [Node]],
    plan: &'a [Descriptor],
    pending_referrers: &'a [PendingRoot],
    root: &'a Descriptor,
    /// One for each blob, if there are several lanes.
    channels: Vec<(Arc<Channel>, Arc<BlobReader>)>,
    pace: Arc<Pace>,
    jobs: usize,
    progress: &'a Progress,
}

/// Copies the plan to all lanes and returns the outcome for each target.
pub(super) async fn run(
    lanes: &[Lane],
    stages: &[&[Node]],
    plan: &[Descriptor],
    pending_referrers: &[PendingRoot],
    root: &Descriptor,
    jobs: usize,
    progress: &Progress,
) -> Vec<Outcome> {
    let jobs = jobs.max(1);
    let pace = Arc::new(Pace::new(lanes.len(), Some(MAX_TARGET_DELAY), jobs.saturating_mul(2)));
    let channel = |blob| (Channel::new(blob, lanes.len(), &pace), Arc::new(BlobReader::default()));
    let channels = if lanes.len() > 1 { plan.iter().map(channel).collect() } else { Vec::new() };
    let shared_plan = FanOutPlan { stages, plan, pending_referrers, root, channels, pace, jobs, progress };
    let done = join_all(lanes.iter().enumerate().map(|(number, lane)| lane.run(number, &shared_plan))).boxed().await;
    let mut outcomes: Vec<_> = done.into_iter().flatten().collect();
    outcomes.sort_by_key(|(position, _)| *position);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// A target and its first error.
#[derive(Debug)]
struct TargetState {
    sink: Arc<dyn Sink>,
    failed: Mutex<Option<Error>>,
}

impl TargetState {
    fn fail(&self, error: Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

type Running = JoinSet<(usize, Vec<Option<Put>>)>;

impl Lane {
    async fn run(&self, number: usize, shared_plan: &FanOutPlan<'_>) -> Vec<(usize, Outcome)> {
        let state = |(_, member): &(usize, Member)| TargetState { sink: member.sink.clone(), failed: Mutex::default() };
        let states: Arc<[TargetState]> = self.0.iter().map(state).collect();
        for state in states.iter() {
            if let Err(error) = state.sink.expect(shared_plan.plan).await {
                state.fail(error);
            }
        }
        let mut puts = vec![vec![None; shared_plan.plan.len()]; states.len()];
        let mut running = JoinSet::new();
        let mut first = 0;
        for stage in shared_plan.stages {
            put_stage(&mut running, stage, first, number, &states, shared_plan, &mut puts).await;
            first += stage.len();
        }
        running.shutdown().await;
        shared_plan.pace.over(number);
        for (channel, _) in &shared_plan.channels {
            channel.leave(number);
        }
        let done = self.0.iter().zip(states.iter()).zip(puts);
        let done = done.map(|(((position, member), state), puts)| async move {
            (*position, finish(member, state, puts, shared_plan).await)
        });
        join_all(done).boxed().await
    }
}

/// Copies nodes that do not depend on each other, started in their order.
async fn put_stage(
    running: &mut Running,
    stage: &[Node],
    first: usize,
    lane: usize,
    states: &Arc<[TargetState]>,
    shared_plan: &FanOutPlan<'_>,
    puts: &mut [Vec<Option<Put>>],
) {
    let mut waiting = stage.iter().enumerate();
    while !states.iter().all(TargetState::has_failed) {
        while running.len() < shared_plan.jobs
            && let Some((offset, node)) = waiting.next()
        {
            let number = first + offset;
            let channel = shared_plan.channels.get(number).cloned();
            let (states, pace, progress, node) =
                (states.clone(), shared_plan.pace.clone(), shared_plan.progress.clone(), node.clone());
            running.spawn(async move {
                pace.turn(lane, number).await;
                let outcome = put_to_all(&node, channel.as_ref(), lane, &states, &progress).await;
                pace.finished(lane);
                (number, outcome)
            });
        }
        match running.join_next().await {
            Some(Ok((number, outcome))) => {
                for (state, put) in outcome.into_iter().enumerate() {
                    puts[state][number] = put;
                }
            }
            Some(Err(failure)) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    let stopping = || std::io::Error::other("the runtime is shutting down");
                    states.iter().for_each(|state| state.fail(Error::failed("copy to", &state.sink, stopping())));
                }
            },
            None => return,
        }
    }
}

/// Copies a blob to the targets of one lane, one after the other.
async fn put_to_all(
    node: &Node,
    channel: Option<&(Arc<Channel>, Arc<BlobReader>)>,
    lane: usize,
    states: &[TargetState],
    progress: &Progress,
) -> Vec<Option<Put>> {
    let blob = &node.descriptor;
    let source: Arc<dyn Source> = match &progress.0 {
        Some(observer) => Arc::new(Observed { source: node.source.clone(), observer: observer.clone() }),
        None => node.source.clone(),
    };
    let from: Arc<dyn Source> = match channel {
        Some((channel, reader)) => {
            Arc::new(LaneSource { channel: channel.clone(), lane, source, reader: Some(reader.clone()) })
        }
        None => source,
    };
    let mut puts = Vec::new();
    for state in states {
        if state.has_failed() {
            puts.push(None);
            continue;
        }
        progress.event(Event::Started { blob });
        puts.push(match state.sink.put(blob, &*from).await {
            Ok(put) => {
                progress.event(Event::Finished { blob, put });
                if let Some((channel, _)) = channel {
                    channel.leave(lane);
                }
                Some(put)
            }
            Err(error) => {
                state.fail(error);
                None
            }
        });
    }
    if let Some((channel, _)) = channel {
        channel.leave(lane);
    }
    puts
}

/// Publishes the roots at a target.
async fn finish(member: &Member, state: &TargetState, puts: Vec<Option<Put>>, shared_plan: &FanOutPlan<'_>) -> Outcome {
    if let Some(error) = state.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    let blobs: Vec<_> =
        shared_plan.plan.iter().zip(puts).filter_map(|(blob, put)| Some((blob.clone(), put?))).collect();
    let pending_referrers = shared_plan
        .pending_referrers
        .iter()
        .map(|pending_referrers| (pending_referrers.root.descriptor(), &pending_referrers.names[..]))
        .collect();
    let root = (!member.names.is_empty()).then_some((shared_plan.root, &member.names[..])).into_iter().collect();
    let named = [pending_referrers, root];
    let result: Result<()> = complete(&member.sink, &named, &blobs, shared_plan.progress).await;
    result.map(|()| blobs)
}
