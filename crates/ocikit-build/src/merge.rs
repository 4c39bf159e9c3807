use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_image::{Body, ByteRange, Error, Memory, Name, Result, Root, Source};
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Repository};

/// Returns one index with all images and attestations of these roots, in their order.
///
/// # Errors
///
/// Those of reading the configs of images whose descriptors name no platform.
pub(crate) async fn merge(roots: Vec<Root>) -> Result<Root> {
    let mut entries: Vec<Descriptor> = Vec::new();
    for root in &roots {
        match root {
            Root::Index(index) => entries.extend(index.manifests().iter().cloned()),
            Root::Image(image) => {
                let mut entry = image.descriptor().clone();
                entry.annotations = ocikit_spec::Annotations::new();
                if entry.platform.is_none() {
                    entry.platform = image.config().await?.platform().cloned();
                }
                entries.push(entry);
            }
            Root::Other(artifact) => entries.push(artifact.descriptor().clone()),
        }
    }
    let mut seen = std::collections::HashSet::new();
    entries.retain(|entry| seen.insert(entry.digest));
    let index = Index::of(&entries);
    let memory = Arc::new(Memory::new());
    let digest = memory.insert(index.bytes().clone());
    let descriptor = Descriptor::new(MediaType::OCI_INDEX, digest, index.bytes().len() as u64);
    let sources = roots.iter().map(|root| root.source().clone());
    let source: Arc<dyn Source> = Arc::new(Union { sources: sources.chain([memory as Arc<dyn Source>]).collect() });
    Root::at(source, descriptor).await
}

/// The documents of several sources, at least one.
#[derive(Debug)]
pub(crate) struct Union {
    pub(crate) sources: Vec<Arc<dyn Source>>,
}

impl Union {
    /// Returns the first source that has a blob.
    async fn holder(&self, descriptor: &Descriptor) -> Result<&Arc<dyn Source>> {
        for source in &self.sources {
            if source.has(descriptor).await? {
                return Ok(source);
            }
        }
        Err(Error::not_found(descriptor.digest, self))
    }
}

impl fmt::Display for Union {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sources.first() {
            Some(first) => first.fmt(f),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Source for Union {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        match self.sources.first() {
            Some(first) => first.resolve(name).await,
            None => Err(Error::not_found(name, self)),
        }
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.holder(descriptor).await?.open_unverified(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.holder(descriptor).await.is_ok())
    }

    fn held(&self, digest: &Digest) -> Option<Bytes> {
        self.sources.iter().find_map(|source| source.held(digest))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = Vec::new();
        for source in &self.sources {
            for referrer in source.referrers(subject).await? {
                if found.iter().all(|known| known.digest != referrer.digest) {
                    found.push(referrer);
                }
            }
        }
        Ok(found)
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        self.sources.iter().find_map(|source| source.repository(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use ocikit_image::testing;

    use super::*;

    #[tokio::test]
    async fn images_of_several_sources_become_one_index() {
        let mut roots = Vec::new();
        for (seed, platform) in [(1, "linux/amd64"), (2, "linux/arm64")] {
            let memory = Arc::new(Memory::new());
            let image = testing::image(&memory, seed, &platform.parse().unwrap(), &[100]);
            roots.push(Root::at(memory, image).await.unwrap());
        }
        let Root::Index(index) = merge(roots).await.unwrap() else { panic!("an index") };
        let platforms: Vec<_> = index.manifests().iter().map(|entry| entry.platform.clone().unwrap().to_string()).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        for entry in index.manifests() {
            index.open(entry).await.unwrap();
        }
    }
}
