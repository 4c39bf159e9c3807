use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{Either, join_all, select};
use ocikit_spec::{Descriptor, Digest};

use super::channel::{Channel, LaneSource};
use super::lane::{TargetState, any_left, by_registry};
use super::pace::Pace;
use super::per_target::PerTarget;
use crate::body::Body;
use crate::error::{Error, Result};
use crate::read_once::ReadOnce;
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source};

/// Several targets as one sink, for blobs that can be read only once, such as those of a pipe. Each chunk goes to all
/// of them, at the speed of the slowest. A target that fails does not stop the others.
///
/// It accepts blobs only. The documents are then copied to each target.
#[derive(Debug)]
pub struct Tee {
    targets: Vec<Arc<TargetState>>,
    /// The targets by registry, because blobs are mounted between its repositories.
    lanes: Vec<Vec<Arc<TargetState>>>,
}

impl Tee {
    /// Creates a sink for these targets.
    pub fn new(sinks: Vec<Arc<dyn Sink>>) -> Tee {
        let targets: Vec<_> = sinks.iter().map(TargetState::new).collect();
        let lanes = by_registry(targets.iter().cloned(), |target| &target.sink);
        Tee { targets, lanes }
    }

    /// Returns the outcome of each blob so far, or the error, for each target.
    ///
    /// # Errors
    ///
    /// Those of the targets, each in its own result.
    pub fn outcomes(&self) -> PerTarget<HashMap<Digest, Put>> {
        self.targets.iter().map(|target| target.puts()).collect()
    }
}

/// Copies a blob to the targets of one lane: the first that does not fail reads it, and it is mounted into the others.
async fn put_to_lane(lane: &[Arc<TargetState>], from: &LaneSource, blob: &Descriptor) -> Vec<Put> {
    let mut puts = Vec::new();
    let mut first: Option<&Arc<dyn Sink>> = None;
    for target in lane.iter().filter(|target| !target.has_failed()) {
        let put = match first {
            None => target.sink.put(blob, from).await,
            Some(first) => target.sink.put(blob, &**first).await,
        };
        match put {
            Ok(put) => {
                target.record(blob, put);
                first.get_or_insert(&target.sink);
                from.channel.leave(from.lane);
                puts.push(put);
            }
            Err(error) => target.fail(error),
        }
    }
    from.channel.leave(from.lane);
    puts
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, target) in self.targets.iter().enumerate() {
            write!(f, "{}{}", if position == 0 { "" } else { ", " }, target.sink)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Tee {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, _: ByteRange) -> Result<Body> {
        Err(Error::not_found(descriptor.digest, self))
    }

    async fn has(&self, _: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Sink for Tee {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        let live: Vec<_> = self.lanes.iter().filter(|lane| any_left(lane).is_ok()).collect();
        let pace = Arc::new(Pace::new(live.len(), None, usize::MAX));
        let channel = Channel::new(descriptor, live.len(), &pace);
        let once: Arc<dyn Source> = Arc::new(ReadOnce::read(from.to_string(), descriptor.digest));
        let lanes = live.iter().enumerate().map(|(number, lane)| {
            let shared = LaneSource { channel: channel.clone(), lane: number, source: once.clone(), reader: None };
            async move { put_to_lane(lane, &shared, descriptor).await }
        });
        let (puts, fill) = (std::pin::pin!(join_all(lanes)), std::pin::pin!(channel.fill(from)));
        let puts = match select(puts, fill).await {
            Either::Left((puts, _)) => puts,
            Either::Right(((), puts)) => puts.await,
        };
        let puts: Vec<_> = puts.into_iter().flatten().collect();
        match puts.iter().find(|put| **put != Put::Present).or(puts.first()) {
            Some(put) => Ok(*put),
            // If the source fails, all targets have its error.
            None => self.targets.iter().try_for_each(|target| target.puts().map(drop)).map(|()| Put::Present),
        }
    }

    async fn publish(&self, root: &Descriptor, _: &Naming) -> Result<()> {
        let what = format!("{} gets its name in each of them by itself", root.digest);
        Err(Error::Unsupported { place: self.to_string(), what })
    }
}
