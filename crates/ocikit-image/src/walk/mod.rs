//! The one traversal over indexes, manifests, blobs, referrers and fallback tags.

pub mod limits;
mod path;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use futures::future::{BoxFuture, try_join, try_join_all};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use ocikit_spec::{Content, Descriptor, Digest, Document, MAX_DOCUMENT_BYTES, MediaType, Tag};

use crate::error::{Error, Result};
use crate::root::Root;
use crate::source::{Name, Source, SourceExt};

pub use path::{Edge, Path, children};

use limits::{Limits, MAX_PARALLEL_READS, MAX_READ_AHEAD_BYTES, Meter, too_deep, too_many};

/// A bounded traversal of an image, or of all images of a place.
///
/// The caller starts at one or more documents, takes one [`Node`] after another from [`next`](Walk::next), and adds
/// what it wants to visit below it: children, subjects, referrers. What it does not add is not visited.
///
/// * **Order**: breadth first, in the order in which nodes were added. Referrers come after everything else that is
///   known, so that a digest that is both a part and a referrer is visited as a part.
/// * **Once**: a digest is visited once; [`add`](Walk::add) returns whether it is new. A caller that needs every edge
///   records it there.
/// * **Reading**: documents are read and checked in parallel, before the caller asks for them, within
///   [limits]; they are dropped when the caller drops the node.
/// * **Failures**: a document that cannot be read is a node with an error. The caller decides whether to stop.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let image = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let root = testing::index(&memory, &[image.clone(), image]);
/// use ocikit_image::walk::{Found, Walk, limits::Limits};
/// use ocikit_spec::Content;
///
/// let mut walk = Walk::new(&*memory, Limits::IMAGE);
/// walk.start(&root)?;
/// let mut digests = Vec::new();
/// while let Some(node) = walk.next().await {
///     digests.push(node.descriptor.digest);
///     if let Found::Content(content) = node.found
///         && let Content::Document(document) = content?
///     {
///         walk.add_children(&node.path, &document)?;
///     }
/// }
/// assert_eq!(digests.len(), 4, "index, manifest, config, layer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Walk<'a, T = Result<Content>> {
    source: &'a dyn Source,
    limits: Limits,
    read: Box<dyn Fn(Descriptor) -> BoxFuture<'a, T> + Send + Sync + 'a>,
    meter: Arc<Meter>,
    /// The first start, for messages.
    root: Option<Digest>,
    seen: HashSet<Digest>,
    tags: HashSet<Tag>,
    documents: usize,
    referrers: usize,
    /// What is visited next, in order.
    pending: VecDeque<Pending<T>>,
    /// The lists of referrers to request when nothing else is pending.
    later: VecDeque<Pending<T>>,
    running: FuturesOrdered<BoxFuture<'a, Node<T>>>,
    /// The total size of the documents that are being read or were read and not visited yet.
    ahead: u64,
}

/// A document, blob or list of referrers that was reached.
#[derive(Debug)]
#[non_exhaustive]
pub struct Node<T = Result<Content>> {
    /// The descriptor that led to it. For a list of referrers it has only the digest of the subject.
    pub descriptor: Descriptor,
    /// How it was reached.
    pub path: Arc<Path>,
    /// What was found.
    pub found: Found<T>,
}

/// What a walk found at a node.
#[derive(Debug)]
pub enum Found<T = Result<Content>> {
    /// What was read: by default the content.
    Content(T),
    /// A blob, or a document that was added with [`Walk::add_unread`].
    Unread,
    /// The referrers of the node, which was visited before; see [`Walk::add_referrers`].
    Referrers(Result<Vec<Referrer>>),
}

/// A referrer in a list, or under a fallback tag.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Referrer {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// How it follows from its subject.
    pub edge: Edge,
}

/// A node to visit. Smaller than one with a descriptor, because an index may list 25,000 of them.
struct Pending<T> {
    parent: Option<Arc<Path>>,
    edge: Edge,
    descriptor: Identity,
    task: Task<T>,
}

enum Task<T> {
    Read,
    Nothing,
    Known(Box<T>),
    List { suffixes: &'static [&'static str], of: Arc<Path> },
}

/// A descriptor; the optional fields are allocated only if there are any.
struct Identity {
    media_type: MediaType,
    digest: Digest,
    size: u64,
    whole: Option<Box<Descriptor>>,
}

impl From<&Descriptor> for Identity {
    fn from(descriptor: &Descriptor) -> Identity {
        let Descriptor { media_type, digest, size, urls, annotations, data, platform, artifact_type, extra } =
            descriptor;
        let is_bare = urls.is_empty()
            && annotations.is_empty()
            && data.is_none()
            && platform.is_none()
            && artifact_type.is_none()
            && extra.is_empty();
        let whole = (!is_bare).then(|| Box::new(descriptor.clone()));
        Identity { media_type: media_type.clone(), digest: *digest, size: *size, whole }
    }
}

impl From<Identity> for Descriptor {
    fn from(identity: Identity) -> Descriptor {
        let Identity { media_type, digest, size, whole } = identity;
        whole.map_or_else(|| Descriptor::new(media_type, digest, size), |whole| *whole)
    }
}

impl<'a> Walk<'a> {
    /// Creates a walk that reads documents from a source.
    pub fn new(source: &'a dyn Source, limits: Limits) -> Walk<'a> {
        let meter = Arc::new(Meter::new(limits.bytes));
        let counter = meter.clone();
        let read = move |descriptor| content(source, descriptor, counter.clone()).boxed();
        Walk::with(source, limits, meter, Box::new(read))
    }

    /// Starts at a root that was read before.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn start_at(&mut self, root: &Root) -> Result<()> {
        let content = match root.document() {
            Some(document) => Content::Document(document),
            None if root.descriptor().media_type.is_schema1() => Content::Schema1,
            None => Content::Blob,
        };
        self.start_with(root.descriptor(), Ok(content))
    }
}

impl<'a, T: Send + 'a> Walk<'a, T> {
    /// Creates a walk that reads documents in another way, for example together with their configs.
    pub fn reading<F>(
        source: &'a dyn Source,
        limits: Limits,
        read: impl Fn(Descriptor) -> F + Send + Sync + 'a,
    ) -> Walk<'a, T>
    where
        F: Future<Output = T> + Send + 'a,
    {
        let read = move |descriptor| read(descriptor).boxed();
        Walk::with(source, limits, Arc::new(Meter::new(limits.bytes)), Box::new(read))
    }

    fn with(
        source: &'a dyn Source,
        limits: Limits,
        meter: Arc<Meter>,
        read: Box<dyn Fn(Descriptor) -> BoxFuture<'a, T> + Send + Sync + 'a>,
    ) -> Walk<'a, T> {
        Walk {
            source,
            limits,
            read,
            meter,
            root: None,
            seen: HashSet::new(),
            tags: HashSet::new(),
            documents: 0,
            referrers: 0,
            pending: VecDeque::new(),
            later: VecDeque::new(),
            running: FuturesOrdered::new(),
            ahead: 0,
        }
    }

    /// Excludes a digest from the walk, as if it had been visited.
    pub fn exclude(&mut self, digest: Digest) {
        self.seen.insert(digest);
    }

    /// Starts at a document.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn start(&mut self, root: &Descriptor) -> Result<bool> {
        self.push(None, Edge::Start(kind_of(root).into()), root, Task::Read, Repeat::Never)
    }

    /// Starts at a document that is visited without being read.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn start_unread(&mut self, root: &Descriptor) -> Result<bool> {
        self.push(None, Edge::Start(kind_of(root).into()), root, Task::Nothing, Repeat::Never)
    }

    /// Starts at a document that was read before.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn start_with(&mut self, root: &Descriptor, content: T) -> Result<()> {
        self.push(None, Edge::Start(kind_of(root).into()), root, Task::Known(Box::new(content)), Repeat::Never)
            .map(drop)
    }

    /// Adds a document below a node, and returns whether it was not visited or added before. A config or layer is
    /// read only if its media type is that of a document; anything else is, because the bytes decide what it is.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] beyond the limits of depth, documents and referrers, [`Error::Unsupported`] beyond that of
    /// bytes.
    pub fn add(&mut self, parent: &Arc<Path>, edge: Edge, descriptor: &Descriptor) -> Result<bool> {
        let is_blob = matches!(edge, Edge::Config | Edge::Layer(_)) && !descriptor.media_type.is_document();
        let task = if is_blob { Task::Nothing } else { Task::Read };
        self.push(Some(parent), edge, descriptor, task, Repeat::Never)
    }

    /// Adds a document below a node again, although it may have been visited before: for a caller that visits a digest
    /// once for each role, and knows the roles that it has had.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn add_again(&mut self, parent: &Arc<Path>, edge: Edge, descriptor: &Descriptor) -> Result<()> {
        self.push(Some(parent), edge, descriptor, Task::Read, Repeat::Allowed).map(drop)
    }

    /// Adds a document that is visited without being read.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn add_unread(&mut self, parent: &Arc<Path>, edge: Edge, descriptor: &Descriptor) -> Result<bool> {
        self.push(Some(parent), edge, descriptor, Task::Nothing, Repeat::Never)
    }

    /// Adds every child of a document: config and layers, or manifests.
    ///
    /// # Errors
    ///
    /// As [`Walk::add`].
    pub fn add_children(&mut self, parent: &Arc<Path>, document: &Document) -> Result<()> {
        children(document).try_for_each(|(edge, child)| self.add(parent, edge, child).map(drop))
    }

    /// Requests the referrers of a node and the referrers under the tags `sha256-HEX.SUFFIX`. The node is returned
    /// again with the [list](Found::Referrers), from which the caller adds what it wants.
    pub fn add_referrers(&mut self, node: &Arc<Path>, suffixes: &'static [&'static str]) {
        // Only the digest counts in a request for referrers.
        let descriptor = Descriptor::new(MediaType::OCTET_STREAM, node.digest, 0);
        let task = Task::List { suffixes, of: node.clone() };
        self.later.push_back(Pending { parent: None, edge: Edge::Subject, descriptor: (&descriptor).into(), task });
    }

    /// Returns whether a document below this node would exceed the limit of depth.
    pub fn is_deepest(&self, node: &Path) -> bool {
        node.depth >= self.limits.depth
    }

    fn push(
        &mut self,
        parent: Option<&Arc<Path>>,
        edge: Edge,
        descriptor: &Descriptor,
        task: Task<T>,
        repeat: Repeat,
    ) -> Result<bool> {
        let root = *self.root.get_or_insert(descriptor.digest);
        // A tag is a name that has to be visited even if its manifest was.
        let is_new = match &edge {
            Edge::Tag(tag) => self.tags.insert(tag.clone()),
            _ => self.seen.insert(descriptor.digest) || repeat == Repeat::Allowed,
        };
        if !is_new {
            return Ok(false);
        }
        let is_blob = matches!(task, Task::Nothing) && matches!(edge, Edge::Config | Edge::Layer(_));
        if !is_blob && parent.is_some_and(|parent| self.is_deepest(parent)) {
            return Err(too_deep(&root, self.source));
        }
        match edge {
            Edge::Referrer(_) | Edge::Tag(_) => {
                self.referrers += 1;
                if self.referrers > self.limits.referrers {
                    return Err(too_many(self.limits.referrers, "referrers", &root, self.source));
                }
            }
            _ if is_blob => {}
            _ => {
                self.documents += 1;
                if self.documents > self.limits.documents {
                    return Err(too_many(self.limits.documents, "documents", &root, self.source));
                }
            }
        }
        // Of an unknown type only the first bytes are read, to find out whether it is a document.
        if matches!(task, Task::Read) && descriptor.media_type.is_document() {
            self.meter.add(descriptor, &root, self.source)?;
        }
        self.pending.push_back(Pending { parent: parent.cloned(), edge, descriptor: descriptor.into(), task });
        Ok(true)
    }

    /// Returns the next node, or `None` if everything that was added has been visited. More can be added then.
    pub async fn next(&mut self) -> Option<Node<T>> {
        if self.pending.is_empty() && self.running.is_empty() {
            std::mem::swap(&mut self.pending, &mut self.later);
        }
        while self.running.len() < MAX_PARALLEL_READS
            && let Some(next) = self.pending.front()
            && (self.running.is_empty() || self.ahead.saturating_add(next.cost()) <= MAX_READ_AHEAD_BYTES)
            && let Some(next) = self.pending.pop_front()
        {
            self.ahead = self.ahead.saturating_add(next.cost());
            let visit = self.visit(next);
            self.running.push_back(visit);
        }
        let node = self.running.next().await?;
        if matches!(node.found, Found::Content(_)) {
            self.ahead = self.ahead.saturating_sub(node.descriptor.size.min(MAX_DOCUMENT_BYTES));
        }
        Some(node)
    }

    fn visit(&self, pending: Pending<T>) -> BoxFuture<'a, Node<T>> {
        let Pending { parent, edge, descriptor, task } = pending;
        let descriptor = Descriptor::from(descriptor);
        let path = || Arc::new(Path::below(parent, edge, descriptor.digest));
        match task {
            Task::Read => {
                let (path, read) = (path(), (self.read)(descriptor.clone()));
                read.map(|content| Node { descriptor, path, found: Found::Content(content) }).boxed()
            }
            Task::List { suffixes, of } => {
                let listed = list(self.source, of.digest, suffixes);
                listed.map(|found| Node { descriptor, path: of, found: Found::Referrers(found) }).boxed()
            }
            Task::Known(content) => ready(Node { path: path(), descriptor, found: Found::Content(*content) }).boxed(),
            Task::Nothing => ready(Node { path: path(), descriptor, found: Found::Unread }).boxed(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Never,
    Allowed,
}

impl<T> Pending<T> {
    /// The number of bytes that are held once this is read.
    fn cost(&self) -> u64 {
        match self.task {
            Task::Read | Task::Known(_) => self.descriptor.size.min(MAX_DOCUMENT_BYTES),
            Task::Nothing | Task::List { .. } => 0,
        }
    }
}

impl<T> fmt::Debug for Walk<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.pending.len() + self.later.len();
        f.debug_struct("Walk").field("limits", &self.limits).field("pending", &pending).finish_non_exhaustive()
    }
}

fn kind_of(root: &Descriptor) -> &'static str {
    if root.media_type.is_index() { "index" } else { "manifest" }
}

async fn content(source: &dyn Source, descriptor: Descriptor, meter: Arc<Meter>) -> Result<Content> {
    let content = source.content(&descriptor).await?;
    if matches!(content, Content::Document(_)) && !descriptor.media_type.is_document() {
        meter.add(&descriptor, &descriptor.digest, source)?;
    }
    Ok(content)
}

/// Returns the direct referrers of a digest: those that the source lists, then those under fallback tags. Both are
/// requested at the same time.
async fn list(source: &dyn Source, subject: Digest, suffixes: &'static [&'static str]) -> Result<Vec<Referrer>> {
    let failed = |error| Error::referrers(&subject, source, error);
    let tagged = suffixes.iter().map(|suffix| tagged(source, subject, suffix).boxed());
    let tagged = try_join_all(tagged.collect::<Vec<_>>());
    let (listed, tagged) = try_join(source.referrers(&subject), tagged).await.map_err(failed)?;
    let listed = listed.into_iter().enumerate();
    let listed = listed.map(|(position, descriptor)| Referrer { descriptor, edge: Edge::Referrer(position) });
    Ok(listed.chain(tagged.into_iter().flatten()).collect())
}

/// Returns the artifact under a fallback tag, if there is one.
async fn tagged(source: &dyn Source, subject: Digest, suffix: &str) -> Result<Option<Referrer>> {
    let tag = format!("{}-{}.{suffix}", subject.algorithm().name(), subject.hex());
    // A tag with a sha512 digest would exceed 128 characters.
    let Ok(tag) = tag.parse::<Tag>() else { return Ok(None) };
    match source.find_root(&Name::Tag(tag.clone())).await {
        Ok(descriptor) => Ok(Some(Referrer { descriptor, edge: Edge::Tag(tag) })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
