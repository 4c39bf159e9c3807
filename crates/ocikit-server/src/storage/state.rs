//! The index of a registry: which repository has which blobs, manifests, tags and referrers.
//!
//! It contains no bytes. Both kinds of storage keep an index in memory; the one on disk also writes down each change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ocikit_spec::{Annotations, Descriptor, Digest, Document, MediaType, Tag};
use serde::{Deserialize, Serialize};

use crate::name::RepositoryName;
use crate::route::ManifestReference;
use crate::rules::Children;

/// The metadata of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestEntry {
    pub(crate) media_type: MediaType,
    pub(crate) size: u64,
    /// The subject. The fields below are set only for a manifest with a subject, for the list of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<MediaType>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub(crate) annotations: Annotations,
}

impl ManifestEntry {
    /// Creates the metadata of a manifest with these bytes; `document` is `None` if it cannot be parsed.
    pub(crate) fn of(media_type: MediaType, bytes: &[u8], document: Option<&Document>) -> ManifestEntry {
        let referring = document.and_then(|document| Some((document, document.subject()?.digest)));
        ManifestEntry {
            media_type,
            size: bytes.len() as u64,
            subject: referring.map(|(_, subject)| subject),
            artifact_type: referring.and_then(|(document, _)| listed_type(document)),
            annotations: referring.map(|(document, _)| document.annotations().clone()).unwrap_or_default(),
        }
    }

    fn descriptor(&self, digest: Digest) -> Descriptor {
        Descriptor {
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
            ..Descriptor::new(self.media_type.clone(), digest, self.size)
        }
    }
}

/// Returns the artifact type for a list of referrers: distribution specification, "Listing Referrers". Unlike in the
/// image specification, a manifest without one has the media type of its config, even if that is the config of a
/// container image.
fn listed_type(document: &Document) -> Option<MediaType> {
    let (stated, config) = match document {
        Document::Manifest(manifest) => (manifest.artifact_type(), manifest.config().map(|config| &config.media_type)),
        Document::Index(index) => (index.artifact_type(), None),
    };
    stated.filter(|stated| !stated.as_str().is_empty()).or(config).cloned()
}

/// The index of a registry.
#[derive(Debug, Default)]
pub(crate) struct RegistryIndex {
    repositories: BTreeMap<RepositoryName, RepositoryContents>,
    bytes: HashMap<Digest, StoredBytes>,
}

#[derive(Debug, Default)]
struct RepositoryContents {
    blobs: HashSet<Digest>,
    manifests: HashMap<Digest, ManifestEntry>,
    tags: BTreeMap<Tag, Digest>,
    /// By subject.
    referrers: HashMap<Digest, BTreeSet<Digest>>,
}

impl RepositoryContents {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.manifests.is_empty()
    }
}

#[derive(Debug)]
struct StoredBytes {
    size: u64,
    /// Number of references by repositories, as a blob or as a manifest.
    references: usize,
}

/// Whether the bytes of a deleted object are still referenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteReferences {
    /// Another repository references them.
    Remaining,
    /// Nothing references them.
    None,
}

impl RegistryIndex {
    /// Returns the size of stored bytes, whichever repository references them.
    pub(crate) fn held(&self, digest: &Digest) -> Option<u64> {
        self.bytes.get(digest).map(|held| held.size)
    }

    /// Returns the size of a blob of a repository.
    pub(crate) fn blob(&self, name: &RepositoryName, digest: &Digest) -> Option<u64> {
        let holds = self.repositories.get(name).is_some_and(|holdings| holdings.blobs.contains(digest));
        holds.then(|| self.held(digest)).flatten()
    }

    /// Returns the repositories that have a blob.
    pub(crate) fn repositories_with(&self, digest: &Digest) -> impl Iterator<Item = &RepositoryName> {
        self.repositories.iter().filter(|(_, holdings)| holdings.blobs.contains(digest)).map(|(name, _)| name)
    }

    /// Returns the manifest that a reference names.
    pub(crate) fn manifest(
        &self,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> Option<(Digest, &ManifestEntry)> {
        let holdings = self.repositories.get(name)?;
        let digest = match reference {
            ManifestReference::Digest(digest) => digest,
            ManifestReference::Tag(tag) => holdings.tags.get(tag)?,
        };
        holdings.manifests.get(digest).map(|entry| (*digest, entry))
    }

    /// Returns the tags of a repository in order; `None` if the repository does not exist.
    pub(crate) fn tags(&self, name: &RepositoryName) -> Option<impl Iterator<Item = &Tag>> {
        self.repositories.get(name).map(|holdings| holdings.tags.keys())
    }

    /// Returns the tags of a manifest.
    pub(crate) fn tags_of(&self, name: &RepositoryName, digest: &Digest) -> Vec<Tag> {
        let tags = self.repositories.get(name).into_iter().flat_map(|holdings| &holdings.tags);
        tags.filter(|(_, tagged)| *tagged == digest).map(|(tag, _)| tag.clone()).collect()
    }

    /// Returns all repositories in order.
    pub(crate) fn repositories(&self) -> impl Iterator<Item = &RepositoryName> {
        self.repositories.keys()
    }

    /// Returns the referrers of a subject in a repository, in the order of their digests.
    pub(crate) fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Vec<Descriptor> {
        let Some(holdings) = self.repositories.get(name) else { return Vec::new() };
        let listed = holdings.referrers.get(subject).into_iter().flatten();
        listed.filter_map(|digest| Some(holdings.manifests.get(digest)?.descriptor(*digest))).collect()
    }

    /// Returns the children of a document that the repository lacks.
    pub(crate) fn missing(&self, name: &RepositoryName, document: &Document, rule: Children) -> Vec<Digest> {
        match (rule, document) {
            (Children::Any, _) | (Children::SparseIndexes, Document::Index(_)) => return Vec::new(),
            _ => {}
        }
        let empty = RepositoryContents::default();
        let holdings = self.repositories.get(name).unwrap_or(&empty);
        // An index may list blobs: BuildKit stores caches in this form.
        let here = |child: &&Descriptor| match child.media_type.is_document() {
            true => holdings.manifests.contains_key(&child.digest),
            false => holdings.blobs.contains(&child.digest) || holdings.manifests.contains_key(&child.digest),
        };
        // Layers that must not be distributed are downloaded from the URLs in their descriptor.
        let children = document.children().filter(|child| !child.media_type.is_foreign_layer());
        children.filter(|child| !here(child)).map(|child| child.digest).collect()
    }

    /// Adds a blob to a repository.
    pub(crate) fn add_blob(&mut self, name: &RepositoryName, digest: Digest, size: u64) {
        if self.repositories.entry(name.clone()).or_default().blobs.insert(digest) {
            self.hold(digest, size);
        }
    }

    /// Removes a blob from a repository; `None` if it does not have it.
    pub(crate) fn remove_blob(&mut self, name: &RepositoryName, digest: &Digest) -> Option<ByteReferences> {
        let removed = self.repositories.get_mut(name)?.blobs.remove(digest);
        self.forget_if_empty(name);
        removed.then(|| self.release(digest))
    }

    /// Adds a manifest to a repository.
    pub(crate) fn add_manifest(&mut self, name: &RepositoryName, digest: Digest, entry: ManifestEntry) {
        let size = entry.size;
        let holdings = self.repositories.entry(name.clone()).or_default();
        if let Some(subject) = entry.subject {
            holdings.referrers.entry(subject).or_default().insert(digest);
        }
        if holdings.manifests.insert(digest, entry).is_none() {
            self.hold(digest, size);
        }
    }

    /// Removes a manifest and its tags from a repository; `None` if it does not have it.
    pub(crate) fn remove_manifest(&mut self, name: &RepositoryName, digest: &Digest) -> Option<ByteReferences> {
        let holdings = self.repositories.get_mut(name)?;
        let entry = holdings.manifests.remove(digest)?;
        holdings.tags.retain(|_, tagged| tagged != digest);
        if let Some(subject) = entry.subject
            && let Some(listed) = holdings.referrers.get_mut(&subject)
        {
            listed.remove(digest);
            if listed.is_empty() {
                holdings.referrers.remove(&subject);
            }
        }
        self.forget_if_empty(name);
        Some(self.release(digest))
    }

    /// Points a tag to a manifest, which must exist.
    pub(crate) fn set_tag(&mut self, name: &RepositoryName, tag: Tag, digest: Digest) {
        if let Some(holdings) = self.repositories.get_mut(name)
            && holdings.manifests.contains_key(&digest)
        {
            holdings.tags.insert(tag, digest);
        }
    }

    /// Removes a tag and returns whether it existed.
    pub(crate) fn remove_tag(&mut self, name: &RepositoryName, tag: &Tag) -> bool {
        self.repositories.get_mut(name).is_some_and(|holdings| holdings.tags.remove(tag).is_some())
    }

    fn hold(&mut self, digest: Digest, size: u64) {
        self.bytes.entry(digest).or_insert(StoredBytes { size, references: 0 }).references += 1;
    }

    fn release(&mut self, digest: &Digest) -> ByteReferences {
        match self.bytes.get_mut(digest) {
            Some(held) if held.references > 1 => {
                held.references -= 1;
                ByteReferences::Remaining
            }
            _ => {
                self.bytes.remove(digest);
                ByteReferences::None
            }
        }
    }

    /// Removes a repository without contents.
    fn forget_if_empty(&mut self, name: &RepositoryName) {
        if self.repositories.get(name).is_some_and(RepositoryContents::is_empty) {
            self.repositories.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn entry(subject: Option<Digest>) -> ManifestEntry {
        ManifestEntry { subject, ..ManifestEntry::of(MediaType::OCI_MANIFEST, &[0; 9], None) }
    }

    #[test]
    fn bytes_are_kept_while_referenced() {
        let mut state = RegistryIndex::default();
        let digest = Digest::sha256_of(b"x");
        state.add_blob(&name("a"), digest, 1);
        state.add_blob(&name("a"), digest, 1);
        state.add_blob(&name("b"), digest, 1);
        state.add_manifest(&name("b"), digest, entry(None));
        assert_eq!(state.blob(&name("c"), &digest), None);
        assert_eq!(state.repositories_with(&digest).count(), 2);
        assert_eq!(state.remove_blob(&name("c"), &digest), None);
        assert_eq!(state.remove_blob(&name("a"), &digest), Some(ByteReferences::Remaining));
        assert_eq!(state.remove_blob(&name("a"), &digest), None);
        assert_eq!(state.remove_blob(&name("b"), &digest), Some(ByteReferences::Remaining));
        assert_eq!(state.remove_manifest(&name("b"), &digest), Some(ByteReferences::None));
        assert_eq!(state.held(&digest), None);
        assert_eq!(state.repositories().count(), 0);
    }

    #[test]
    fn tags_are_removed_with_their_manifest() {
        let mut state = RegistryIndex::default();
        let (one, two) = (Digest::sha256_of(b"1"), Digest::sha256_of(b"2"));
        state.set_tag(&name("a"), tag("lost"), one);
        state.add_manifest(&name("a"), one, entry(None));
        state.add_manifest(&name("a"), two, entry(None));
        for (text, digest) in [("x", one), ("y", one), ("z", two), ("x", two)] {
            state.set_tag(&name("a"), tag(text), digest);
        }
        assert_eq!(state.tags_of(&name("a"), &two), [tag("x"), tag("z")]);
        state.remove_manifest(&name("a"), &two);
        assert_eq!(state.tags(&name("a")).unwrap().collect::<Vec<_>>(), [&tag("y")]);
        assert!(state.remove_tag(&name("a"), &tag("y")));
        assert!(!state.remove_tag(&name("a"), &tag("y")));
        assert!(state.manifest(&name("a"), &ManifestReference::Digest(one)).is_some(), "a manifest outlives its tags");
    }

    #[test]
    fn referrers_follow_their_manifests() {
        let mut state = RegistryIndex::default();
        let subject = Digest::sha256_of(b"subject");
        let (one, two) = (Digest::sha256_of(b"1"), Digest::sha256_of(b"2"));
        for digest in [one, two, one] {
            state.add_manifest(&name("a"), digest, entry(Some(subject)));
        }
        let listed = |state: &RegistryIndex| state.referrers(&name("a"), &subject).len();
        assert_eq!(listed(&state), 2);
        assert_eq!(state.referrers(&name("b"), &subject), []);
        state.remove_manifest(&name("a"), &one);
        assert_eq!(listed(&state), 1);
    }

    #[test]
    fn missing_children_depend_on_the_rule() {
        let config = Descriptor::of(MediaType::OCI_CONFIG, b"config");
        let foreign = MediaType::from("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let layers = [Descriptor::of(MediaType::OCI_LAYER, b"layer"), Descriptor::of(foreign, b"foreign")];
        let json = |value: &Descriptor| serde_json::to_string(value).unwrap();
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
            json(&config),
            json(&layers[0]),
            json(&layers[1])
        );
        let manifest = Document::parse(&MediaType::OCI_MANIFEST, text).unwrap();
        let listed = Descriptor::of(MediaType::OCI_MANIFEST, manifest.bytes());
        let index = Document::Index(ocikit_spec::Index::of(&[listed.clone(), layers[0].clone()]));

        let mut state = RegistryIndex::default();
        let missing = |state: &RegistryIndex, document, rule| state.missing(&name("a"), document, rule);
        assert_eq!(missing(&state, &manifest, Children::Required), [config.digest, layers[0].digest]);
        assert_eq!(missing(&state, &manifest, Children::SparseIndexes).len(), 2);
        assert_eq!(missing(&state, &manifest, Children::Any), []);
        assert_eq!(missing(&state, &index, Children::Required), [listed.digest, layers[0].digest]);
        assert_eq!(missing(&state, &index, Children::SparseIndexes), []);

        state.add_blob(&name("a"), config.digest, 6);
        state.add_blob(&name("a"), layers[0].digest, 5);
        state.add_blob(&name("a"), listed.digest, listed.size);
        assert_eq!(missing(&state, &manifest, Children::Required), []);
        assert_eq!(missing(&state, &index, Children::Required), [listed.digest], "a blob is no manifest");
    }
}
