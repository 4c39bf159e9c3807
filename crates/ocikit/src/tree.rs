use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ocikit_image::{Error, Kind, Result, Root, Source};
use ocikit_spec::{Annotations, Descriptor, Digest, Document, MediaType, Platform, annotations};
use serde::Serialize;

/// A root, everything below it, and the referrers of each part, as a tree.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tree {
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
    pub children: Vec<Tree>,
}

/// The relation of a node in a [`Tree`] to its parent.
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

/// The maximum depth, because indexes may be nested and signatures may be signed.
const MAX_TREE_DEPTH: usize = 16;

/// The maximum number of documents. Lists of referrers are untrusted and may form cycles.
const MAX_DOCUMENTS: usize = 10_000;

/// The number of documents that are read in parallel on each level.
const MAX_PARALLEL_READS: usize = 8;

/// Reads a root, everything below it and all referrers. Layers and configs are not read.
///
/// # Errors
///
/// Those of reading manifests and lists of referrers. A missing entry of an index is not an error but is reported as
/// missing.
pub async fn tree(root: &Root) -> Result<Tree> {
    let walk = Walk { source: root.source(), looked_at: AtomicUsize::new(0) };
    walk.document(root.clone(), Relation::Root, &[]).await
}

struct Walk<'a> {
    source: &'a Arc<dyn Source>,
    looked_at: AtomicUsize,
}

impl Walk<'_> {
    /// Returns the tree of a document; `above` are the digests of its ancestors.
    async fn document(&self, root: Root, relation: Relation, above: &[Digest]) -> Result<Tree> {
        let mut tree = Tree::of(root.descriptor(), relation);
        tree.kind = Some(Kind::of(&root).to_string());
        if self.looked_at.fetch_add(1, Ordering::Relaxed) >= MAX_DOCUMENTS || above.len() > MAX_TREE_DEPTH {
            return Err(Error::broken(
                self.source,
                format!("too many documents and referrers below {}", root.digest()),
            ));
        }
        let path = [above, &[root.digest()]].concat();
        match root.document() {
            Some(Document::Manifest(manifest)) => {
                tree.artifact_type = manifest.artifact_type().cloned().or(tree.artifact_type);
                let config = manifest.config().filter(|config| config.media_type != MediaType::OCI_EMPTY);
                tree.children.extend(config.map(|config| Tree::of(config, Relation::Config)));
                tree.children.extend(manifest.layers().iter().map(|layer| Tree::of(layer, Relation::Layer)));
            }
            Some(Document::Index(index)) => {
                tree.artifact_type = index.artifact_type().cloned();
                tree.children = self.entries(index.manifests(), &path).await?;
            }
            None => {}
        }
        tree.add_up();
        if relation != Relation::Attestation {
            let referrers = self.source.referrers(&root.digest()).await?;
            let new: Vec<_> = referrers.into_iter().filter(|found| !path.contains(&found.digest)).collect();
            tree.children.extend(self.all(&new, Relation::Referrer, &path).await?);
        }
        Ok(tree)
    }

    /// Returns the trees of the entries of an index, with attestation manifests below the entry that they refer to.
    async fn entries(&self, entries: &[Descriptor], path: &[Digest]) -> Result<Vec<Tree>> {
        let attests = |entry: &Descriptor| -> Option<Digest> {
            let digest = entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST)?.parse().ok()?;
            let is_here = entries.iter().any(|other| other.digest == digest && !other.is_attestation());
            (entry.is_attestation() && is_here).then_some(digest)
        };
        let (hanging, standing): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(|entry| attests(entry).is_some());
        let mut trees = self.all(&standing, Relation::Manifest, path).await?;
        let attestations = self.all(&hanging, Relation::Attestation, path).await?;
        for (attestation, entry) in attestations.into_iter().zip(&hanging) {
            let subject = trees.iter_mut().find(|tree| Some(tree.digest) == attests(entry));
            if let Some(subject) = subject {
                // Newer attestation manifests also have a subject, so they are found twice.
                subject.children.retain(|child| child.digest != attestation.digest);
                // Before the referrers, because they are part of the index.
                let first = subject.children.iter().position(|child| child.relation == Relation::Referrer);
                subject.children.insert(first.unwrap_or(subject.children.len()), attestation);
            }
        }
        Ok(trees)
    }

    /// Boxed, because the function is recursive.
    fn all<'a>(
        &'a self,
        entries: &'a [Descriptor],
        relation: Relation,
        path: &'a [Digest],
    ) -> BoxFuture<'a, Result<Vec<Tree>>> {
        let looked = entries.iter().map(move |entry| self.entry(entry, relation, path));
        stream::iter(looked).buffered(MAX_PARALLEL_READS).try_collect().boxed()
    }

    async fn entry(&self, entry: &Descriptor, relation: Relation, path: &[Digest]) -> Result<Tree> {
        match Root::at(self.source.clone(), entry.clone()).await {
            Ok(root) => self.document(root, relation, path).await,
            Err(error @ (Error::NotFound { .. } | Error::Document { .. } | Error::Mismatch { .. })) => {
                Ok(Tree { missing: Some(error.to_string()), ..Tree::of(entry, relation) })
            }
            Err(error) => Err(error),
        }
    }
}

impl Tree {
    fn of(descriptor: &Descriptor, relation: Relation) -> Tree {
        Tree {
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

        let shown = |tree: &Tree| tree.children.iter().map(|child| (child.relation, child.digest)).collect::<Vec<_>>();
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
