use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ocikit_spec::{Content, Descriptor, Digest, MediaType, Platform};

use crate::error::{Error, Result};
use crate::related::wanted;
use crate::root::Root;
use crate::source::Source;
use crate::walk::limits::Limits;
pub(crate) use crate::walk::limits::MAX_PARALLEL_READS;
use crate::walk::{Found, Walk, children};

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
    /// Documents that are left out with everything below them.
    present: Arc<HashSet<Digest>>,
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
    /// not empty, only the entries of indexes for these platforms are followed. Documents in `present` are left out.
    pub(crate) async fn of(
        roots: &[&Root],
        platforms: &[Platform],
        foreign_layers: bool,
        present: &Arc<HashSet<Digest>>,
    ) -> Result<Graph> {
        Graph { foreign_layers, present: present.clone(), ..Graph::default() }.with(roots, platforms).await
    }

    /// Reads what is below these roots and is not part of another graph.
    pub(crate) async fn after(other: &Graph, roots: &[&Root]) -> Result<Graph> {
        let (heights, foreign_layers, present) = (other.heights.clone(), other.foreign_layers, other.present.clone());
        Graph { heights, foreign_layers, present, ..Graph::default() }.with(roots, &[]).await
    }

    async fn with(mut self, roots: &[&Root], platforms: &[Platform]) -> Result<Graph> {
        for (position, root) in roots.iter().enumerate() {
            let outlines = self.read(root, platforms).await?;
            self.add(root.descriptor(), &outlines, root.source(), position);
        }
        Ok(self)
    }

    /// Reads every document below a root that is not in the graph. A digest without an outline is a blob.
    async fn read(&self, root: &Root, platforms: &[Platform]) -> Result<Outlines> {
        let mut outlines = Outlines::new();
        let mut walk = Walk::new(&**root.source(), Limits::IMAGE);
        walk.start_at(root)?;
        while let Some(node) = walk.next().await {
            let Found::Content(content) = node.found else { continue };
            let content = content?;
            let media_type = content.media_type(&node.descriptor.media_type);
            let document = match content {
                Content::Document(document) => document,
                Content::Blob => continue,
                Content::Schema1 => return Err(schema1(&node.path.digest, root.source())),
            };
            let children = children(&document).filter(|(_, child)| self.foreign_layers || travels(child));
            let children = children.filter(|(_, child)| !self.present.contains(&child.digest));
            let children = wanted(children, platforms);
            for (edge, child) in &children {
                if document.may_be_document(child) && !self.heights.contains_key(&child.digest) {
                    walk.add(&node.path, edge.clone(), child)?;
                }
            }
            let children = children.into_iter().map(|(_, child)| child.clone()).collect();
            outlines.insert(node.path.digest, (media_type, children));
        }
        Ok(outlines)
    }

    /// Returns the nodes in the order of the copy: blobs, then documents by height.
    pub(crate) fn stages(&self) -> impl Iterator<Item = &Vec<Node>> {
        [&self.blobs].into_iter().chain(&self.documents)
    }

    /// Returns the descriptors in the order of the copy.
    #[cfg(feature = "testing")]
    pub(crate) fn plan(&self) -> Vec<Descriptor> {
        self.stages().flatten().map(|node| node.descriptor.clone()).collect()
    }

    /// Adds a node after its children and returns its height. The recursion is bounded, because a walk follows at most
    /// [`MAX_DEPTH`](crate::walk::limits::MAX_DEPTH) levels.
    fn add(&mut self, descriptor: &Descriptor, outlines: &Outlines, source: &Arc<dyn Source>, root: usize) -> usize {
        if let Some(height) = self.heights.get(&descriptor.digest) {
            return *height;
        }
        let mut node = Node { descriptor: descriptor.clone(), source: source.clone(), root };
        let Some((media_type, children)) = outlines.get(&descriptor.digest) else {
            self.heights.insert(descriptor.digest, 0);
            self.blobs.push(node);
            return 0;
        };
        node.descriptor.media_type = media_type.clone();
        let highest = children.iter().map(|child| self.add(child, outlines, source, root)).max().unwrap_or(0);
        self.heights.insert(descriptor.digest, highest + 1);
        if self.documents.len() <= highest {
            self.documents.resize_with(highest + 1, Vec::new);
        }
        self.documents[highest].push(node);
        highest + 1
    }
}

/// What each document lists, by digest, and the media type that its bytes have.
type Outlines = HashMap<Digest, (MediaType, Vec<Descriptor>)>;

/// Schema 1 manifests list their layers without sizes, and distribution 3 rejects such images. Copying the manifest
/// alone would produce an incomplete image (google/go-containerregistry#377).
fn schema1(digest: &Digest, place: &Arc<dyn Source>) -> Error {
    let what = format!("{digest} is a Docker schema 1 manifest, and schema 1 images are not supported");
    Error::Unsupported { place: place.to_string(), what }
}

/// Adds sizes without overflow: the size in a descriptor is untrusted.
pub(crate) fn add_size(sum: u64, blob: &Descriptor) -> u64 {
    sum.saturating_add(blob.size)
}

/// Returns whether a blob is copied by default. Non-distributable layers with `urls` are not: a client fetches them
/// from there. One without `urls` is copied whatever its media type says, because it exists nowhere else:
/// vmware-tanzu/carvel-imgpkg#8, moby/moby#34216.
fn travels(descriptor: &Descriptor) -> bool {
    descriptor.urls.is_empty() || !descriptor.media_type.is_foreign_layer()
}
