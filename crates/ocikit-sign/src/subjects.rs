//! The manifests and indexes that are signed and verified.

use std::collections::HashSet;
use std::sync::Arc;

use ocikit_image::walk::limits::Limits;
use ocikit_image::walk::{Found, Walk, children};
use ocikit_image::{Error, Root, Source};
use ocikit_spec::{
    Config, Descriptor, Digest, Document, MAX_DOCUMENT_BYTES, Manifest, MediaType, Platform, annotations,
};

use serde::Deserialize;

use crate::budget::{MAX_BUNDLE_BYTES, MAX_SUBJECTS, SignatureBudget};
use crate::cosign::statement;

/// Which manifests and indexes of a root are signed or verified. Policies spell the variants in camel case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Depth {
    /// The root only. For an index that is its own bytes, which contain the digests of its entries.
    #[default]
    Root,
    /// The root and, for an index, every image and index below it.
    Images,
    /// Every image below an index without the indexes; the root if it is not an index.
    Leaves,
    /// The root, everything below it, and BuildKit attestations.
    Everything,
}

/// A manifest or index that is signed or verified.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The descriptor in signatures: media type, digest and size. The media type is the one that its bytes have.
    pub(crate) descriptor: Descriptor,
    pub(crate) platform: Option<Platform>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) kind: SubjectKind,
    /// What its index entry claims if the entry is labelled as an attestation. The claim is not verified.
    pub(crate) claims: Option<AttestationClaim>,
}

/// BuildKit's annotations on an index entry.
#[derive(Debug, Clone)]
pub(crate) struct AttestationClaim {
    /// The digest of the attested image.
    pub(crate) about: Option<String>,
}

/// The kind of a subject, determined from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubjectKind {
    Index,
    /// An image or another artifact.
    Manifest,
    /// A BuildKit attestation manifest.
    Attestation,
    /// An unknown kind, and why. Another tool may run it, so it never verifies.
    NotUnderstood(String),
}

impl Subject {
    /// Returns the root as a subject.
    pub(crate) fn of(root: &Root) -> Subject {
        let (descriptor, platform) = (root.descriptor().bare(), root.descriptor().platform.clone());
        let kind = match root {
            Root::Index(_) => SubjectKind::Index,
            _ => SubjectKind::Manifest,
        };
        Subject { descriptor, platform, source: root.source().clone(), kind, claims: None }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    fn is_wanted(&self, depth: Depth) -> bool {
        match (depth, &self.kind) {
            (Depth::Root | Depth::Everything, _) => true,
            (Depth::Images, kind) => *kind != SubjectKind::Attestation,
            (Depth::Leaves, kind) => !matches!(kind, SubjectKind::Attestation | SubjectKind::Index),
        }
    }
}

/// Returns the subjects of a root, each once, the root first.
///
/// Annotations and media types of entries are hints; the bytes, whose digest is checked, decide what an entry is. An
/// entry is left out as an attestation only if it cannot be run; see [`AttestationParts::are_statements`].
pub(crate) async fn subjects(root: &Root, depth: Depth, budget: &SignatureBudget) -> Result<Vec<Subject>, Error> {
    if depth == Depth::Root {
        return Ok(vec![Subject::of(root)]);
    }
    let source = root.source();
    let limits = Limits::PLACE.with_documents(MAX_SUBJECTS);
    let mut walk = Walk::reading(&**source, limits, |entry| examine(source.clone(), entry, budget));
    match root {
        // The bytes of a root without a parsed manifest are examined first.
        Root::Other(artifact) if artifact.manifest().is_none() => _ = walk.start(root.descriptor())?,
        Root::Index(index) => {
            let below = Some(Document::Index(index.document().clone()));
            walk.start_with(root.descriptor(), Ok((Subject::of(root), below)))?;
        }
        _ => walk.start_with(root.descriptor(), Ok((Subject::of(root), None)))?,
    }
    let mut found = Vec::new();
    // One index, or several, may list the same entry any number of times.
    let mut seen = HashSet::from([(root.digest(), false)]);
    while let Some(node) = walk.next().await {
        let Found::Content(examined) = node.found else { continue };
        let (subject, index) = examined?;
        found.push(subject);
        for (edge, entry) in index.iter().flat_map(children) {
            // A digest listed both as an attestation and as an image is examined as both.
            if seen.insert((entry.digest, may_be_attestation(entry))) {
                walk.add_again(&node.path, edge, entry)?;
            }
        }
    }
    Ok(found.into_iter().filter(|subject| subject.is_wanted(depth)).collect())
}

/// Returns whether an entry is labelled as an attestation and has the platform unknown/unknown. With any other platform,
/// or none, it could be run as an image, whatever its annotations say.
fn may_be_attestation(entry: &Descriptor) -> bool {
    entry.is_attestation() && entry.platform.as_ref().is_some_and(Platform::is_unknown)
}

/// Reads an entry and determines what it is. Returns it, and the document if it is an index.
async fn examine(
    source: Arc<dyn Source>,
    entry: Descriptor,
    budget: &SignatureBudget,
) -> Result<(Subject, Option<Document>), Error> {
    let may_be_attestation = may_be_attestation(&entry);
    let claims = entry.is_attestation().then(|| AttestationClaim {
        about: entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST).map(str::to_owned),
    });
    let Descriptor { media_type, digest, size, platform, .. } = entry;
    let subject = |media_type: MediaType, kind| {
        let descriptor = Descriptor::new(media_type, digest, size);
        Subject { descriptor, platform: platform.clone(), source: source.clone(), kind, claims: claims.clone() }
    };
    let not_understood = |why: String| (subject(media_type.clone(), SubjectKind::NotUnderstood(why)), None);
    if size > MAX_DOCUMENT_BYTES {
        return Ok(not_understood(format!("it has {size} bytes, and manifests are read up to {MAX_DOCUMENT_BYTES}")));
    }
    // Registries store manifests and blobs separately. An entry with an unknown media type is requested as a
    // manifest, because that is what another tool could run.
    let is_known = media_type.is_document();
    let asked = if is_known { media_type.clone() } else { MediaType::OCI_MANIFEST };
    let reading = match budget.document(&*source, &Descriptor::new(asked, digest, size)).await {
        Err(error) if error.is_not_found() && !is_known => {
            return Ok(not_understood(format!("entries of type `{media_type}`")));
        }
        reading => reading?,
    };
    let (actual, document) = match Document::sniff(reading.bytes.clone()) {
        Ok(found) => found,
        Err(error) => return Ok(not_understood(format!("the entry of type `{media_type}`: {error}"))),
    };
    match document {
        Document::Index(_) => Ok((subject(actual, SubjectKind::Index), Some(document))),
        Document::Manifest(manifest) => {
            // Release the permit before requesting another one: waiting while holding one can deadlock.
            let parts = may_be_attestation.then(|| AttestationParts::of(&manifest)).flatten();
            drop((manifest, reading));
            let is_attestation = match parts {
                Some(parts) => parts.are_statements(&*source, budget).await?,
                None => false,
            };
            let kind = if is_attestation { SubjectKind::Attestation } else { SubjectKind::Manifest };
            Ok((subject(actual, kind), None))
        }
    }
}

/// The blobs that decide whether a manifest is a BuildKit attestation.
struct AttestationParts {
    config: Descriptor,
    statements: Vec<Descriptor>,
}

/// The maximum size of the config of an attestation, in bytes.
const MAX_CONFIG_BYTES: u64 = 64 << 10;
/// The maximum number of statements in an attestation manifest.
const MAX_STATEMENTS: usize = 1000;

impl AttestationParts {
    /// Returns `None` if the manifest alone shows that it is not an attestation.
    fn of(manifest: &Manifest) -> Option<AttestationParts> {
        let config = manifest.config()?;
        let is_config = config.media_type == MediaType::OCI_EMPTY || config.media_type.is_image_config();
        let layers = manifest.layers();
        let are_statements = !layers.is_empty()
            && layers.len() <= MAX_STATEMENTS
            && layers.iter().all(|layer| layer.media_type == MediaType::IN_TOTO && layer.size <= MAX_BUNDLE_BYTES);
        if !is_config || config.size > MAX_CONFIG_BYTES || !are_statements {
            return None;
        }
        Some(AttestationParts { config: config.bare(), statements: layers.iter().map(Descriptor::bare).collect() })
    }

    /// Returns whether nothing here can be run: the config is empty or has the platform unknown/unknown, and every
    /// layer is an in-toto statement, which is JSON and thus not an archive.
    async fn are_statements(&self, source: &dyn Source, budget: &SignatureBudget) -> Result<bool, Error> {
        if !read(source, &self.config, budget, is_nothing_to_run).await? {
            return Ok(false);
        }
        let mut seen = HashSet::new();
        for statement in self.statements.iter().filter(|statement| seen.insert(statement.digest)) {
            if !read(source, statement, budget, statement::is_statement).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reads and tests a blob. A missing or damaged blob fails the test, so that its manifest requires a signature.
async fn read(
    source: &dyn Source,
    blob: &Descriptor,
    budget: &SignatureBudget,
    is_right: impl Fn(&[u8]) -> bool,
) -> Result<bool, Error> {
    match budget.read(source, blob).await {
        Ok(reading) => Ok(is_right(&reading.bytes)),
        Err(Error::NotFound { .. } | Error::Mismatch { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_nothing_to_run(config: &[u8]) -> bool {
    if config == b"{}" {
        return true;
    }
    let Ok(config) = Config::parse(config.to_vec()) else { return false };
    config.platform().is_some_and(|platform| platform.is_unknown())
}
