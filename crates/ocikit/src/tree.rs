use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ocikit_image::{Error, Kind, Result, Root, Source};
use ocikit_spec::{Annotations, Descriptor, Digest, Document, MediaType, Platform, annotations};
use serde::Serialize;

/// What hangs together: a root, everything below it, and what others say about each part.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tree {
    /// Why it is at its place.
    pub relation: Relation,
    /// What a document is, in one word; nothing for blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its own size in bytes.
    pub size: u64,
    /// The sizes of everything below it and of itself, each digest once, what others say about it left out.
    pub total_size: u64,
    /// What kind of artifact it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// What it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The annotations of the descriptor that led here.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// Why there is no more: the document is not here, as in an index that was copied in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What is below: configs and layers or manifests first, then attestations, then referrers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Tree>,
}

/// Why something is where it is in a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// It is what was asked for.
    Root,
    /// An index lists it.
    Manifest,
    /// It is the config of the manifest above.
    Config,
    /// It is a layer of the manifest above.
    Layer,
    /// The same index lists it as an attestation of the manifest above.
    Attestation,
    /// The document above is its subject.
    Referrer,
}

/// How deep is looked, as indexes may be nested and signatures signed.
const DEEPEST: usize = 16;

/// How many documents are looked at: whoever can write a list of referrers could let them name each other.
const MOST: usize = 10_000;

/// How many documents are read at the same time, on each level.
const AT_ONCE: usize = 8;

/// Looks at everything that hangs together with a root. Layers and configs are not read.
///
/// # Errors
///
/// Those of reading manifests and lists of referrers. What an index lists and is not there is no error: it is reported as
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
    /// A document and what hangs at it; `above` are the digests on the way here.
    async fn document(&self, root: Root, relation: Relation, above: &[Digest]) -> Result<Tree> {
        let mut tree = Tree::of(root.descriptor(), relation);
        tree.kind = Some(Kind::of(&root).to_string());
        if self.looked_at.fetch_add(1, Ordering::Relaxed) >= MOST || above.len() > DEEPEST {
            return Err(Error::broken(self.source, format!("more hangs at {} than is looked at", root.digest())));
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

    /// The entries of an index, attestations with the entry that they speak about.
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
                // Newer attestations name their subject as well: once is enough.
                subject.children.retain(|child| child.digest != attestation.digest);
                // In front of the referrers, as it is nearer.
                let first = subject.children.iter().position(|child| child.relation == Relation::Referrer);
                subject.children.insert(first.unwrap_or(subject.children.len()), attestation);
            }
        }
        Ok(trees)
    }

    /// Boxed, since a tree is made of trees.
    fn all<'a>(
        &'a self,
        entries: &'a [Descriptor],
        relation: Relation,
        path: &'a [Digest],
    ) -> BoxFuture<'a, Result<Vec<Tree>>> {
        let looked = entries.iter().map(move |entry| self.entry(entry, relation, path));
        stream::iter(looked).buffered(AT_ONCE).try_collect().boxed()
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

    /// Adds up the sizes of what is below.
    fn add_up(&mut self) {
        let mut seen = HashSet::new();
        let mut waiting = vec![&*self];
        let mut total = 0_u64;
        while let Some(tree) = waiting.pop() {
            if seen.insert(tree.digest) {
                total = total.saturating_add(tree.size);
                // An attestation is listed by the index, so it belongs to that; a referrer belongs to nobody.
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
    async fn what_hangs_together_is_shown_together() {
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
        // The layer that both images have counts once.
        let layers = 10 + 1000 + 1000 + 5;
        assert!(found.total_size > layers && found.total_size < layers + 5000, "{}", found.total_size);
    }

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let memory = Arc::new(Memory::new());
        let absent = Descriptor::of(MediaType::OCI_MANIFEST, b"absent");
        let index = testing::index(&memory, &[absent]);
        let found = tree(&Root::at(memory, index).await.unwrap()).await.unwrap();
        assert!(found.children[0].missing.is_some());
    }
}
