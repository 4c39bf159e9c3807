use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{FutureExt, join_all};
use ocikit_spec::{Descriptor, MediaType, Registry};
use tokio::task::JoinSet;

use super::channel::{Channel, Filling, Shared};
use super::pace::Pace;
use super::{Outcome, PATIENCE};
use crate::copy::{Observed, Teller, complete};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::Node;
use crate::merge::Wanting;
use crate::source::{Naming, Put, Sink, Source};

/// One of the targets.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) sink: Arc<dyn Sink>,
    /// The names that the root gets, none if it has them.
    pub(super) names: Vec<Naming>,
}

/// Targets that go through the plan together, one behind the other with every blob, each with its position.
#[derive(Debug)]
pub(super) struct Lane(Vec<(usize, Member)>);

impl Lane {
    /// Repositories of the same registry come together: what the first was sent the others take over from it.
    pub(super) fn sort(members: Vec<Member>) -> Vec<Lane> {
        by_registry(members.into_iter().enumerate(), |(_, member)| &member.sink).into_iter().map(Lane).collect()
    }
}

/// Puts together what goes to the same registry; what goes elsewhere stays alone.
pub(super) fn by_registry<T>(targets: impl IntoIterator<Item = T>, sink: impl Fn(&T) -> &Arc<dyn Sink>) -> Vec<Vec<T>> {
    // Of a document registries do not say that they have it, and of no blob whether.
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

/// What all lanes go through.
struct Course<'a> {
    stages: &'a [&'a [Node]],
    plan: &'a [Descriptor],
    along: &'a [Wanting],
    root: &'a Descriptor,
    /// One for each blob, where there are several lanes.
    channels: Vec<(Arc<Channel>, Arc<Filling>)>,
    pace: Arc<Pace>,
    jobs: usize,
    tell: &'a Teller,
}

/// Takes all lanes through the plan, and says what became of each target.
pub(super) async fn run(
    lanes: &[Lane],
    stages: &[&[Node]],
    plan: &[Descriptor],
    along: &[Wanting],
    root: &Descriptor,
    jobs: usize,
    tell: &Teller,
) -> Vec<Outcome> {
    let jobs = jobs.max(1);
    let pace = Arc::new(Pace::new(lanes.len(), Some(PATIENCE), jobs.saturating_mul(2)));
    let channel = |blob| (Channel::new(blob, lanes.len(), &pace), Arc::new(Filling::default()));
    let channels = if lanes.len() > 1 { plan.iter().map(channel).collect() } else { Vec::new() };
    let course = Course { stages, plan, along, root, channels, pace, jobs, tell };
    let done = join_all(lanes.iter().enumerate().map(|(number, lane)| lane.run(number, &course))).boxed().await;
    let mut outcomes: Vec<_> = done.into_iter().flatten().collect();
    outcomes.sort_by_key(|(position, _)| *position);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// A target, and the first thing that went wrong with it.
#[derive(Debug)]
struct Runner {
    sink: Arc<dyn Sink>,
    failed: Mutex<Option<Error>>,
}

impl Runner {
    fn fail(&self, error: Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

type Running = JoinSet<(usize, Vec<Option<Put>>)>;

impl Lane {
    async fn run(&self, number: usize, course: &Course<'_>) -> Vec<(usize, Outcome)> {
        let runner = |(_, member): &(usize, Member)| Runner { sink: member.sink.clone(), failed: Mutex::default() };
        let runners: Arc<[Runner]> = self.0.iter().map(runner).collect();
        for runner in runners.iter() {
            if let Err(error) = runner.sink.expect(course.plan).await {
                runner.fail(error);
            }
        }
        let mut puts = vec![vec![None; course.plan.len()]; runners.len()];
        let mut running = JoinSet::new();
        let mut first = 0;
        for stage in course.stages {
            put_stage(&mut running, stage, first, number, &runners, course, &mut puts).await;
            first += stage.len();
        }
        running.shutdown().await;
        course.pace.over(number);
        for (channel, _) in &course.channels {
            channel.leave(number);
        }
        let done = self.0.iter().zip(runners.iter()).zip(puts);
        let done = done.map(|(((position, member), runner), puts)| async move {
            (*position, finish(member, runner, puts, course).await)
        });
        join_all(done).boxed().await
    }
}

/// Puts what does not depend on each other, begun in its order.
async fn put_stage(
    running: &mut Running,
    stage: &[Node],
    first: usize,
    lane: usize,
    runners: &Arc<[Runner]>,
    course: &Course<'_>,
    puts: &mut [Vec<Option<Put>>],
) {
    let mut waiting = stage.iter().enumerate();
    while !runners.iter().all(Runner::has_failed) {
        while running.len() < course.jobs
            && let Some((offset, node)) = waiting.next()
        {
            let number = first + offset;
            let channel = course.channels.get(number).cloned();
            let (runners, pace, tell, node) = (runners.clone(), course.pace.clone(), course.tell.clone(), node.clone());
            running.spawn(async move {
                pace.turn(lane, number).await;
                let outcome = put_to_all(&node, channel.as_ref(), lane, &runners, &tell).await;
                pace.finished(lane);
                (number, outcome)
            });
        }
        match running.join_next().await {
            Some(Ok((number, outcome))) => {
                for (runner, put) in outcome.into_iter().enumerate() {
                    puts[runner][number] = put;
                }
            }
            Some(Err(failure)) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    let stopping = || std::io::Error::other("the runtime is shutting down");
                    runners.iter().for_each(|runner| runner.fail(Error::failed("copy to", &runner.sink, stopping())));
                }
            },
            None => return,
        }
    }
}

/// Puts a blob to the targets of one lane, one after the other.
async fn put_to_all(
    node: &Node,
    channel: Option<&(Arc<Channel>, Arc<Filling>)>,
    lane: usize,
    runners: &[Runner],
    tell: &Teller,
) -> Vec<Option<Put>> {
    let blob = &node.descriptor;
    let source: Arc<dyn Source> = match &tell.0 {
        Some(observer) => Arc::new(Observed { source: node.source.clone(), observer: observer.clone() }),
        None => node.source.clone(),
    };
    let from: Arc<dyn Source> = match channel {
        Some((channel, filling)) => {
            Arc::new(Shared { channel: channel.clone(), lane, source, filling: Some(filling.clone()) })
        }
        None => source,
    };
    let mut puts = Vec::new();
    for runner in runners {
        if runner.has_failed() {
            puts.push(None);
            continue;
        }
        tell.event(Event::Started { blob });
        puts.push(match runner.sink.put(blob, &*from).await {
            Ok(put) => {
                tell.event(Event::Finished { blob, put });
                if let Some((channel, _)) = channel {
                    channel.leave(lane);
                }
                Some(put)
            }
            Err(error) => {
                runner.fail(error);
                None
            }
        });
    }
    if let Some((channel, _)) = channel {
        channel.leave(lane);
    }
    puts
}

/// Makes what was put to a target visible there.
async fn finish(member: &Member, runner: &Runner, puts: Vec<Option<Put>>, course: &Course<'_>) -> Outcome {
    if let Some(error) = runner.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    let blobs: Vec<_> = course.plan.iter().zip(puts).filter_map(|(blob, put)| Some((blob.clone(), put?))).collect();
    let along = course.along.iter().map(|along| (along.root.descriptor(), &along.names[..])).collect();
    let root = (!member.names.is_empty()).then_some((course.root, &member.names[..])).into_iter().collect();
    let named = [along, root];
    let result: Result<()> = complete(&member.sink, &named, &blobs, course.tell).await;
    result.map(|()| blobs)
}
