use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use ocikit_spec::{Annotations, Descriptor, Digest, MediaType, NewDocument};

use super::file::{ArtifactFile, UNKNOWN_CONFIG};
use crate::blob_file::BlobFile;
use crate::edit::over;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::root::{Artifact, Layer, Root};
use crate::source::Source;

/// The artifact type of an artifact that states none, as oras-go writes it.
pub const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";

/// The config of an artifact without one. Image specification, "Guidance for an Empty Descriptor".
const EMPTY_JSON: &[u8] = b"{}";

/// [`EMPTY_JSON`] in base64.
const EMPTY_DATA: &str = "e30=";

/// Creates the manifest of an artifact: files, a chart, a WebAssembly module, an SBOM, or anything else that is no
/// container image. Image specification, "Guidelines for Artifact Usage".
///
/// The result is a [`Root`] that can be copied anywhere. The same calls give the same bytes, which are those that
/// oras-go writes for the same artifact.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use ocikit_image::{ArtifactBuilder, Memory, Root, Source};
///
/// let source: Arc<dyn Source> = Arc::new(Memory::new());
/// let mut artifact = ArtifactBuilder::new("application/vnd.example.policy");
/// artifact.layer_bytes("application/vnd.example.policy.rego", "package main");
/// artifact.annotation("org.opencontainers.image.title", "policy");
/// let Root::Other(policy) = artifact.finish(&source)? else { panic!("an artifact is no image") };
/// assert_eq!(policy.manifest().unwrap().layers().len(), 1);
/// # Ok::<(), ocikit_image::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default)]
pub struct ArtifactBuilder {
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: Annotations,
    documents: HashMap<Digest, Bytes>,
    owned: Vec<(Digest, Arc<dyn Source>)>,
}

impl Artifact {
    /// Starts a new artifact of this type; see [`ArtifactBuilder`].
    pub fn builder(artifact_type: impl Into<MediaType>) -> ArtifactBuilder {
        ArtifactBuilder::new(artifact_type)
    }
}

impl ArtifactBuilder {
    /// Starts an artifact of this type.
    pub fn new(artifact_type: impl Into<MediaType>) -> ArtifactBuilder {
        ArtifactBuilder { artifact_type: Some(artifact_type.into()), ..ArtifactBuilder::without_type() }
    }

    /// Starts an artifact whose type is the media type of its config, as Helm charts and WebAssembly modules have it.
    /// Without a config it gets the type [`UNKNOWN_ARTIFACT`].
    pub fn without_type() -> ArtifactBuilder {
        ArtifactBuilder::default()
    }

    /// Sets the config, which the source of the artifact has. The default is the empty JSON object.
    pub fn config(&mut self, config: Descriptor) -> &mut ArtifactBuilder {
        self.config = Some(config);
        self
    }

    /// Sets a config that is held in memory.
    pub fn config_bytes(&mut self, media_type: impl Into<MediaType>, bytes: impl Into<Bytes>) -> &mut ArtifactBuilder {
        let config = self.hold(media_type.into(), bytes.into());
        self.config(config)
    }

    /// Sets a config from another source, such as a file.
    pub fn config_from(&mut self, config: impl Into<Layer>) -> &mut ArtifactBuilder {
        let config = config.into();
        self.owned.push((config.descriptor().digest, config.source().clone()));
        self.config(config.descriptor().clone())
    }

    /// Adds a layer, which the source of the artifact has. An artifact without layers gets the empty JSON object as its
    /// only one.
    pub fn layer(&mut self, layer: Descriptor) -> &mut ArtifactBuilder {
        self.layers.push(layer);
        self
    }

    /// Adds a layer that is held in memory.
    pub fn layer_bytes(&mut self, media_type: impl Into<MediaType>, bytes: impl Into<Bytes>) -> &mut ArtifactBuilder {
        let layer = self.hold(media_type.into(), bytes.into());
        self.layer(layer)
    }

    /// Adds a layer from another source, such as a file.
    pub fn layer_from(&mut self, layer: impl Into<Layer>) -> &mut ArtifactBuilder {
        let layer = layer.into();
        self.owned.push((layer.descriptor().digest, layer.source().clone()));
        self.layer(layer.descriptor().clone())
    }

    /// Adds files and directories as layers, as oras does it; see [`ArtifactFile::layer`] for the modification time.
    ///
    /// # Errors
    ///
    /// As [`ArtifactFile::layer`]; [`Error::Unsupported`] if two files have one title.
    pub async fn files(&mut self, files: &[ArtifactFile], modified: u64) -> Result<&mut ArtifactBuilder> {
        let mut titles = HashSet::new();
        for file in files {
            let title = file.title()?;
            if !titles.insert(title.clone()) {
                let what = format!("two files have the title `{title}`");
                return Err(Error::Unsupported { place: "the new artifact".to_owned(), what });
            }
        }
        for file in files {
            self.layer_from(file.layer(modified).await?);
        }
        Ok(self)
    }

    /// Sets the config to a file, with the media type [`UNKNOWN_CONFIG`] unless it states another one.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if it cannot be read.
    pub async fn config_file(&mut self, file: &ArtifactFile) -> Result<&mut ArtifactBuilder> {
        let media_type = file.media_type.clone().unwrap_or_else(|| UNKNOWN_CONFIG.into());
        let blob = BlobFile::open(&file.path).await?.with_media_type(media_type);
        let mut config = blob.descriptor().clone();
        config.annotations = file.annotations.clone();
        Ok(self.config_from(Layer::at(Arc::new(blob), config)))
    }

    /// Sets an annotation of the manifest.
    pub fn annotation(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut ArtifactBuilder {
        self.annotations.insert(key, value);
        self
    }

    /// Sets the image or other artifact that this one refers to. Only media type, digest and size of its descriptor
    /// are stored.
    pub fn subject(&mut self, subject: &Descriptor) -> &mut ArtifactBuilder {
        self.subject = Some(subject.bare());
        self
    }

    /// Creates the manifest of an artifact whose config and layers were all added with their source.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use ocikit_image::{Artifact, SourceExt};
    ///
    /// let policy = Artifact::builder("application/vnd.example.policy")
    ///     .layer_bytes("application/vnd.example.policy.rego", "package main")
    ///     .annotation("org.opencontainers.image.title", "policy")
    ///     .build()?;
    /// let layer = policy.layers().next().expect("it has one layer");
    /// assert_eq!(layer.open().await?.bytes().await?, "package main");
    /// # Ok::<(), ocikit_image::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ArtifactBuilder::finish`].
    pub fn build(&self) -> Result<Root> {
        let nothing: Arc<dyn Source> = Arc::new(Memory::new());
        self.finish(&nothing)
    }

    /// Creates the manifest over a source, which has the config and the layers that were added by their descriptor alone.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the manifest exceeds a limit, such as the number of layers or 4 MiB.
    pub fn finish(&self, source: &Arc<dyn Source>) -> Result<Root> {
        let mut documents = self.documents.clone();
        let mut empty = Descriptor::of(MediaType::OCI_EMPTY, EMPTY_JSON);
        empty.data = Some(EMPTY_DATA.to_owned());
        documents.insert(empty.digest, Bytes::from_static(EMPTY_JSON));
        let config = self.config.as_ref().unwrap_or(&empty);
        // The specification requires an artifact type if the config is empty.
        let needs_type = config.media_type == MediaType::OCI_EMPTY;
        let artifact_type = self.artifact_type.clone().or_else(|| needs_type.then(|| UNKNOWN_ARTIFACT.into()));
        let fields = NewDocument::default()
            .artifact_type(artifact_type)
            .subject(self.subject.clone())
            .annotations(self.annotations.clone());
        let layers = if self.layers.is_empty() { std::slice::from_ref(&empty) } else { &self.layers };
        let manifest = fields
            .manifest(config, layers)
            .map_err(|error| Error::Unsupported { place: "the new artifact".to_owned(), what: error.to_string() })?;
        let bytes = manifest.bytes().clone();
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
        documents.insert(descriptor.digest, bytes);
        let source = over(source, documents, &HashMap::new()).with_parts(self.owned.iter().cloned());
        Ok(Root::of_manifest(Arc::new(source), descriptor, manifest))
    }

    fn hold(&mut self, media_type: MediaType, bytes: Bytes) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.documents.insert(descriptor.digest, bytes);
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceExt;

    fn nothing() -> Arc<dyn Source> {
        Arc::new(Memory::new())
    }

    /// The manifest that oras 1.3.3 pushes for `oras push --artifact-type application/vnd.x a.txt:text/plain`.
    const OF_ORAS: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.x","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[{"mediaType":"text/plain","digest":"sha256:98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4","size":3,"annotations":{"org.opencontainers.image.title":"a.txt"}}],"annotations":{"org.opencontainers.image.created":"2000-01-01T00:00:00Z"}}"#;

    #[test]
    fn the_manifest_is_that_of_oras() {
        let mut layer = Descriptor::of("text/plain".into(), b"hi\n");
        layer.annotations.insert("org.opencontainers.image.title", "a.txt");
        let mut artifact = ArtifactBuilder::new("application/vnd.x");
        artifact.layer(layer).annotation("org.opencontainers.image.created", "2000-01-01T00:00:00Z");
        let root = artifact.finish(&nothing()).unwrap();
        assert_eq!(root.document().unwrap().bytes(), OF_ORAS);
    }

    #[tokio::test]
    async fn an_artifact_without_files_has_the_empty_layer() {
        let root = ArtifactBuilder::without_type().finish(&nothing()).unwrap();
        let Root::Other(artifact) = &root else { panic!("{root:?}") };
        let manifest = artifact.manifest().unwrap();
        assert_eq!(manifest.artifact_type(), Some(&UNKNOWN_ARTIFACT.into()));
        assert_eq!(manifest.layers()[0].digest, manifest.config().unwrap().digest);
        assert_eq!(root.source().read(&manifest.layers()[0]).await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn blobs_are_read_from_where_they_are() {
        let (base, other) = (Memory::new(), Memory::new());
        let (first, second) = (Descriptor::of("a/b".into(), b"first"), Descriptor::of("a/b".into(), b"second"));
        base.insert(&b"first"[..]);
        other.insert(&b"second"[..]);
        let subject = Descriptor::of(MediaType::OCI_MANIFEST, b"subject");
        let mut artifact = ArtifactBuilder::without_type();
        artifact.config_bytes("application/vnd.config", "{\"a\":1}").layer(first.clone());
        artifact.layer_from(Layer::at(Arc::new(other), second.clone())).subject(&subject);
        let base: Arc<dyn Source> = Arc::new(base);
        let root = artifact.finish(&base).unwrap();
        for (blob, bytes) in [(&first, "first"), (&second, "second")] {
            assert_eq!(root.source().read(blob).await.unwrap(), bytes);
        }
        let document = root.document().unwrap();
        assert_eq!(document.subject(), Some(&subject));
        for child in document.children() {
            root.source().read(child).await.unwrap();
        }
    }
}
