use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join;
use ocikit_spec::{Descriptor, Digest, MediaType, Registry};

use super::channel::{BlobReader, Channel, LaneSource};
use super::pace::Pace;
use crate::error::{Error, Result};
use crate::event::{Event, Progress};
use crate::graph::{Graph, Node};
use crate::merge::PendingRoot;
use crate::source::{Put, Sink, Source};
use crate::tasks::{RuntimeStopped, Tasks};

/// The total time for which a target may delay the others. After that it reads from the source by itself.
pub(super) const MAX_TARGET_DELAY: Duration = Duration::from_secs(10);

/// The size in bytes below which the latency of a blob matters more than its bandwidth, so that it may exceed the limit
/// of `jobs`.
const SMALL_BLOB_BYTES: u64 = 64 << 10;

/// What a run does with each blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Copy,
    /// Only queries whether the target has the blob; one that it lacks counts as [`Put::Copied`].
    DryRun,
}

/// A target, and its outcome so far.
#[derive(Debug)]
pub(super) struct TargetState {
    pub(super) sink: Arc<dyn Sink>,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default)]
struct Outcome {
    puts: HashMap<Digest, Put>,
    /// The first error.
    failed: Option<Arc<Error>>,
}

impl TargetState {
    pub(super) fn new(sink: &Arc<dyn Sink>) -> Arc<TargetState> {
        Arc::new(TargetState { sink: sink.clone(), outcome: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, error: impl Into<Arc<Error>>) {
        self.lock().failed.get_or_insert(error.into());
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    /// Returns the error of a target that failed, or whose tasks ended with the runtime.
    pub(super) fn error(&self) -> Error {
        let failed = self.lock().failed.take().unwrap_or_else(|| Arc::new(RuntimeStopped.into()));
        Arc::try_unwrap(failed).unwrap_or_else(|error| Error::again(&error))
    }

    pub(super) fn record(&self, blob: &Descriptor, put: Put) {
        self.lock().puts.insert(blob.digest, put);
    }

    /// Returns the outcome of a blob or document, if it is stored.
    pub(super) fn put_of(&self, blob: &Descriptor) -> Option<Put> {
        self.lock().puts.get(&blob.digest).copied()
    }

    /// Returns the outcome of every blob so far.
    ///
    /// # Errors
    ///
    /// That of the target.
    pub(super) fn puts(&self) -> Result<HashMap<Digest, Put>> {
        let Outcome { puts, failed } = &*self.lock();
        failed.as_ref().map_or_else(|| Ok(puts.clone()), |error| Err(Error::again(error)))
    }
}

/// Records an error of all targets.
pub(super) fn fail_all<'a>(states: impl IntoIterator<Item = &'a Arc<TargetState>>, error: Error) {
    let error = Arc::new(error);
    states.into_iter().for_each(|state| state.fail(error.clone()));
}

/// Why targets need no further blob: each of them has failed, or the runtime is shutting down.
#[derive(Debug)]
pub(super) struct AllFailed;

impl From<RuntimeStopped> for AllFailed {
    fn from(_: RuntimeStopped) -> AllFailed {
        AllFailed
    }
}

/// Fails if all targets have failed.
pub(super) fn any_left(states: &[Arc<TargetState>]) -> Result<(), AllFailed> {
    if states.iter().all(|state| state.has_failed()) { Err(AllFailed) } else { Ok(()) }
}

/// Targets that follow a plan together: each blob goes to one after the other. `M` identifies them.
#[derive(Debug)]
pub(super) struct Lane<M> {
    pub(super) members: Vec<M>,
    pub(super) states: Arc<[Arc<TargetState>]>,
}

impl<M> Lane<M> {
    /// Groups targets by registry: a blob that was uploaded to the first repository is mounted into the others.
    pub(super) fn sort(members: Vec<M>, state: impl Fn(&M) -> &Arc<TargetState>) -> Vec<Lane<M>> {
        let states = |members: &[M]| members.iter().map(|member| state(member).clone()).collect();
        let lanes = by_registry(members, |member| &state(member).sink).into_iter();
        lanes.map(|members| Lane { states: states(&members), members }).collect()
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

/// What targets lack, in stages that lanes go through independently of each other.
#[derive(Debug)]
pub(super) struct FanOutPlan {
    graph: Graph,
    /// The position of the requested root that each root of the graph is, or that it refers to.
    positions: Vec<usize>,
    /// One for each node, if several lanes follow the plan.
    channels: Vec<SharedBlob>,
}

/// A blob that is read once for several lanes.
#[derive(Debug, Clone)]
struct SharedBlob {
    channel: Arc<Channel>,
    reader: Arc<BlobReader>,
}

impl FanOutPlan {
    /// Creates the plan for the lanes that follow it.
    pub(super) fn new(graph: Graph, pending: &[PendingRoot], pace: &Arc<Pace>, follows: &[bool]) -> FanOutPlan {
        let shared = |node: &Node| {
            let channel = Channel::new(&node.descriptor, follows.len(), pace);
            let others = follows.iter().enumerate().filter(|(_, follows)| !**follows);
            others.for_each(|(lane, _)| channel.leave(lane));
            SharedBlob { channel, reader: Arc::default() }
        };
        let has_several = follows.iter().filter(|follows| **follows).count() > 1;
        let channels = graph.stages().flatten().filter(|_| has_several).map(shared).collect();
        FanOutPlan { positions: pending.iter().map(|pending| pending.position).collect(), channels, graph }
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the blobs and documents in the order of the copy, each with the position of the root that led to it.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        self.graph.stages().flatten().map(|node| (self.positions[node.root], &node.descriptor))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// The passage of a lane through its plans.
pub(super) struct LaneRun<'a> {
    pub(super) number: usize,
    pub(super) pace: Arc<Pace>,
    pub(super) jobs: usize,
    pub(super) mode: Mode,
    pub(super) progress: &'a Progress,
}

impl LaneRun<'_> {
    /// Copies everything in a plan to targets of the lane, and runs another future meanwhile.
    ///
    /// # Errors
    ///
    /// If all targets have failed, each with its error. The tasks have released their resources then, and no other lane
    /// waits for this one.
    pub(super) async fn put_plan(
        &self,
        plan: &FanOutPlan,
        states: &Arc<[Arc<TargetState>]>,
        meanwhile: impl Future<Output = Result<(), AllFailed>>,
    ) -> Result<(), AllFailed> {
        let mut tasks = Tasks::new();
        let outcome = try_join(self.put_stages(&mut tasks, plan, states), meanwhile).await;
        tasks.stop().await;
        plan.channels.iter().for_each(|shared| shared.channel.leave(self.number));
        if outcome.is_err() {
            // Keeps the first error of a target; only the end of the runtime leaves some without one.
            fail_all(states.iter(), RuntimeStopped.into());
        }
        outcome.map(|_| ())
    }

    async fn put_stages(
        &self,
        tasks: &mut Tasks<(), AllFailed>,
        plan: &FanOutPlan,
        states: &Arc<[Arc<TargetState>]>,
    ) -> Result<(), AllFailed> {
        if self.mode == Mode::Copy && !plan.is_empty() {
            for state in states.iter().filter(|state| !state.has_failed()) {
                // What is in the repository already is not put, so that it need not be looked for.
                let nodes = plan.graph.stages().flatten().filter(|node| {
                    let target = state.sink.repository(&node.descriptor);
                    target.is_none() || node.source.repository(&node.descriptor) != target
                });
                let expected: Vec<_> = nodes.map(|node| node.descriptor.clone()).collect();
                if let Err(error) = state.sink.expect(&expected).await {
                    state.fail(error);
                }
            }
        }
        any_left(states)?;
        let mut shared = plan.channels.iter().cloned();
        let stages: Vec<Vec<&Node>> = match self.mode {
            Mode::Copy => plan.graph.stages().map(|stage| stage.iter().collect()).collect(),
            // A query does not depend on the others.
            Mode::DryRun => vec![plan.graph.stages().flatten().collect()],
        };
        for stage in stages {
            let is_small = |node: &&Node| self.mode == Mode::Copy && node.descriptor.size < SMALL_BLOB_BYTES;
            tasks.run(stage, self.jobs, is_small, |node| self.put(node, shared.next(), states)).await?;
        }
        Ok(())
    }

    /// Returns the task that copies a blob or document to targets of the lane, one after the other.
    fn put(
        &self,
        node: &Node,
        shared: Option<SharedBlob>,
        states: &Arc<[Arc<TargetState>]>,
    ) -> impl Future<Output = Result<(), AllFailed>> + Send + 'static {
        let LaneRun { number: lane, mode, .. } = *self;
        let (pace, progress, states) = (self.pace.clone(), self.progress.clone(), states.clone());
        let (blob, source, place) =
            (node.descriptor.clone(), self.progress.of_reads(&node.source), self.pace.start(lane));
        async move {
            pace.turn(lane, place).await;
            let leave = || shared.iter().for_each(|shared| shared.channel.leave(lane));
            let from: Arc<dyn Source> = match &shared {
                Some(SharedBlob { channel, reader }) => {
                    Arc::new(LaneSource { channel: channel.clone(), lane, source, reader: Some(reader.clone()) })
                }
                None => source,
            };
            for state in states.iter().filter(|state| !state.has_failed()) {
                if mode == Mode::DryRun {
                    match state.sink.has(&blob).await {
                        Ok(has) => state.record(&blob, if has { Put::Present } else { Put::Copied }),
                        Err(error) => state.fail(error),
                    }
                    continue;
                }
                progress.event(Event::Started { blob: &blob });
                match state.sink.put(&blob, &*from).await {
                    Ok(put) => {
                        progress.event(Event::Finished { blob: &blob, put });
                        state.record(&blob, put);
                        // The next target mounts the blob.
                        leave();
                    }
                    Err(error) => state.fail(error),
                }
            }
            leave();
            pace.finished(lane);
            any_left(&states)
        }
    }

    /// Ends the passage: no other lane waits for this one any more.
    pub(super) fn leave<'b>(&self, plans: impl Iterator<Item = &'b FanOutPlan>) {
        self.pace.over(self.number);
        plans.flat_map(|plan| &plan.channels).for_each(|shared| shared.channel.leave(self.number));
    }
}
