use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Descriptor, Digest, Document};

use crate::error::{Error, Result};
use crate::root::Root;
use crate::source::{Source, SourceExt};

/// How deep indexes may be nested. Real ones are two deep.
pub(crate) const DEEPEST: usize = 16;

/// How many documents are read at the same time.
const AT_ONCE: usize = 8;

/// Everything below a root, each digest once, children before their parents.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Layers, configs and whatever else is not a document, in the order in which the documents name them.
    pub(crate) blobs: Vec<Descriptor>,
    /// Documents by height: those that point to no others first, the root last.
    pub(crate) documents: Vec<Vec<Descriptor>>,
}

impl Graph {
    /// Reads every document below a root, the root's own excepted, which was read when it was opened.
    pub(crate) async fn of(root: &Root) -> Result<Graph> {
        let documents = read_all(root).await?;
        let mut graph = Graph { blobs: Vec::new(), documents: Vec::new() };
        let mut heights = HashMap::new();
        graph.add(root.descriptor(), &documents, &mut heights);
        Ok(graph)
    }

    /// Blobs, then documents by height: the order in which they are put.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(self.documents.iter().flatten())
    }

    /// Adds a node behind its children and returns its height. Recursion is bounded: [`read_all`] went no deeper than
    /// [`DEEPEST`].
    fn add(
        &mut self,
        descriptor: &Descriptor,
        documents: &HashMap<Digest, Option<Document>>,
        heights: &mut HashMap<Digest, usize>,
    ) -> usize {
        if let Some(height) = heights.get(&descriptor.digest) {
            return *height;
        }
        let Some(document) = documents.get(&descriptor.digest) else {
            heights.insert(descriptor.digest, 0);
            self.blobs.push(descriptor.clone());
            return 0;
        };
        let children: Vec<_> = document.iter().flat_map(Document::children).filter(|child| travels(child)).collect();
        let highest = children.into_iter().map(|child| self.add(child, documents, heights)).max().unwrap_or(0);
        heights.insert(descriptor.digest, highest + 1);
        if self.documents.len() <= highest {
            self.documents.resize(highest + 1, Vec::new());
        }
        self.documents[highest].push(descriptor.clone());
        highest + 1
    }
}

/// Every document below a root by digest; `None` for the kinds that are passed on without being understood.
async fn read_all(root: &Root) -> Result<HashMap<Digest, Option<Document>>> {
    let source = root.source();
    let mut documents = HashMap::from([(root.digest(), root.document())]);
    let mut seen = HashSet::from([root.digest()]);
    let mut level: Vec<Descriptor> = below(&root.document(), &mut seen);
    for _ in 0..DEEPEST {
        if level.is_empty() {
            return Ok(documents);
        }
        let read: Vec<_> = stream::iter(level.drain(..))
            .map(|descriptor| read_document(source, descriptor))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (digest, document) in read {
            level.extend(below(&document, &mut seen));
            documents.insert(digest, document);
        }
    }
    Err(too_deep(&root.digest(), source))
}

pub(crate) fn too_deep(digest: &Digest, place: &Arc<dyn Source>) -> Error {
    Error::broken(place, format!("{digest} nests indexes more than {DEEPEST} deep"))
}

async fn read_document(source: &Arc<dyn Source>, descriptor: Descriptor) -> Result<(Digest, Option<Document>)> {
    if descriptor.media_type.is_schema1() {
        return Ok((descriptor.digest, None));
    }
    Ok((descriptor.digest, Some(source.document(&descriptor).await?)))
}

/// The documents that a document points to and nobody has seen.
fn below(document: &Option<Document>, seen: &mut HashSet<Digest>) -> Vec<Descriptor> {
    let children = document.iter().flat_map(Document::children);
    children.filter(|child| child.media_type.is_document() && seen.insert(child.digest)).cloned().collect()
}

/// Layers that may not be distributed stay where they are: their descriptor says where to fetch them.
fn travels(descriptor: &Descriptor) -> bool {
    let name = descriptor.media_type.as_str();
    !(name.contains(".nondistributable.") || name.contains(".rootfs.foreign."))
}
