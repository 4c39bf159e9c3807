//! Attestation manifests of BuildKit: statements about the images of an index, which the index lists beside them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ocikit_image::{Memory, Result, Root, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, Platform};
use serde_json::Value;

/// A statement of BuildKit about an image.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The platform of the image, if the index states it.
    pub platform: Option<Platform>,
    /// The type of the predicate: `https://slsa.dev/provenance/v1`.
    pub predicate_type: String,
    /// The predicate.
    pub predicate: Value,
}

/// Returns the statements in the attestation manifests of an index.
///
/// # Errors
///
/// Those of reading the manifests and statements.
pub async fn statements(root: &Root) -> Result<Vec<Statement>> {
    let Root::Index(index) = root else { return Ok(Vec::new()) };
    let mut statements = Vec::new();
    for entry in index.manifests().iter().filter(|entry| entry.is_attestation()) {
        let subject = entry.described_image();
        let subject = index.manifests().iter().find(|image| Some(image.digest) == subject);
        let Document::Manifest(manifest) = root.source().document(entry).await? else { continue };
        for layer in manifest.layers() {
            let Some(bytes) = held(root, layer).await? else { continue };
            let Ok(Value::Object(mut statement)) = serde_json::from_slice(&bytes) else { continue };
            let Some(Value::String(predicate_type)) = statement.remove("predicateType") else { continue };
            statements.push(Statement {
                platform: subject.and_then(|subject| subject.platform.clone()),
                predicate_type,
                predicate: statement.remove("predicate").unwrap_or_default(),
            });
        }
    }
    Ok(statements)
}

/// Returns the images of a build without BuildKit's attestation manifests: an index, or the image if there is only one.
///
/// # Errors
///
/// Those of reading the image.
pub async fn without_attestations(root: &Root) -> Result<Root> {
    let Root::Index(index) = root else { return Ok(root.clone()) };
    let attestations = index.manifests().iter().enumerate().filter(|(_, entry)| entry.is_attestation());
    let attestations: Vec<_> = attestations.map(|(position, _)| position).collect();
    if attestations.is_empty() {
        return Ok(root.clone());
    }
    let mut images = index.manifests().iter().filter(|entry| !entry.is_attestation());
    if let (Some(image), None) = (images.next(), images.next()) {
        return Root::at(root.source().clone(), image.clone()).await;
    }
    let mut edit = index.edit();
    for position in attestations.into_iter().rev() {
        edit.remove(position);
    }
    edit.finish().map(Root::Index)
}

/// Changes the digests in BuildKit's statements to those of the changed images. Returns `after` with new attestation
/// manifests.
///
/// `after` is `before` with changed manifests, in the same order. The statements are not signed, so they can be
/// rewritten; otherwise their subjects would be manifests that exist nowhere. Digests have a constant length, so all
/// other bytes of the documents stay as they are.
///
/// # Errors
///
/// Those of reading the documents.
pub async fn follow(before: &Root, after: &Root) -> Result<Root> {
    let (Root::Index(old), Root::Index(new)) = (before, after) else { return Ok(after.clone()) };
    let pairs = old.manifests().iter().zip(new.manifests());
    let mut changed: HashMap<Digest, Digest> = pairs
        .filter(|(old, new)| !old.is_attestation() && old.digest != new.digest)
        .map(|(old, new)| (old.digest, new.digest))
        .collect();
    let memory = Memory::over(after.source().clone());
    let mut index = new.document().text().to_owned();
    for entry in new.manifests().iter().filter(|entry| entry.is_attestation()) {
        let Document::Manifest(manifest) = after.source().document(entry).await? else { continue };
        let blobs = manifest.layers().iter().chain(manifest.config());
        for blob in blobs {
            // The config of older versions of BuildKit lists the statements, so it comes last.
            rewrite(after, blob, &mut changed, &memory).await?;
        }
        rewrite(after, entry, &mut changed, &memory).await?;
    }
    index = replaced(&index, &changed);
    if index.as_bytes() == &new.document().bytes()[..] {
        return Ok(after.clone());
    }
    let digest = memory.insert(index.into_bytes());
    let descriptor = Descriptor { digest, ..after.descriptor().clone() };
    Root::at(Arc::new(memory), descriptor).await
}

/// Replaces the digests in a document. If it changes, adds its own digest to the changed ones.
async fn rewrite(
    root: &Root,
    document: &Descriptor,
    changed: &mut HashMap<Digest, Digest>,
    memory: &Memory,
) -> Result<()> {
    let Some(bytes) = held(root, document).await? else { return Ok(()) };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
    let new = replaced(text, changed);
    if new != text {
        changed.insert(document.digest, memory.insert(new.into_bytes()));
    }
    Ok(())
}

/// Reads a document. Returns `None` for one that is not in memory: statements of several MiB, such as a large SBOM, went to
/// the target while they arrived.
async fn held(root: &Root, document: &Descriptor) -> Result<Option<Bytes>> {
    match root.source().read(document).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn replaced(text: &str, changed: &HashMap<Digest, Digest>) -> String {
    changed.iter().fold(text.to_owned(), |text, (old, new)| text.replace(&old.hex(), &new.hex()))
}
