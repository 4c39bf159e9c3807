use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Content, Descriptor, Digest, Document, MediaType, Platform};

use crate::error::{Error, Result};
use crate::related::wanted;
use crate::root::Root;
use crate::source::{Source, SourceExt};

/// How deep indexes may be nested. Real ones are two deep.
pub(crate) const DEEPEST: usize = 16;

/// How many bytes documents may have together that are held until all are there. Real ones have some hundred thousand.
const MOST_BYTES: u64 = 32 << 20;

/// How many documents are read at the same time.
pub(crate) const AT_ONCE: usize = 8;

/// Everything below some roots, each digest once, children before their parents.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Layers, configs and whatever else is not a document, in the order in which the documents name them.
    pub(crate) blobs: Vec<Node>,
    /// Documents by height: those that point to no others first.
    pub(crate) documents: Vec<Vec<Node>>,
    heights: HashMap<Digest, usize>,
    /// Whether layers that have other places to be fetched from are among the blobs.
    foreign_layers: bool,
}

/// A blob or document, and where it is read.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) descriptor: Descriptor,
    pub(crate) source: Arc<dyn Source>,
    /// Which of the roots led to it first.
    pub(crate) root: usize,
}

impl Graph {
    /// Reads every document below these roots, the roots' own excepted, which were read when they were opened. Of indexes
    /// only the entries for these platforms count, if any are named.
    pub(crate) async fn of(roots: &[&Root], platforms: &[Platform], foreign_layers: bool) -> Result<Graph> {
        Graph { foreign_layers, ..Graph::default() }.with(roots, platforms).await
    }

    /// The same for what comes after another graph and is not in it.
    pub(crate) async fn after(other: &Graph, roots: &[&Root]) -> Result<Graph> {
        let (heights, foreign_layers) = (other.heights.clone(), other.foreign_layers);
        Graph { heights, foreign_layers, ..Graph::default() }.with(roots, &[]).await
    }

    async fn with(mut self, roots: &[&Root], platforms: &[Platform]) -> Result<Graph> {
        for (position, root) in roots.iter().enumerate() {
            let documents = read_all(root, platforms).await?;
            self.add(root.descriptor(), &documents, root.source(), position, platforms);
        }
        Ok(self)
    }

    /// Blobs, then documents by height: the order in which they are put.
    pub(crate) fn stages(&self) -> impl Iterator<Item = &Vec<Node>> {
        [&self.blobs].into_iter().chain(&self.documents)
    }

    /// What is put, in order.
    pub(crate) fn plan(&self) -> Vec<Descriptor> {
        self.stages().flatten().map(|node| node.descriptor.clone()).collect()
    }

    /// Adds a node behind its children and returns its height. Recursion is bounded: [`read_all`] went no deeper than
    /// [`DEEPEST`].
    fn add(
        &mut self,
        descriptor: &Descriptor,
        documents: &Documents,
        source: &Arc<dyn Source>,
        root: usize,
        platforms: &[Platform],
    ) -> usize {
        if let Some(height) = self.heights.get(&descriptor.digest) {
            return *height;
        }
        let mut node = Node { descriptor: descriptor.clone(), source: source.clone(), root };
        let Some((media_type, document)) = documents.get(&descriptor.digest) else {
            self.heights.insert(descriptor.digest, 0);
            self.blobs.push(node);
            return 0;
        };
        node.descriptor.media_type = media_type.clone();
        let foreign_layers = self.foreign_layers;
        let goes = |child: &&Descriptor| foreign_layers || travels(child);
        let children = wanted(document.children().filter(goes), platforms).into_iter();
        let highest = children.map(|child| self.add(child, documents, source, root, platforms)).max().unwrap_or(0);
        self.heights.insert(descriptor.digest, highest + 1);
        if self.documents.len() <= highest {
            self.documents.resize_with(highest + 1, Vec::new);
        }
        self.documents[highest].push(node);
        highest + 1
    }
}

/// Documents by digest, with the media types that their bytes have.
type Documents = HashMap<Digest, (MediaType, Document)>;

/// Every document below a root. What is not among them is a blob.
async fn read_all(root: &Root, platforms: &[Platform]) -> Result<Documents> {
    let source = root.source();
    let root_digest = root.digest();
    let mut documents = Documents::new();
    let mut seen = HashSet::from([root.digest()]);
    let mut level = Vec::new();
    if let Some(document) = root.document() {
        level = below(&document, &mut seen, platforms);
        documents.insert(root.digest(), (root.descriptor().media_type.clone(), document));
    } else if root.descriptor().media_type.is_schema1() {
        return Err(schema1(&root.digest(), source));
    }
    let held = Held::default();
    for _ in 0..DEEPEST {
        if level.is_empty() {
            return Ok(documents);
        }
        level.iter().try_for_each(|next| held.add(next, &root.digest(), source))?;
        let read: Vec<_> = stream::iter(level.drain(..))
            .map(|descriptor| read_document(source, descriptor, &root_digest, &held))
            .buffered(AT_ONCE)
            .boxed()
            .try_collect()
            .await?;
        for (digest, media_type, document) in read.into_iter().flatten() {
            level.extend(below(&document, &mut seen, platforms));
            documents.insert(digest, (media_type, document));
        }
    }
    Err(too_deep(&root.digest(), source))
}

/// Counts the documents that are held together.
#[derive(Debug, Default)]
pub(crate) struct Held(AtomicU64);

impl Held {
    /// Counts one that is about to be read, for a root: it has no more bytes than is said here, or it is not read.
    pub(crate) fn add(&self, document: &Descriptor, root: &Digest, place: &Arc<dyn Source>) -> Result<()> {
        // Of the others no more than the beginning is read, as long as they are none.
        if !document.media_type.is_document() {
            return Ok(());
        }
        let add = |held| Some(add_size(held, document));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or_default();
        if add_size(before, document) <= MOST_BYTES {
            return Ok(());
        }
        let what = format!("the documents below or about {root} have more than {MOST_BYTES} bytes");
        Err(Error::Unsupported { place: place.to_string(), what })
    }
}

/// Sizes are what documents claim, and may be anything.
pub(crate) fn add_size(sum: u64, blob: &Descriptor) -> u64 {
    sum.saturating_add(blob.size)
}

pub(crate) fn too_deep(digest: &Digest, place: &Arc<dyn Source>) -> Error {
    Error::broken(place, format!("{digest} nests indexes more than {DEEPEST} deep"))
}

/// A document, and `None` for a blob.
async fn read_document(
    source: &Arc<dyn Source>,
    descriptor: Descriptor,
    root: &Digest,
    held: &Held,
) -> Result<Option<(Digest, MediaType, Document)>> {
    let content = source.content(&descriptor).await?;
    let media_type = content.media_type(&descriptor.media_type);
    match content {
        Content::Document(document) => {
            if !descriptor.media_type.is_document() {
                held.add(&Descriptor { media_type: media_type.clone(), ..descriptor.clone() }, root, source)?;
            }
            Ok(Some((descriptor.digest, media_type, document)))
        }
        Content::Blob => Ok(None),
        Content::Schema1 => Err(schema1(&descriptor.digest, source)),
    }
}

/// A schema 1 manifest names its layers without sizes, and distribution 3 takes no such images any more. Its manifest alone
/// would be half an image (google/go-containerregistry#377).
fn schema1(digest: &Digest, place: &Arc<dyn Source>) -> Error {
    let what = format!("{digest} is a docker schema 1 manifest, and schema 1 images are not copied");
    Error::Unsupported { place: place.to_string(), what }
}

/// What a document points to that may be a document and was not seen before.
fn below(document: &Document, seen: &mut HashSet<Digest>, platforms: &[Platform]) -> Vec<Descriptor> {
    let wanted = wanted(document.children().filter(|child| travels(child)), platforms);
    let documents = wanted.into_iter().filter(|child| document.may_be_document(child));
    documents.filter(|child| seen.insert(child.digest)).cloned().collect()
}

/// Whether a blob is copied unless somebody asks for all: layers that may not be distributed stay where they are, since their
/// descriptors say where to fetch them. One without such a place is a layer like any other, whatever its type says:
/// vmware-tanzu/carvel-imgpkg#8, moby/moby#34216.
pub(crate) fn travels(descriptor: &Descriptor) -> bool {
    descriptor.urls.is_empty() || !descriptor.media_type.is_foreign_layer()
}
