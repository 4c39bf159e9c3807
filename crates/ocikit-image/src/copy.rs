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
use crate::graph::{AT_ONCE, Graph, Node, add_size};
use crate::merge::{Comparing, KeptTag, Wanting, settle};
use crate::related::{Referrers, related};
use crate::root::Root;
use crate::source::{ByteRange, Name, Naming, Put, Sink, Source};

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// How many blobs are put at the same time, at least one. Of small ones almost as many go beside them.
    pub jobs: usize,
    /// The names that the root gets, in this order, once everything is there. Without one it becomes visible without a
    /// name, where the place has such a thing.
    pub names: Vec<Naming>,
    /// What goes along.
    pub referrers: Referrers,
    /// Of indexes, only the images for these platforms are copied, if any are named. The index stays as it is and names
    /// what is not there, which not every registry accepts; [`narrow`](crate::narrow) makes one that does not.
    pub only: Vec<Platform>,
    /// Whether every part is looked for although the target has the root by its name. A place that was given only some
    /// platforms of an index has the index and lacks the others.
    pub recheck: bool,
    /// Whether tags of the target that stand for signatures, attestations and lists of referrers (see
    /// [`ReferrerTag`](crate::ReferrerTag)) stay as they are. Otherwise what is copied is added to what the target has there.
    pub keep_tags: bool,
    /// Whether layers that may not be distributed, and have other places to be fetched from, are copied too.
    pub foreign_layers: bool,
    /// Whoever wants to see progress.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for CopyOptions {
    /// Eight at a time, no name, nothing goes along, all platforms, what has its name is complete, nobody watching.
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
        // A place that was given an image without its foreign layers has the image by its name.
        let recheck = self.recheck || self.foreign_layers;
        Comparing { jobs: self.jobs, recheck, keep_tags: self.keep_tags }
    }
}

/// What a copy did.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The root, whose digest is the same on both sides, except that of a tag of referrers that the target's were added to.
    pub root: Descriptor,
    /// What became of each blob and document, in the order in which they were planned; empty if the target said at
    /// once that everything was there.
    pub blobs: Vec<(Descriptor, Put)>,
    /// What went along, or was there already.
    pub referrers: Vec<Descriptor>,
    /// Tags of referrers that were not copied, so as not to lose what the target has there.
    pub kept: Vec<KeptTag>,
}

/// What a copy would do.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The root.
    pub root: Descriptor,
    /// Each blob and document in the order in which it would be put, and whether the target has it.
    pub blobs: Vec<(Descriptor, bool)>,
    /// What would go along.
    pub referrers: Vec<Descriptor>,
    /// Tags of referrers that would not be copied, so as not to lose what the target has there.
    pub kept: Vec<KeptTag>,
}

impl Copied {
    fn nothing(root: &Root) -> Copied {
        Copied { root: root.descriptor().clone(), blobs: Vec::new(), referrers: Vec::new(), kept: Vec::new() }
    }

    /// How many blobs and documents it took this for, and how many bytes they have.
    pub fn count(&self, put: Put) -> (usize, u64) {
        let found = self.blobs.iter().filter(|(_, outcome)| *outcome == put);
        found.fold((0, 0), |(count, bytes), (blob, _)| (count + 1, add_size(bytes, blob)))
    }
}

/// Copies a root and everything below it: each digest once, many at a time, children before their parents, then what is
/// about it. A target that took a root is asked for it again ([`Sink::confirm`]), and names come last.
///
/// Signatures, attestations and lists of referrers that the target has under tags like `sha256-HEX.sig` are never lost: what is
/// copied is added to them. Of an SBOM, which cosign reads only if it is alone, the target keeps its own, and the result says so.
///
/// If it fails nothing is visible that was not before. If its future is dropped it stops; a step that a thread or a registry
/// had begun may still complete, and this may be the last one, which makes the root visible.
///
/// # Errors
///
/// The first one met, from either side; its place says which. [`Error::Exists`] with [`CopyOptions::keep_tags`], and if the root
/// itself could not be added to what the target has under its tag.
pub async fn copy(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Copied> {
    let mut copied = copy_all(&[(from.clone(), options.names.clone())], to, options).await?;
    let copied = copied.remove(0);
    match copied.kept.iter().find(|kept| kept.not_copied == from.digest()) {
        Some(kept) => Err(kept.refuse(to)),
        None => Ok(copied),
    }
}

/// Copies several roots in one go, from wherever they are: a blob that they share is put once, and no name is moved
/// before everything of all of them is there. The names are given with each root; those of the options are not used.
///
/// What it did is told root by root; a shared blob is told of the first that has it.
///
/// # Errors
///
/// The first one met, from any side; its place says which.
pub async fn copy_all(roots: &[(Root, Vec<Naming>)], to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Vec<Copied>> {
    let jobs = options.jobs.max(1);
    let mut copied: Vec<_> = roots.iter().map(|(root, _)| Copied::nothing(root)).collect();
    let wanting = roots.iter().enumerate().map(|(position, (root, names))| Wanting {
        position,
        root: root.clone(),
        names: or_unnamed(names),
    });
    let mut merged = HashMap::new();
    let (wanting, kept) = settle(wanting.collect(), to, options.comparing(), &mut merged).await?;
    for Wanting { position, root, .. } in &wanting {
        copied[*position].root = root.descriptor().clone();
    }
    let graph = Graph::of(&roots_of(&wanting), &options.only, options.foreign_layers).await?;
    let tell = Teller(options.observer.clone());
    let plan = graph.plan();
    if !wanting.is_empty() {
        tell.planned(&plan);
        to.expect(&plan).await?;
    }
    // What is about an image is looked for while its blobs are on their way.
    let mut stages = graph.stages();
    let blobs = stages.next().map_or(&[][..], Vec::as_slice);
    let along = find_along(roots, to, options, &mut merged);
    let (puts, (along, kept_along, referrers)) = put_all(blobs, to, jobs, &tell, along).await?;
    note(&mut copied, &wanting, blobs, puts);
    for (position, kept) in kept.into_iter().chain(kept_along) {
        copied[position].kept.push(kept);
    }
    for (copied, referrers) in copied.iter_mut().zip(referrers) {
        copied.referrers = referrers;
    }
    if wanting.is_empty() && along.is_empty() {
        return Ok(copied);
    }
    for stage in stages {
        let (puts, ()) = put_all(stage, to, jobs, &tell, ready(Ok(()))).await?;
        note(&mut copied, &wanting, stage, puts);
    }
    let more = Graph::after(&graph, &roots_of(&along)).await?;
    if !along.is_empty() {
        let behind = more.plan();
        tell.planned(&[&plan[..], &behind].concat());
        to.expect(&behind).await?;
    }
    for stage in more.stages() {
        let (puts, ()) = put_all(stage, to, jobs, &tell, ready(Ok(()))).await?;
        note(&mut copied, &along, stage, puts);
    }
    let named = [&along, &wanting].map(|wanting| {
        wanting.iter().map(|wanting| (wanting.root.descriptor(), &wanting.names[..])).collect::<Vec<_>>()
    });
    let blobs: Vec<_> = copied.iter().flat_map(|copied| copied.blobs.iter().cloned()).collect();
    complete(to, &named, &blobs, &tell).await?;
    Ok(copied)
}

/// Gives roots their names when everything below them was put: one list after the other, each in its order where the
/// place keeps one.
pub(crate) async fn complete(
    to: &Arc<dyn Sink>,
    lists: &[Vec<(&Descriptor, &[Naming])>; 2],
    blobs: &[(Descriptor, Put)],
    tell: &Teller,
) -> Result<()> {
    // What was found there was given to us just now; what was sent is asked for before a name leads to it.
    let sent = blobs.iter().filter(|(_, put)| *put == Put::Copied).map(|(blob, _)| blob.digest);
    let mut sent: HashSet<_> = sent.collect();
    let unsure = lists.iter().flatten().filter(|(root, _)| sent.remove(&root.digest));
    stream::iter(unsure).map(|(root, _)| to.confirm(root)).buffered(AT_ONCE).boxed().try_collect::<()>().await?;
    let at_once = if to.keeps_order() { 1 } else { AT_ONCE };
    // Whoever finds the image by its name finds what is about it as well.
    for list in lists {
        let publish = list.iter().map(|(root, names)| async move {
            for naming in *names {
                to.publish(root, naming).await?;
                tell.event(Event::Published { root, tag: naming.tag.as_ref() });
            }
            Ok::<_, Error>(())
        });
        stream::iter(publish).buffered(at_once).boxed().try_collect::<()>().await?;
    }
    to.finish().await
}

/// Says what [`copy`] would do. Nothing is put; the target is asked for every blob.
///
/// # Errors
///
/// The first one met, from either side; its place says which.
pub async fn plan(from: &Root, to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<Planned> {
    let related = related(from, &options.referrers, &options.only).await?;
    let referrers = related.iter().map(|(root, _)| root.descriptor().clone()).collect();
    let along = related.into_iter().map(|(root, naming)| Wanting { position: 0, root, names: vec![naming] });
    // The target is asked for every blob, whether or not it has the names.
    let comparing = Comparing { recheck: true, ..options.comparing() };
    let (along, kept) = settle(along.collect(), to, comparing, &mut HashMap::new()).await?;
    let root = Wanting { position: 0, root: from.clone(), names: Vec::new() };
    let (graph, more) = graphs(&[root], &along, options).await?;
    let blobs = stream::iter([graph.plan(), more.plan()].concat())
        .map(|blob| async move { to.has(&blob).await.map(|has| (blob, has)) })
        .buffered(options.jobs.max(1))
        .boxed()
        .try_collect();
    let kept = kept.into_iter().map(|(_, kept)| kept).collect();
    Ok(Planned { root: from.descriptor().clone(), blobs: blobs.await?, referrers, kept })
}

/// What goes along and is not complete at the target, tags that stay as they are, and for each of the roots all that goes along
/// with it.
async fn find_along(
    roots: &[(Root, Vec<Naming>)],
    to: &Arc<dyn Sink>,
    options: &CopyOptions,
    merged: &mut HashMap<Tag, Root>,
) -> Result<(Vec<Wanting>, Vec<(usize, KeptTag)>, Vec<Vec<Descriptor>>)> {
    let found = stream::iter(roots).map(|(root, _)| related(root, &options.referrers, &options.only));
    let found: Vec<_> = found.buffered(options.jobs.max(1)).boxed().try_collect().await?;
    let all = found.iter().map(|along| along.iter().map(|(root, _)| root.descriptor().clone()).collect()).collect();
    let along = found.into_iter().enumerate().flat_map(|(position, along)| {
        along.into_iter().map(move |(root, naming)| Wanting { position, root, names: vec![naming] })
    });
    let (along, kept) = settle(along.collect(), to, options.comparing(), merged).await?;
    Ok((along, kept, all))
}

/// Writes down what became of what was put, for the root that led to it.
fn note(copied: &mut [Copied], wanting: &[Wanting], nodes: &[Node], puts: Vec<Put>) {
    for (node, put) in nodes.iter().zip(puts) {
        copied[wanting[node.root].position].blobs.push((node.descriptor.clone(), put));
    }
}

/// What the roots lead to, and what goes along leads to beyond that.
pub(crate) async fn graphs(wanting: &[Wanting], along: &[Wanting], options: &CopyOptions) -> Result<(Graph, Graph)> {
    let graph = Graph::of(&roots_of(wanting), &options.only, options.foreign_layers).await?;
    let more = Graph::after(&graph, &roots_of(along)).await?;
    Ok((graph, more))
}

fn roots_of(wanting: &[Wanting]) -> Vec<&Root> {
    wanting.iter().map(|wanting| &wanting.root).collect()
}

/// A root without a name becomes visible without one.
pub(crate) fn or_unnamed(names: &[Naming]) -> Vec<Naming> {
    if names.is_empty() { vec![Naming::default()] } else { names.to_vec() }
}

/// Puts what does not depend on each other, begun in its order, and does something else meanwhile.
async fn put_all<T>(
    nodes: &[Node],
    to: &Arc<dyn Sink>,
    jobs: usize,
    tell: &Teller,
    meanwhile: impl Future<Output = Result<T>>,
) -> Result<(Vec<Put>, T)> {
    let mut running = JoinSet::new();
    let outcome = try_join(put_with(&mut running, nodes, to, jobs, tell), meanwhile).await;
    // Where one failed the others stop, and what they held is let go before anybody hears of the failure.
    running.shutdown().await;
    outcome
}

type Running = JoinSet<Result<(usize, Put)>>;

async fn put_with(
    running: &mut Running,
    nodes: &[Node],
    to: &Arc<dyn Sink>,
    jobs: usize,
    tell: &Teller,
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
            let (to, node, tell) = (to.clone(), node.clone(), tell.clone());
            running.spawn(async move {
                let blob = &node.descriptor;
                tell.event(Event::Started { blob });
                let put = match &tell.0 {
                    Some(observer) => {
                        to.put(blob, &Observed { source: node.source, observer: observer.clone() }).await?
                    }
                    None => to.put(blob, &*node.source).await?,
                };
                tell.event(Event::Finished { blob, put });
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

/// Whether a blob takes a few round trips and hardly any bandwidth: such go beside the others.
fn is_small(node: &Node) -> bool {
    node.descriptor.size < 64 << 10
}

#[derive(Debug, Clone)]
pub(crate) struct Teller(pub(crate) Option<Arc<dyn Observer>>);

impl Teller {
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

/// A source that tells how many of its bytes were read.
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
