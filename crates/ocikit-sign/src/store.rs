//! Manifests of new signatures, before they are stored with their subjects.

use std::sync::Arc;

use bytes::Bytes;
use ocikit_image::{Memory, Name, Naming, Root, SourceExt};
use ocikit_spec::{Descriptor, MediaType, Platform, Tag};
use serde_json::{Map, Value, json};

use crate::budget::{MAX_SIGNATURES_OF_DIGEST, SignatureBudget, limit};
use crate::cosign::simple;
use crate::error::{Error, Result};
use crate::format::{Content, Format, Storage};
use crate::signatures::tag_of;
use crate::subjects::Subject;

/// A signature that is not stored yet; [`attach`](crate::attach) stores it with its subject.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Signature {
    /// The signed subject: media type, digest and size.
    pub subject: Descriptor,
    /// The platform of the index entry, if it has one.
    pub platform: Option<Platform>,
    /// The format.
    pub format: Format,
    /// The manifest of the signature and everything below it.
    pub root: Root,
    /// The tag of the signature, in formats that have one.
    pub naming: Naming,
}

/// New signatures before they are stored, and the budget of the operation.
#[derive(Debug, Default)]
pub(crate) struct NewSignatures {
    memory: Arc<Memory>,
    pub(crate) budget: SignatureBudget,
}

impl NewSignatures {
    /// Creates the manifest of a signature. Nothing is written.
    pub(crate) async fn add(&self, subject: &Subject, format: Format, content: Content) -> Result<Signature> {
        let (length, max_bytes) = (content.bytes.len() as u64, format.properties().max_bytes);
        if length > max_bytes {
            let what = format!("its signature would have {length} bytes, more than the {max_bytes} that are read");
            return Err(limit(subject.digest(), what).into());
        }
        self.budget.count_created(&subject.digest(), length)?;
        let (manifest, naming) = match format.properties().storage {
            Storage::Referrer { artifact_type } => {
                // cosign 3 also writes the artifact type into the config descriptor, and `cosign clean` finds no other
                // bundles (sigstore/cosign, pkg/oci/remote/write.go).
                let config = Descriptor::of(MediaType::OCI_EMPTY, EMPTY);
                let config = Descriptor { artifact_type: Some(MediaType::new(artifact_type)), ..config };
                (self.referrer(subject, Some(artifact_type), config, content), Naming::default())
            }
            Storage::ReferrerByConfig { artifact_type } => {
                let config = Descriptor::of(MediaType::new(artifact_type), EMPTY);
                (self.referrer(subject, None, config, content), Naming::default())
            }
            Storage::Tag => {
                let (manifest, tag) = self.tagged(subject, format, content).await?;
                (manifest, Naming::of_tag(tag))
            }
        };
        self.budget.count_created_manifest(&subject.digest(), manifest.len())?;
        // Existing layers are not copied to memory but read from the location of the subject.
        let source = Memory::over(subject.source.clone()).with_source(self.memory.clone());
        let root = Root::at(Arc::new(source), Descriptor::of(MediaType::OCI_MANIFEST, &manifest)).await?;
        Ok(Signature { subject: subject.descriptor.clone(), platform: subject.platform.clone(), format, root, naming })
    }

    /// Creates the manifest of an artifact with one layer and a subject. Image specification, "Guidelines for
    /// Artifact Usage".
    fn referrer(&self, subject: &Subject, artifact_type: Option<&str>, config: Descriptor, content: Content) -> Bytes {
        let annotations: Map<_, _> =
            content.annotations.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST});
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = artifact_type.into();
        }
        manifest["config"] = json!(config);
        manifest["layers"] = json!([content.layer]);
        manifest["subject"] = json!(subject.descriptor);
        manifest["annotations"] = Value::Object(annotations);
        let manifest = Bytes::from(manifest.to_string());
        self.memory.insert(content.bytes);
        self.memory.insert(EMPTY);
        self.memory.insert(manifest.clone());
        manifest
    }

    /// Adds a signature to those under the tag of the digest. Existing signatures stay where they are.
    async fn tagged(&self, subject: &Subject, format: Format, content: Content) -> Result<(Bytes, Tag)> {
        let digest = subject.digest();
        let tag =
            tag_of(&digest).ok_or_else(|| Error::Unsupported(format!("{digest} is too long for a tag of {format}")))?;
        let source = &subject.source;
        let old = match source.resolve(&Name::Tag(tag.clone())).await {
            Ok(found) if found.size > MAX_OLD_MANIFEST_BYTES => {
                let size = found.size;
                let what =
                    format!("it has {size} bytes, more than the {MAX_OLD_MANIFEST_BYTES} that signatures are added to");
                return Err(limit(format!("{tag} in {source}"), what).into());
            }
            Ok(found) => Some(source.document(&found).await?),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let count = old.iter().flat_map(|old| old.children()).count();
        if count > MAX_SIGNATURES_OF_DIGEST {
            let what = format!("it has {count} signatures, and no more than {MAX_SIGNATURES_OF_DIGEST} are read");
            return Err(limit(format!("{tag} in {source}"), what).into());
        }
        let (config, manifest) = simple::manifest(old.as_ref().map(|old| &old.bytes()[..]), &content.layer)?;
        self.memory.insert(content.bytes);
        self.memory.insert(config);
        let manifest = Bytes::from(manifest);
        self.memory.insert(manifest.clone());
        Ok((manifest, tag))
    }
}

/// The maximum size of an existing signature manifest that is extended, in bytes. It is enough for a thousand
/// signatures.
const MAX_OLD_MANIFEST_BYTES: u64 = 2 << 20;

/// The empty config of artifacts.
const EMPTY: &[u8] = b"{}";
