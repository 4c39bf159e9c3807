use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ocikit_image::walk::limits::Limits;
use ocikit_image::walk::{Edge, Found, Node, Walk};
use ocikit_image::{ArtifactKind, Error, Result, Root};
use ocikit_spec::{Annotations, Descriptor, Digest, Document, MediaType, Platform, annotations};
use serde::Serialize;

/// A root, everything below it, and the referrers of each part, as a tree.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageTree {
    /// Its relation to the parent.
    pub relation: Relation,
    /// The kind of a document; `None` for blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its own size in bytes.
    pub size: u64,
    /// The total size in bytes of itself and everything below it, each digest once, without referrers.
    pub total_size: u64,
    /// The artifact type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The annotations of its descriptor.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// Why there are no children: the document does not exist, for example because the index was copied in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The children: first configs and layers, or manifests; then attestation manifests, then referrers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ImageTree>,
}

/// The relation of a node in a [`ImageTree`] to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// The requested root.
    Root,
    /// An entry of the parent index.
    Manifest,
    /// The config of the parent manifest.
    Config,
    /// A layer of the parent manifest.
    Layer,
    /// An attestation manifest for the parent manifest, from the same index.
    Attestation,
    /// A referrer, whose subject is the parent.
    Referrer,
}

/// Reads a root, everything below it and all referrers. Layers and configs are not read.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let layout = ocikit::image::testing::TemporaryLayout::new();
/// # let app = ocikit::Location::layout(layout.path());
/// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
/// let tree = ocikit::tree(&session.open(&app).await?).await?;
/// assert_eq!(tree.children.len(), 2, "config and layer");
/// # Ok::<(), ocikit::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of reading manifests and lists of referrers. A missing entry of an index is not an error but is reported as
/// missing.
pub async fn tree(root: &Root) -> Result<ImageTree> {
    let source = root.source();
    let mut walk = Walk::reading(&**source, Limits::IMAGE, |descriptor| Root::at(source.clone(), descriptor));
    walk.start_with(root.descriptor(), Ok(root.clone()))?;
    // Parents come before their children.
    let mut visits: Vec<Visit> = Vec::new();
    let mut positions = HashMap::new();
    while let Some(Node { descriptor, path, found, .. }) = walk.next().await {
        let opened = match found {
            Found::Content(opened) => opened,
            Found::Referrers(listed) => {
                // A list of referrers is untrusted and may form a cycle.
                for referrer in listed?.into_iter().filter(|referrer| !path.contains(&referrer.descriptor.digest)) {
                    walk.add_again(&path, referrer.edge, &referrer.descriptor)?;
                }
                continue;
            }
            Found::Unread => continue,
        };
        let parent = path.parent.as_ref().and_then(|parent| positions.get(&Arc::as_ptr(parent).addr()).copied());
        let images = parent.and_then(|parent| visits.get(parent)).map(|parent: &Visit| &parent.images);
        let relation = match (&path.edge, attested(&descriptor)) {
            (Edge::Referrer(_), _) => Relation::Referrer,
            (Edge::Manifest(_), Some(image)) if images.is_some_and(|images| images.contains(&image)) => {
                Relation::Attestation
            }
            (Edge::Manifest(_), _) => Relation::Manifest,
            _ => Relation::Root,
        };
        let mut visit =
            Visit { parent, tree: ImageTree::of(&descriptor, relation), images: HashSet::new(), below: Vec::new() };
        positions.insert(Arc::as_ptr(&path).addr(), visits.len());
        match opened {
            Err(error @ (Error::NotFound { .. } | Error::Document { .. } | Error::Mismatch { .. })) => {
                visit.tree.missing = Some(error.to_string());
            }
            Err(error) => return Err(error),
            Ok(opened) => {
                visit.tree = ImageTree::of_document(&opened, relation);
                if let Some(Document::Index(index)) = opened.document() {
                    let images = index.manifests().iter().filter(|entry| !entry.is_attestation());
                    visit.images = images.map(|entry| entry.digest).collect();
                    for (at, entry) in index.manifests().iter().enumerate() {
                        walk.add_again(&path, Edge::Manifest(at), entry)?;
                    }
                }
                if relation != Relation::Attestation {
                    walk.add_referrers(&path, &[]);
                }
            }
        }
        visits.push(visit);
    }
    while let Some(visit) = visits.pop() {
        let parent = visit.parent;
        let tree = visit.finish();
        match parent.and_then(|parent| visits.get_mut(parent)) {
            Some(parent) => parent.below.push(tree),
            None => return Ok(tree),
        }
    }
    Err(Error::not_found(root.digest(), source))
}

/// Returns the digest of the image that an attestation manifest is for.
fn attested(entry: &Descriptor) -> Option<Digest> {
    entry.described_image().filter(|_| entry.is_attestation())
}

/// A visited document, whose children are collected from the last to the first.
struct Visit {
    parent: Option<usize>,
    /// The document with its config and layers.
    tree: ImageTree,
    /// The images in an index, which its attestation manifests are shown below.
    images: HashSet<Digest>,
    below: Vec<ImageTree>,
}

impl Visit {
    fn finish(self) -> ImageTree {
        let Visit { mut tree, below, .. } = self;
        let (referrers, entries): (Vec<_>, Vec<_>) =
            below.into_iter().rev().partition(|child| child.relation == Relation::Referrer);
        let (attestations, images): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|child| child.relation == Relation::Attestation);
        tree.children.extend(images);
        for attestation in attestations {
            let image = attestation.annotations.get(annotations::DOCKER_REFERENCE_DIGEST);
            let image = image.and_then(|image| image.parse::<Digest>().ok());
            let Some(image) = tree.children.iter_mut().find(|child| Some(child.digest) == image) else { continue };
            // Newer attestation manifests also have a subject, so they are found twice.
            image.children.retain(|child| child.digest != attestation.digest);
            // Before the referrers, because they are part of the index.
            let first = image.children.iter().position(|child| child.relation == Relation::Referrer);
            image.children.insert(first.unwrap_or(image.children.len()), attestation);
        }
        tree.add_up();
        tree.children.extend(referrers);
        tree
    }
}

impl ImageTree {
    fn of(descriptor: &Descriptor, relation: Relation) -> ImageTree {
        ImageTree {
            relation,
            kind: None,
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
            size: descriptor.size,
            total_size: descriptor.size,
            artifact_type: descriptor.artifact_type.clone(),
            platform: descriptor.platform.clone().filter(|platform| !platform.is_unknown()),
            annotations: descriptor.annotations.clone(),
            missing: None,
            children: Vec::new(),
        }
    }

    /// Returns a document with its config and layers.
    fn of_document(root: &Root, relation: Relation) -> ImageTree {
        let mut tree =
            ImageTree { kind: Some(ArtifactKind::of(root).to_string()), ..ImageTree::of(root.descriptor(), relation) };
        match root.document() {
            Some(Document::Manifest(manifest)) => {
                tree.artifact_type = manifest.artifact_type().cloned().or(tree.artifact_type);
                let config = manifest.config().filter(|config| config.media_type != MediaType::OCI_EMPTY);
                tree.children.extend(config.map(|config| ImageTree::of(config, Relation::Config)));
                tree.children.extend(manifest.layers().iter().map(|layer| ImageTree::of(layer, Relation::Layer)));
            }
            Some(Document::Index(index)) => tree.artifact_type = index.artifact_type().cloned(),
            None => {}
        }
        tree
    }

    /// Adds up the sizes of everything below.
    fn add_up(&mut self) {
        let mut seen = HashSet::new();
        let mut waiting = vec![&*self];
        let mut total = 0_u64;
        while let Some(tree) = waiting.pop() {
            if seen.insert(tree.digest) {
                total = total.saturating_add(tree.size);
                // An attestation manifest is an entry of the index and counts; a referrer is not part of the image.
                waiting.extend(tree.children.iter().filter(|child| child.relation != Relation::Referrer));
            }
        }
        self.total_size = total;
    }
}

#[cfg(test)]
mod tests {
    use ocikit_image::{Memory, testing};

    use super::*;

    #[tokio::test]
    async fn tree_shows_children_and_referrers() {
        let memory = Arc::new(Memory::new());
        let one = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[10, 1000]);
        let two = testing::image(&memory, 2, &"linux/arm64".parse().unwrap(), &[1000]);
        let mut attestation = testing::image(&memory, 3, &"unknown/unknown".parse().unwrap(), &[5]);
        attestation.annotations.insert(annotations::DOCKER_REFERENCE_TYPE, "attestation-manifest");
        attestation.annotations.insert(annotations::DOCKER_REFERENCE_DIGEST, two.digest.to_string());
        let index = testing::index(&memory, &[one.clone(), two.clone(), attestation.clone()]);
        let sbom = testing::referrer(&memory, &two, "application/sbom");
        let signature = testing::referrer(&memory, &sbom, "application/signature");
        let found = tree(&Root::at(memory, index).await.unwrap()).await.unwrap();

        let shown =
            |tree: &ImageTree| tree.children.iter().map(|child| (child.relation, child.digest)).collect::<Vec<_>>();
        use Relation::{Attestation, Manifest, Referrer};
        assert_eq!(shown(&found), [(Manifest, one.digest), (Manifest, two.digest)]);
        let below = &found.children[1];
        assert_eq!(shown(below)[2..], [(Attestation, attestation.digest), (Referrer, sbom.digest)]);
        assert_eq!(shown(below.children.last().unwrap()).last(), Some(&(Referrer, signature.digest)));
        // The layer that both images share counts once.
        let layers = 10 + 1000 + 1000 + 5;
        assert!(found.total_size > layers && found.total_size < layers + 5000, "{}", found.total_size);
    }

    #[tokio::test]
    async fn missing_documents_are_reported() {
        let memory = Arc::new(Memory::new());
        let absent = Descriptor::of(MediaType::OCI_MANIFEST, b"absent");
        let index = testing::index(&memory, &[absent]);
        let found = tree(&Root::at(memory, index).await.unwrap()).await.unwrap();
        assert!(found.children[0].missing.is_some());
    }
}
