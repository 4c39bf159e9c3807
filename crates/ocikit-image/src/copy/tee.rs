use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::future::{Either, join_all, select};
use ocikit_spec::{Descriptor, Digest};

use super::channel::{Channel, LaneSource};
use super::lane::by_registry;
use super::pace::Pace;
use super::per_target::PerTarget;
use crate::body::Body;
use crate::error::{Error, Result};
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source};

/// Several targets as one sink, for blobs that can be read only once, such as those of a pipe. Each chunk goes to all
/// of them, at the speed of the slowest. A target that fails does not stop the others.
///
/// It accepts blobs only. The documents are then copied to each target.
#[derive(Debug)]
pub struct Tee {
    sinks: Vec<Arc<dyn Sink>>,
    /// Positions of the targets in the same registry, where blobs are mounted between repositories.
    lanes: Vec<Vec<usize>>,
    outcomes: Mutex<Vec<SoFar>>,
}

/// The outcome of each blob at a target, or its error.
type SoFar = Result<HashMap<Digest, Put>, Arc<Error>>;

impl Tee {
    /// Creates a sink for these targets.
    pub fn new(sinks: Vec<Arc<dyn Sink>>) -> Tee {
        let lanes = by_registry(sinks.iter().enumerate(), |(_, sink)| sink);
        let lanes = lanes.into_iter().map(|lane| lane.into_iter().map(|(position, _)| position).collect()).collect();
        let outcomes = Mutex::new(sinks.iter().map(|_| Ok(HashMap::new())).collect());
        Tee { sinks, lanes, outcomes }
    }

    /// Returns the outcome of each blob so far, or the error, for each target.
    ///
    /// # Errors
    ///
    /// Those of the targets, each in its own result.
    pub fn outcomes(&self) -> PerTarget<HashMap<Digest, Put>> {
        self.lock().iter().map(|outcome| outcome.clone().map_err(|error| Error::again(&error))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SoFar>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self, position: usize) -> bool {
        self.lock()[position].is_ok()
    }

    fn note(&self, position: usize, digest: Digest, outcome: Result<Put>) -> Option<Put> {
        let noted = &mut self.lock()[position];
        match (noted.as_mut(), outcome) {
            (Ok(puts), Ok(put)) => {
                puts.insert(digest, put);
                return Some(put);
            }
            (Ok(_), Err(error)) => *noted = Err(Arc::new(error)),
            (Err(_), _) => {}
        }
        None
    }

    /// Copies a blob to the targets of one lane: the first that does not fail reads it, and it is mounted into the
    /// others.
    async fn put_to_lane(&self, lane: &[usize], from: &LaneSource, blob: &Descriptor) -> Vec<Put> {
        let mut puts = Vec::new();
        let mut first: Option<usize> = None;
        for position in lane.iter().copied().filter(|position| self.is_live(*position)) {
            let sink = &self.sinks[position];
            let put = match first {
                None => sink.put(blob, from).await,
                Some(first) => sink.put(blob, &*self.sinks[first]).await,
            };
            if let Some(put) = self.note(position, blob.digest, put) {
                first.get_or_insert(position);
                from.channel.leave(from.lane);
                puts.push(put);
            }
        }
        from.channel.leave(from.lane);
        puts
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, sink) in self.sinks.iter().enumerate() {
            write!(f, "{}{sink}", if position == 0 { "" } else { ", " })?;
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
        let live: Vec<_> =
            self.lanes.iter().filter(|lane| lane.iter().any(|position| self.is_live(*position))).collect();
        let pace = Arc::new(Pace::new(live.len(), None, usize::MAX));
        let channel = Channel::new(descriptor, live.len(), &pace);
        let once: Arc<dyn Source> = Arc::new(Gone { place: from.to_string() });
        let lanes = live.iter().enumerate().map(|(number, lane)| {
            let shared = LaneSource { channel: channel.clone(), lane: number, source: once.clone(), reader: None };
            async move { self.put_to_lane(lane, &shared, descriptor).await }
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
            None => match self.lock().iter().find_map(|outcome| outcome.as_ref().err()) {
                Some(error) => Err(Error::again(error)),
                None => Ok(Put::Present),
            },
        }
    }

    async fn publish(&self, root: &Descriptor, _: &Naming) -> Result<()> {
        let what = format!("{} gets its name in each of them by itself", root.digest);
        Err(Error::Unsupported { place: self.to_string(), what })
    }
}

/// A source after the end of the pipe that it was read from.
#[derive(Debug)]
struct Gone {
    place: String,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

#[async_trait]
impl Source for Gone {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, _: ByteRange) -> Result<Body> {
        let what = format!("{} was read from a pipe, which can be read only once", descriptor.digest);
        Err(Error::Unsupported { place: self.place.clone(), what })
    }

    async fn has(&self, _: &Descriptor) -> Result<bool> {
        Ok(true)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
