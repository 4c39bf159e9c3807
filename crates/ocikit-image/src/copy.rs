use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{ready, try_join};
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Descriptor, Digest, Platform, Repository, Tag};
use tokio::task::JoinSet;

use crate::body::Body;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::graph::{Graph, MAX_PARALLEL_READS, Node, add_size};
use crate::merge::{Comparing, KeptTag, PendingRoot, settle};
use crate::related::{Referrers, related};
use crate::root::Root;
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source};

/// Options of [`copy`] and [`copy_all`].
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The number of blobs that are copied in parallel, at least 1. Up to `jobs - 1` more small blobs run beside them.
    pub jobs: usize,
    /// The names to give to the root, in this order, after everything below it is stored. If there are none, the root
    /// is published without a name, in places that support that.
    pub names: Vec<Naming>,
    /// The referrers to copy with the image.
    pub referrers: Referrers,
    /// The platforms to copy from each index; all if empty. The index keeps its bytes and so lists manifests that are
    /// not copied, which some registries reject. [`select_platforms`](crate::select_platforms) creates an index without
    /// them.
    pub only: Vec<Platform>,
    /// Whether to check every blob even if the target already has the root under its name. A target that received only
    /// some platforms of an index has the index and lacks the other manifests.
    pub recheck: bool,
    /// Whether to leave tags of the target for signatures, attestations and lists of referrers unchanged (see
    /// [`ReferrerTag`](crate::ReferrerTag)). If false, the copied referrers are merged into them.
    pub keep_tags: bool,
    /// Whether to copy non-distributable layers that have `urls`.
    pub foreign_layers: bool,
    /// Receives progress events.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for CopyOptions {
    /// Returns 8 jobs, no names, no referrers, all platforms, no recheck, and no observer.
    fn default() -> CopyOptions {
        CopyOptions {
            jobs: 8,
            names: Vec::new(),
            referrers: Referrers::None,
            only: Vec::new(),
            recheck: false,
            keep_tags: false,
            foreign_layers: false,
            observer: None,
        }
    }
}

impl CopyOptions {
    pub(crate) fn comparing(&self) -> Comparing {
        // A target that received an image without its foreign layers reports the image as complete.
        let recheck = self.recheck || self.foreign_layers;
        Comparing { jobs: self.jobs, recheck, keep_tags: self.keep_tags }
    }
}

/// The result of a copy.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The root. Its digest is the same on both sides, unless it is the manifest of a referrer tag that was merged with
    /// the one of the target.
    pub root: Descriptor,
    /// Each blob and document with its outcome, in the order of the plan. Empty if the target already had the whole
    /// image.
    pub blobs: Vec<(Descriptor, Put)>,
    /// The referrers that were copied or already existed.
    pub referrers: Vec<Descriptor>,
    /// The referrer tags that were not copied, because that would have overwritten what the target has.
    pub kept: Vec<KeptTag>,
}

/// The result of a dry run.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The root.
    pub root: Descriptor,
    /// Each blob and document in the order of the copy, and whether the target already has it.
    pub blobs: Vec<(Descriptor, bool)>,
    /// The referrers that would be copied.
    pub referrers: Vec<Descriptor>,
    /// The referrer tags that would not be copied, because that would overwrite what the target has.
    pub kept: Vec<KeptTag>,
}

impl Copied {
    fn nothing(root: &Root) -> Copied {
        Copied { root: root.descriptor().clone(), blobs: Vec::new(), referrers: Vec::new(), kept: Vec::new() }
    }

    /// Returns the number of blobs and documents with this outcome, and their total size in bytes.
    pub fn count(&self, put: Put) -> (usize, u64) {
        let found = self.blobs.iter().filter(|(_, outcome)| *outcome == put);
        found.fold((0, 0), |(count, bytes), (blob, _)| (count + 1, add_size(bytes, blob)))
    }
}

/// Copies a root and everything below it, then its referrers. Each digest is copied once, up to
/// [`jobs`](CopyOptions::jobs) in parallel, children before their parents. A root that was uploaded is read back
/// ([`Sink::confirm`]) before it gets its names, which come last.
///
/// Signatures, attestations and lists of referrers that the target has under tags like `sha256-HEX.sig` are never lost:
/// the copied ones are merged into them. An SBOM under such a tag cannot be merged, because cosign reads it only if it
/// is the only layer; the target keeps its own, and [`Copied::kept`] reports that.
///
/// If the copy fails, no name has changed at the target. If its future is dropped, the copy stops; a step that already
/// runs on a thread or at the registry may still complete, including the last one, which publishes the root.
///
/// # Errors
///
/// The first error of either side; its `place` tells which. [`Error::Exists`] with [`CopyOptions::keep_tags`], and if
/// the root itself could not be merged with what the target has under its tag.
pub async fn copy(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Copied> {
    let mut copied = copy_all(&[(from.clone(), options.names.clone())], to, options).await?;
    let copied = copied.remove(0);
    match copied.kept.iter().find(|kept| kept.not_copied == from.digest()) {
        Some(kept) => Err(kept.refuse(to)),
        None => Ok(copied),
    }
}

/// Copies several roots, which may come from different sources, in one run. A blob that they share is copied once, and
/// no name changes before all roots are stored. The names are given with each root; [`CopyOptions::names`] is ignored.
///
/// There is one result for each root. A shared blob is listed in the result of the first root that has it.
///
/// # Errors
///
/// The first error of any side; its `place` tells which.
pub async fn copy_all(roots: &[(Root, Vec<Naming>)], to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Vec<Copied>> {
    let jobs = options.jobs.max(1);
    let mut copied: Vec<_> = roots.iter().map(|(root, _)| Copied::nothing(root)).collect();
    let pending = roots.iter().enumerate().map(|(position, (root, names))| PendingRoot {
        position,
        root: root.clone(),
        names: or_unnamed(names),
    });
    let mut merged = HashMap::new();
    let (pending, kept) = settle(pending.collect(), to, options.comparing(), &mut merged).await?;
    for PendingRoot { position, root, .. } in &pending {
        copied[*position].root = root.descriptor().clone();
    }
    let graph = Graph::of(&roots_of(&pending), &options.only, options.foreign_layers).await?;
    let progress = Progress(options.observer.clone());
    let plan = graph.plan();
    if !pending.is_empty() {
        progress.planned(&plan);
        to.expect(&plan).await?;
    }
    // The referrers are listed while the blobs are being copied.
    let mut stages = graph.stages();
    let blobs = stages.next().map_or(&[][..], Vec::as_slice);
    let pending_referrers = find_referrers(roots, to, options, &mut merged);
    let (puts, (pending_referrers, kept_referrers, referrers)) =
        put_all(blobs, to, jobs, &progress, pending_referrers).await?;
    record_outcomes(&mut copied, &pending, blobs, puts);
    for (position, kept) in kept.into_iter().chain(kept_referrers) {
        copied[position].kept.push(kept);
    }
    for (copied, referrers) in copied.iter_mut().zip(referrers) {
        copied.referrers = referrers;
    }
    if pending.is_empty() && pending_referrers.is_empty() {
        return Ok(copied);
    }
    for stage in stages {
        let (puts, ()) = put_all(stage, to, jobs, &progress, ready(Ok(()))).await?;
        record_outcomes(&mut copied, &pending, stage, puts);
    }
    let more = Graph::after(&graph, &roots_of(&pending_referrers)).await?;
    if !pending_referrers.is_empty() {
        let behind = more.plan();
        progress.planned(&[&plan[..], &behind].concat());
        to.expect(&behind).await?;
    }
    for stage in more.stages() {
        let (puts, ()) = put_all(stage, to, jobs, &progress, ready(Ok(()))).await?;
        record_outcomes(&mut copied, &pending_referrers, stage, puts);
    }
    let named = [&pending_referrers, &pending].map(|pending| {
        pending.iter().map(|pending| (pending.root.descriptor(), &pending.names[..])).collect::<Vec<_>>()
    });
    let blobs: Vec<_> = copied.iter().flat_map(|copied| copied.blobs.iter().cloned()).collect();
    complete(to, &named, &blobs, &progress).await?;
    Ok(copied)
}

/// Gives roots their names after everything below them is stored. The second list follows the first; within a list the
/// order is kept if the target [has one](Sink::keeps_order).
pub(crate) async fn complete(
    to: &Arc<dyn Sink>,
    lists: &[Vec<(&Descriptor, &[Naming])>; 2],
    blobs: &[(Descriptor, Put)],
    progress: &Progress,
) -> Result<()> {
    // A root that already existed was read from the target just now. One that was uploaded is read back before it is
    // named.
    let sent = blobs.iter().filter(|(_, put)| *put == Put::Copied).map(|(blob, _)| blob.digest);
    let mut sent: HashSet<_> = sent.collect();
    let unsure = lists.iter().flatten().filter(|(root, _)| sent.remove(&root.digest));
    stream::iter(unsure)
        .map(|(root, _)| to.confirm(root))
        .buffered(MAX_PARALLEL_READS)
        .boxed()
        .try_collect::<()>()
        .await?;
    let at_once = if to.keeps_order() { 1 } else { MAX_PARALLEL_READS };
    // Referrers are published before the image, so that a client that sees the image also finds them.
    for list in lists {
        let publish = list.iter().map(|(root, names)| async move {
            for naming in *names {
                to.publish(root, naming).await?;
                progress.event(Event::Published { root, tag: naming.tag.as_ref() });
            }
            Ok::<_, Error>(())
        });
        stream::iter(publish).buffered(at_once).boxed().try_collect::<()>().await?;
    }
    to.finish().await
}

/// Returns what [`copy`] would do, without writing. Queries the target for every blob.
///
/// # Errors
///
/// The first error of either side; its `place` tells which.
pub async fn plan(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Planned> {
    let related = related(from, &options.referrers, &options.only).await?;
    let referrers = related.iter().map(|(root, _)| root.descriptor().clone()).collect();
    let pending_referrers =
        related.into_iter().map(|(root, naming)| PendingRoot { position: 0, root, names: vec![naming] });
    // The plan lists every blob, even if the target already has the root under its name.
    let comparing = Comparing { recheck: true, ..options.comparing() };
    let (pending_referrers, kept) = settle(pending_referrers.collect(), to, comparing, &mut HashMap::new()).await?;
    let root = PendingRoot { position: 0, root: from.clone(), names: Vec::new() };
    let (graph, more) = graphs(&[root], &pending_referrers, options).await?;
    let blobs = stream::iter([graph.plan(), more.plan()].concat())
        .map(|blob| async move { to.has(&blob).await.map(|has| (blob, has)) })
        .buffered(options.jobs.max(1))
        .boxed()
        .try_collect();
    let kept = kept.into_iter().map(|(_, kept)| kept).collect();
    Ok(Planned { root: from.descriptor().clone(), blobs: blobs.await?, referrers, kept })
}

/// Returns the referrers to copy that the target lacks, the tags that stay as they are, and for each root the
/// descriptors of all its referrers.
async fn find_referrers(
    roots: &[(Root, Vec<Naming>)],
    to: &Arc<dyn Sink>,
    options: &CopyOptions,
    merged: &mut HashMap<Tag, Root>,
) -> Result<(Vec<PendingRoot>, Vec<(usize, KeptTag)>, Vec<Vec<Descriptor>>)> {
    let found = stream::iter(roots).map(|(root, _)| related(root, &options.referrers, &options.only));
    let found: Vec<_> = found.buffered(options.jobs.max(1)).boxed().try_collect().await?;
    let all = found
        .iter()
        .map(|pending_referrers| pending_referrers.iter().map(|(root, _)| root.descriptor().clone()).collect())
        .collect();
    let pending_referrers = found.into_iter().enumerate().flat_map(|(position, pending_referrers)| {
        pending_referrers.into_iter().map(move |(root, naming)| PendingRoot { position, root, names: vec![naming] })
    });
    let (pending_referrers, kept) = settle(pending_referrers.collect(), to, options.comparing(), merged).await?;
    Ok((pending_referrers, kept, all))
}

/// Records the outcome of each node in the result of the root that led to it.
fn record_outcomes(copied: &mut [Copied], pending: &[PendingRoot], nodes: &[Node], puts: Vec<Put>) {
    for (node, put) in nodes.iter().zip(puts) {
        copied[pending[node.root].position].blobs.push((node.descriptor.clone(), put));
    }
}

/// Returns the graph below the roots, and the graph below the referrers without what is already in the first.
pub(crate) async fn graphs(
    pending: &[PendingRoot],
    pending_referrers: &[PendingRoot],
    options: &CopyOptions,
) -> Result<(Graph, Graph)> {
    let graph = Graph::of(&roots_of(pending), &options.only, options.foreign_layers).await?;
    let more = Graph::after(&graph, &roots_of(pending_referrers)).await?;
    Ok((graph, more))
}

fn roots_of(pending: &[PendingRoot]) -> Vec<&Root> {
    pending.iter().map(|pending| &pending.root).collect()
}

/// Returns the names, or a single empty one, which publishes the root without a name.
pub(crate) fn or_unnamed(names: &[Naming]) -> Vec<Naming> {
    if names.is_empty() { vec![Naming::default()] } else { names.to_vec() }
}

/// Copies nodes that do not depend on each other, started in their order, and runs another future at the same time.
async fn put_all<T>(
    nodes: &[Node],
    to: &Arc<dyn Sink>,
    jobs: usize,
    progress: &Progress,
    meanwhile: impl Future<Output = Result<T>>,
) -> Result<(Vec<Put>, T)> {
    let mut running = JoinSet::new();
    let outcome = try_join(put_with(&mut running, nodes, to, jobs, progress), meanwhile).await;
    // After a failure, the other tasks are aborted and release their resources before the error is returned.
    running.shutdown().await;
    outcome
}

type Running = JoinSet<Result<(usize, Put)>>;

async fn put_with(
    running: &mut Running,
    nodes: &[Node],
    to: &Arc<dyn Sink>,
    jobs: usize,
    progress: &Progress,
) -> Result<Vec<Put>> {
    let mut waiting = nodes.iter().enumerate().peekable();
    let mut done = vec![None; nodes.len()];
    let mut large = 0;
    loop {
        while let Some((_, next)) = waiting.peek()
            && running.len() < jobs.saturating_mul(2) - 1
            && (large < jobs || is_small(next))
            && let Some((position, node)) = waiting.next()
        {
            large += usize::from(!is_small(node));
            let (to, node, progress) = (to.clone(), node.clone(), progress.clone());
            running.spawn(async move {
                let blob = &node.descriptor;
                progress.event(Event::Started { blob });
                let put = match &progress.0 {
                    Some(observer) => {
                        to.put(blob, &Observed { source: node.source, observer: observer.clone() }).await?
                    }
                    None => to.put(blob, &*node.source).await?,
                };
                progress.event(Event::Finished { blob, put });
                Ok::<_, Error>((position, put))
            });
        }
        match running.join_next().await {
            Some(Ok(finished)) => {
                let (position, put) = finished?;
                large -= usize::from(!is_small(&nodes[position]));
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
    Ok(done.into_iter().flatten().collect())
}

/// The size in bytes below which a blob counts as small.
const SMALL_BLOB_BYTES: u64 = 64 << 10;

/// Returns whether the latency of a blob matters more than its bandwidth, so that it may exceed the limit of `jobs`.
fn is_small(node: &Node) -> bool {
    node.descriptor.size < SMALL_BLOB_BYTES
}

#[derive(Debug, Clone)]
pub(crate) struct Progress(pub(crate) Option<Arc<dyn Observer>>);

impl Progress {
    pub(crate) fn event(&self, event: Event<'_>) {
        if let Some(observer) = &self.0 {
            observer.event(event);
        }
    }

    fn planned(&self, blobs: &[Descriptor]) {
        let bytes = blobs.iter().fold(0, add_size);
        self.event(Event::Planned { blobs: blobs.len(), bytes });
    }
}

/// A source that reports every chunk that is read from it to an observer.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) observer: Arc<dyn Observer>,
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
