use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Content, Descriptor, Digest, Document, MediaType, Platform};

use crate::error::{Error, Result};
use crate::related::wanted;
use crate::root::Root;
use crate::source::{Source, SourceExt};

/// The maximum nesting depth of indexes. Real indexes have a depth of at most 2.
pub(crate) const MAX_INDEX_DEPTH: usize = 16;

/// The maximum total size of the documents of a root that are held in memory together. Real images have a few hundred
/// KiB.
const MAX_DOCUMENTS_BYTES: u64 = 32 << 20;

/// The number of documents that are read in parallel.
pub(crate) const MAX_PARALLEL_READS: usize = 8;

/// Everything below some roots, each digest once, children before their parents.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Layers, configs and other blobs, in the order in which the documents list them.
    pub(crate) blobs: Vec<Node>,
    /// Documents by height: those without child documents first.
    pub(crate) documents: Vec<Vec<Node>>,
    heights: HashMap<Digest, usize>,
    /// Whether the blobs include foreign layers that have `urls`.
    foreign_layers: bool,
}

/// A blob or document, and the source to read it from.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) descriptor: Descriptor,
    pub(crate) source: Arc<dyn Source>,
    /// The position of the first root that led to it.
    pub(crate) root: usize,
}

impl Graph {
    /// Reads every document below these roots. The roots themselves were read when they were opened. If `platforms` is
    /// not empty, only the entries of indexes for these platforms are followed.
    pub(crate) async fn of(roots: &[&Root], platforms: &[Platform], foreign_layers: bool) -> Result<Graph> {
        Graph { foreign_layers, ..Graph::default() }.with(roots, platforms).await
    }

    /// Reads what is below these roots and is not part of another graph.
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

    /// Returns the nodes in the order of the copy: blobs, then documents by height.
    pub(crate) fn stages(&self) -> impl Iterator<Item = &Vec<Node>> {
        [&self.blobs].into_iter().chain(&self.documents)
    }

    /// Returns the descriptors in the order of the copy.
    pub(crate) fn plan(&self) -> Vec<Descriptor> {
        self.stages().flatten().map(|node| node.descriptor.clone()).collect()
    }

    /// Adds a node after its children and returns its height. The recursion is bounded, because [`read_all`] follows at
    /// most [`MAX_INDEX_DEPTH`] levels.
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

/// Documents by digest, with the media type that their bytes have.
type Documents = HashMap<Digest, (MediaType, Document)>;

/// Reads every document below a root. A digest that is not in the result is a blob.
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
    let held = DocumentBudget::default();
    for _ in 0..MAX_INDEX_DEPTH {
        if level.is_empty() {
            return Ok(documents);
        }
        level.iter().try_for_each(|next| held.add(next, &root.digest(), source))?;
        let read: Vec<_> = stream::iter(level.drain(..))
            .map(|descriptor| read_document(source, descriptor, &root_digest, &held))
            .buffered(MAX_PARALLEL_READS)
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

/// The total size of the documents that are held in memory together.
#[derive(Debug, Default)]
pub(crate) struct DocumentBudget(AtomicU64);

impl DocumentBudget {
    /// Adds a document that is about to be read. Its size is at most that of the descriptor, because reading fails
    /// otherwise.
    pub(crate) fn add(&self, document: &Descriptor, root: &Digest, place: &Arc<dyn Source>) -> Result<()> {
        // Of a blob only the first bytes are read, to find out whether it is a document.
        if !document.media_type.is_document() {
            return Ok(());
        }
        let add = |held| Some(add_size(held, document));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or_default();
        if add_size(before, document) <= MAX_DOCUMENTS_BYTES {
            return Ok(());
        }
        let what = format!("the documents and referrers of {root} exceed the limit of {MAX_DOCUMENTS_BYTES} bytes");
        Err(Error::Unsupported { place: place.to_string(), what })
    }
}

/// Adds sizes without overflow: the size in a descriptor is untrusted.
pub(crate) fn add_size(sum: u64, blob: &Descriptor) -> u64 {
    sum.saturating_add(blob.size)
}

pub(crate) fn too_deep(digest: &Digest, place: &Arc<dyn Source>) -> Error {
    Error::broken(place, format!("{digest} has indexes nested more than {MAX_INDEX_DEPTH} levels deep"))
}

/// Reads a document; returns `None` for a blob.
async fn read_document(
    source: &Arc<dyn Source>,
    descriptor: Descriptor,
    root: &Digest,
    held: &DocumentBudget,
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

/// Schema 1 manifests list their layers without sizes, and distribution 3 rejects such images. Copying the manifest
/// alone would produce an incomplete image (google/go-containerregistry#377).
fn schema1(digest: &Digest, place: &Arc<dyn Source>) -> Error {
    let what = format!("{digest} is a Docker schema 1 manifest, and schema 1 images are not supported");
    Error::Unsupported { place: place.to_string(), what }
}

/// Returns the child descriptors that may be documents and were not seen before.
fn below(document: &Document, seen: &mut HashSet<Digest>, platforms: &[Platform]) -> Vec<Descriptor> {
    let wanted = wanted(document.children().filter(|child| travels(child)), platforms);
    let documents = wanted.into_iter().filter(|child| document.may_be_document(child));
    documents.filter(|child| seen.insert(child.digest)).cloned().collect()
}

/// Returns whether a blob is copied by default. Non-distributable layers with `urls` are not: a client fetches them
/// from there. One without `urls` is copied whatever its media type says, because it exists nowhere else:
/// vmware-tanzu/carvel-imgpkg#8, moby/moby#34216.
pub(crate) fn travels(descriptor: &Descriptor) -> bool {
    descriptor.urls.is_empty() || !descriptor.media_type.is_foreign_layer()
}
