use std::fmt;
use std::sync::Arc;

use ocikit_spec::{Descriptor, Digest, Document, Tag};

/// The field of a document, or the relation, that leads from one node to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edge {
    /// A start of the walk, with the text for the beginning of a path.
    Start(Arc<str>),
    /// A list of documents outside of them, such as `index.json`, with its name.
    List(Arc<str>),
    /// An entry of an index, by position.
    Manifest(usize),
    /// The config of a manifest.
    Config,
    /// A layer of a manifest, by position.
    Layer(usize),
    /// The subject of a referrer.
    Subject,
    /// An entry in the list of referrers, by position.
    Referrer(usize),
    /// A fallback tag for a referrer, such as `sha256-HEX.sig`.
    Tag(Tag),
}

/// The steps from a start to a node. `Display` shows them: `index > manifests[0] > config`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Path {
    /// The path of the parent; `None` for a start.
    pub parent: Option<Arc<Path>>,
    /// The last step.
    pub edge: Edge,
    /// The digest of the node.
    pub digest: Digest,
    /// The number of steps. A list of documents does not count: its entries have depth 0.
    pub depth: usize,
    /// The number of steps from a subject to a referrer among them; 0 for the parts of an image.
    pub distance: usize,
}

impl Path {
    /// Returns the path of a list of documents, such as `index.json`, as the parent of its entries.
    pub fn list(name: impl Into<Arc<str>>, digest: Digest) -> Arc<Path> {
        Arc::new(Path { parent: None, edge: Edge::List(name.into()), digest, depth: 0, distance: 0 })
    }

    /// Returns the path of a node below its parent.
    pub(super) fn below(parent: Option<Arc<Path>>, edge: Edge, digest: Digest) -> Path {
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + usize::from(!parent.is_list()));
        let is_referrer = matches!(edge, Edge::Referrer(_) | Edge::Tag(_));
        let distance = parent.as_ref().map_or(0, |parent| parent.distance) + usize::from(is_referrer);
        Path { parent, edge, digest, depth, distance }
    }

    fn is_list(&self) -> bool {
        matches!(self.edge, Edge::List(_))
    }

    /// Returns whether a digest is that of the node or of one above it.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.digest == *digest || self.parent.as_ref().is_some_and(|parent| parent.contains(digest))
    }

    /// Returns whether it is a start or an entry of a list.
    pub fn is_root(&self) -> bool {
        self.parent.as_ref().is_none_or(|parent| parent.is_list())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write!(f, "{parent} > ")?;
        }
        self.edge.fmt(f)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edge::Start(name) | Edge::List(name) => f.write_str(name),
            Edge::Manifest(at) => write!(f, "manifests[{at}]"),
            Edge::Config => f.write_str("config"),
            Edge::Layer(at) => write!(f, "layers[{at}]"),
            Edge::Subject => f.write_str("subject"),
            Edge::Referrer(at) => write!(f, "referrers[{at}]"),
            Edge::Tag(tag) => write!(f, "{tag}"),
        }
    }
}

/// Returns the children of a document, each with the step that leads to it.
pub fn children(document: &Document) -> impl Iterator<Item = (Edge, &Descriptor)> {
    let (config, layers, manifests) = match document {
        Document::Manifest(manifest) => (manifest.config(), manifest.layers(), &[][..]),
        Document::Index(index) => (None, &[][..], index.manifests()),
    };
    let layers = layers.iter().enumerate().map(|(at, layer)| (Edge::Layer(at), layer));
    let manifests = manifests.iter().enumerate().map(|(at, entry)| (Edge::Manifest(at), entry));
    config.into_iter().map(|config| (Edge::Config, config)).chain(layers).chain(manifests)
}
