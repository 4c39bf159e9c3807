use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_spec::{Descriptor, Digest, Repository};
use tokio::task::JoinSet;

use crate::body::Body;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::graph::Graph;
use crate::root::Root;
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source};

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// How many blobs are put at the same time, at least one.
    pub jobs: usize,
    /// The names that the root gets, in this order, once everything is there. Without one it becomes visible without a
    /// name, where the place has such a thing.
    pub names: Vec<Naming>,
    /// Whoever wants to see progress.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for CopyOptions {
    /// Four at a time, no name, nobody watching.
    fn default() -> CopyOptions {
        CopyOptions { jobs: 4, names: Vec::new(), observer: None }
    }
}

/// What a copy did.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The root, whose digest is the same on both sides.
    pub root: Descriptor,
    /// What became of each blob and document, in the order in which they were planned; empty if the target said at
    /// once that everything was there.
    pub blobs: Vec<(Descriptor, Put)>,
}

impl Copied {
    /// How many blobs and documents it took this for, and how many bytes they have.
    pub fn count(&self, put: Put) -> (usize, u64) {
        let found = self.blobs.iter().filter(|(_, outcome)| *outcome == put);
        found.fold((0, 0), |(count, bytes), (blob, _)| (count + 1, bytes + blob.size))
    }
}

/// Copies a root and everything below it: each digest once, many at a time, children before their parents, names last.
///
/// If it fails nothing is visible that was not before; if its future is dropped it stops.
///
/// # Errors
///
/// The first one met, from either side; its place says which.
pub async fn copy(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Copied> {
    let unnamed = [Naming::default()];
    let names = if options.names.is_empty() { &unnamed } else { &options.names[..] };
    let root = from.descriptor().clone();
    if is_complete(&root, to, names).await? {
        return Ok(Copied { root, blobs: Vec::new() });
    }
    let graph = Graph::of(from).await?;
    let plan: Vec<_> = graph.in_order().cloned().collect();
    let tell = Teller(options.observer.clone());
    tell.event(Event::Planned { blobs: plan.len(), bytes: plan.iter().map(|blob| blob.size).sum() });
    to.expect(&plan).await?;

    let source: Arc<dyn Source> = match &options.observer {
        Some(observer) => Arc::new(Observed { source: from.source().clone(), observer: observer.clone() }),
        None => from.source().clone(),
    };
    let mut blobs = Vec::with_capacity(plan.len());
    for stage in [&graph.blobs].into_iter().chain(&graph.documents) {
        blobs.extend(put_all(stage, &source, to, options.jobs, &tell).await?);
    }
    for naming in names {
        to.publish(&root, naming).await?;
        tell.event(Event::Published { root: &root, tag: naming.tag.as_ref() });
    }
    to.finish().await?;
    Ok(Copied { root, blobs })
}

/// Whether the target says that there is nothing to do.
async fn is_complete(root: &Descriptor, to: &Arc<dyn Sink>, names: &[Naming]) -> Result<bool> {
    for naming in names {
        if !to.is_complete(root, naming).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts blobs that do not depend on each other, begun in their order.
async fn put_all(
    blobs: &[Descriptor],
    source: &Arc<dyn Source>,
    to: &Arc<dyn Sink>,
    jobs: usize,
    tell: &Teller,
) -> Result<Vec<(Descriptor, Put)>> {
    let mut running = JoinSet::new();
    let mut waiting = blobs.iter().enumerate();
    let mut done = vec![None; blobs.len()];
    loop {
        while running.len() < jobs.max(1)
            && let Some((position, blob)) = waiting.next()
        {
            let (source, to, blob, tell) = (source.clone(), to.clone(), blob.clone(), tell.clone());
            running.spawn(async move {
                tell.event(Event::Started { blob: &blob });
                let put = to.put(&blob, &*source).await?;
                tell.event(Event::Finished { blob: &blob, put });
                Ok::<_, Error>((position, put))
            });
        }
        match running.join_next().await {
            // Dropping the set stops the others.
            Some(Ok(finished)) => {
                let (position, put) = finished?;
                done[position] = Some(put);
            }
            Some(Err(failure)) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    return Err(Error::failed("copy to", to, std::io::Error::other("the runtime is shutting down")));
                }
            },
            None => break,
        }
    }
    Ok(blobs.iter().cloned().zip(done.into_iter().flatten()).collect())
}

#[derive(Clone)]
struct Teller(Option<Arc<dyn Observer>>);

impl Teller {
    fn event(&self, event: Event<'_>) {
        if let Some(observer) = &self.0 {
            observer.event(event);
        }
    }
}

/// A source that tells how many of its bytes were read.
#[derive(Debug)]
struct Observed {
    source: Arc<dyn Source>,
    observer: Arc<dyn Observer>,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

#[async_trait]
impl Source for Observed {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.source.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let body = self.source.open_unverified(descriptor, range).await?;
        let (observer, blob, mut offset) = (self.observer.clone(), descriptor.clone(), range.offset);
        Ok(body.watched(move |bytes| {
            observer.event(Event::Read { blob: &blob, offset, bytes });
            offset += bytes;
        }))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.source.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.source.referrers(subject).await
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        self.source.repository(descriptor)
    }
}
