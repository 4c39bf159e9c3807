use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_image::files::Budget;
use ocikit_image::walk::limits::{Limits, MAX_DEPTH};
use ocikit_image::walk::{Edge, Found, Walk};
use ocikit_image::{ArtifactKind, Error, Image, ImageFormats, Layer, LayerFormat, Result, Root, Source};
use ocikit_spec::{
    Annotations, Config, Descriptor, Digest, Document, Execution, History, MediaType, Platform, annotations,
};
use serde::Serialize;

/// The metadata of an image, an index or an artifact.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Inspection {
    /// The kind of the document.
    pub kind: String,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// The size of its document in bytes.
    pub size: u64,
    /// The artifact type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The annotations of the document itself.
    pub annotations: Annotations,
    /// The annotations of its descriptor in the index or layout that lists it.
    pub descriptor_annotations: Annotations,
    /// The subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// The config of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Box<ConfigFacts>>,
    /// The layers, from the lowest to the highest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerFacts>,
    /// The total compressed size of config and layers in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
    /// The total uncompressed size of the layers in bytes, if they were [measured](Inspection::measure).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_uncompressed_size: Option<u64>,
    /// The predicate types of an attestation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub predicate_types: Vec<String>,
    /// The manifest that a BuildKit attestation manifest refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attests: Option<String>,
    /// The entries of an index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Inspection>,
    /// Why there are no further fields: the document does not exist, for example because the index was copied in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The image, if its manifest can state formats of its layers.
    #[serde(skip)]
    annotated: Option<Box<Image>>,
}

/// The contents of an image config.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConfigFacts {
    /// The digest of the config, which docker calls the image ID.
    pub digest: Digest,
    /// The creation time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The container settings.
    #[serde(flatten)]
    pub execution: Execution,
    /// The history of the build, oldest step first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// A layer in a manifest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LayerFacts {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its compressed size in bytes.
    pub size: u64,
    /// Its uncompressed size in bytes, if it was [measured](Inspection::measure).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncompressed_size: Option<u64>,
    /// Its format, if it is not a tar only and was [looked at](Inspection::add_formats).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatFacts>,
    /// The annotations of its descriptor.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
}

/// The format of a layer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FormatFacts {
    /// The name of the format, such as `estargz`.
    pub name: String,
    /// The size in bytes of the table with its files, as it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u64>,
    /// The number of files in the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Why the layer is not in the format that its annotations state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Returns the metadata of a root and of everything below it. Several documents are read in parallel.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let layout = ocikit::image::testing::TemporaryLayout::new();
/// # let app = ocikit::Location::layout(layout.path());
/// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
/// let inspection = ocikit::inspect(&session.open(&app).await?).await?;
/// println!("{}", serde_json::to_string(&inspection)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of reading manifests and configs. A missing entry of an index is not an error but is reported as missing.
pub async fn inspect(root: &Root) -> Result<Inspection> {
    let source = root.source();
    let read = |entry| inspect_entry(source.clone(), entry);
    let mut walk = Walk::reading(&**source, Limits::IMAGE, read);
    walk.start_with(root.descriptor(), Ok((Inspection::of_document(root).await?, root.document())))?;
    let mut found = None;
    // The entries of each index. Entries are read each time that they are listed, because their descriptors differ.
    // Boxed, because an index may list 25,000 of them.
    let mut entries: HashMap<Digest, Entries> = HashMap::new();
    while let Some(node) = walk.next().await {
        let Found::Content(inspected) = node.found else { continue };
        let (inspection, document) = inspected?;
        match (&node.path.parent, &node.path.edge) {
            (Some(parent), Edge::Manifest(at)) => {
                if let Some(place) = entries.get_mut(&parent.digest).and_then(|entries| entries.get_mut(*at)) {
                    *place = Some(Box::new(inspection));
                }
            }
            _ => found = Some(inspection),
        }
        let Some(Document::Index(index)) = &document else { continue };
        if walk.is_deepest(&node.path) || entries.contains_key(&node.path.digest) {
            continue;
        }
        entries.insert(node.path.digest, index.manifests().iter().map(|_| None).collect());
        for (position, entry) in index.manifests().iter().enumerate() {
            walk.add_again(&node.path, Edge::Manifest(position), entry)?;
        }
    }
    drop(walk);
    let mut found = found.ok_or_else(|| Error::not_found(root.digest(), source))?;
    found.attach(&mut entries, 0);
    Ok(found)
}

/// The entries of an index, by position.
type Entries = Vec<Option<Box<Inspection>>>;

/// Reads an entry of an index and returns its metadata, without its own entries, and its document.
async fn inspect_entry(source: Arc<dyn Source>, entry: Descriptor) -> Result<(Inspection, Option<Document>)> {
    match Root::at(source, entry.clone()).await {
        Ok(root) => Ok((Inspection::of_document(&root).await?, root.document())),
        Err(error @ (Error::NotFound { .. } | Error::Document { .. } | Error::Mismatch { .. })) => {
            Ok((Inspection { missing: Some(error.to_string()), ..Inspection::of(&entry) }, None))
        }
        Err(error) => Err(error),
    }
}

impl Inspection {
    /// Returns the metadata of a document without the entries of an index.
    async fn of_document(root: &Root) -> Result<Inspection> {
        let descriptor = root.descriptor();
        let mut facts = Inspection::of(descriptor);
        facts.kind = ArtifactKind::of(root).to_string();
        let Some(document) = root.document() else { return Ok(facts) };
        facts.annotations = document.annotations().clone();
        facts.subject = document.subject().map(|subject| subject.digest);
        match document {
            Document::Manifest(manifest) => {
                facts.artifact_type = manifest.artifact_type().cloned();
                facts.layers = manifest.layers().iter().map(LayerFacts::of).collect();
                let sizes = manifest.config().into_iter().chain(manifest.layers()).map(|blob| blob.size);
                facts.total_size = Some(sizes.fold(0, u64::saturating_add));
                let predicates =
                    manifest.layers().iter().filter_map(|layer| layer.annotations.get(annotations::PREDICATE_TYPE));
                facts.predicate_types = predicates.map(str::to_owned).collect();
            }
            Document::Index(index) => facts.artifact_type = index.artifact_type().cloned(),
        }
        if let Root::Image(image) = root
            && image.manifest().config().is_some_and(|config| config.media_type.is_image_config())
            && facts.kind != ArtifactKind::CosignSignature.as_str()
        {
            let config = image.config().await?;
            let digest = image.manifest().config().map_or(descriptor.digest, |config| config.digest);
            facts.platform = facts.platform.or_else(|| config.platform().cloned());
            facts.config = Some(Box::new(ConfigFacts::of(digest, &config)));
            // Formats are stated by annotations, or by the media type of a blob beside an annotated layer.
            let manifest = image.manifest();
            let mut layers = manifest.layers().iter();
            if !manifest.annotations().is_empty() || layers.any(|layer| !layer.annotations.is_empty()) {
                facts.annotated = Some(Box::new(image.clone()));
            }
        }
        Ok(facts)
    }

    /// Adds the entries of an index, and theirs in turn. An index that is listed several times has them once.
    fn attach(&mut self, entries: &mut HashMap<Digest, Entries>, depth: usize) {
        let is_index = self.media_type.is_index() && self.missing.is_none();
        if is_index && depth > MAX_DEPTH {
            self.missing = Some("it is nested too deep".to_owned());
        } else if is_index {
            match entries.remove(&self.digest) {
                Some(found) => {
                    self.manifests.reserve_exact(found.len());
                    self.manifests.extend(found.into_iter().flatten().map(|entry| *entry));
                }
                None => self.missing = Some("it is listed above".to_owned()),
            }
        }
        self.manifests.iter_mut().for_each(|entry| entry.attach(entries, depth + 1));
    }

    fn of(descriptor: &Descriptor) -> Inspection {
        let attests = descriptor.annotations.get(annotations::DOCKER_REFERENCE_DIGEST).map(str::to_owned);
        Inspection {
            kind: ArtifactKind::Unknown.to_string(),
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
            size: descriptor.size,
            artifact_type: descriptor.artifact_type.clone(),
            platform: descriptor.platform.clone().filter(|platform| !platform.is_unknown()),
            annotations: Annotations::new(),
            descriptor_annotations: descriptor.annotations.clone(),
            subject: None,
            config: None,
            layers: Vec::new(),
            total_size: None,
            total_uncompressed_size: None,
            predicate_types: Vec::new(),
            attests: attests.filter(|_| descriptor.is_attestation()),
            manifests: Vec::new(),
            missing: None,
            annotated: None,
        }
    }

    /// Determines the uncompressed size of every layer by decompressing it: each is read once, several in parallel.
    /// Layers that do not exist, for example because the index was copied in part, are skipped.
    ///
    /// # Errors
    ///
    /// As [`Layer::length_within`](ocikit_image::Layer::length_within); all layers share one budget.
    pub async fn measure(&mut self, root: &Root) -> Result<()> {
        let mut layers = HashMap::new();
        self.each(&mut |facts| {
            for layer in &facts.layers {
                layers.insert(layer.digest, layer.descriptor());
            }
        });
        // Each zstd decoder may take 32 MiB.
        const MAX_PARALLEL_LAYERS: usize = 4;
        let budget = Budget::new();
        let layers = layers.into_values().filter(|layer| layer.media_type.is_layer());
        let lengths = stream::iter(layers).map(async |layer| {
            let digest = layer.digest;
            let length = if_found(Layer::at(root.source().clone(), layer).length_within(&budget).await)?;
            Ok::<_, Error>(length.map(|length| (digest, length)))
        });
        let lengths: Vec<_> = lengths.buffer_unordered(MAX_PARALLEL_LAYERS).boxed().try_collect().await?;
        let lengths: HashMap<_, _> = lengths.into_iter().flatten().collect();
        self.each(&mut |facts| {
            for layer in &mut facts.layers {
                layer.uncompressed_size = lengths.get(&layer.digest).copied();
            }
            let sizes: Option<Vec<_>> = facts.layers.iter().map(|layer| layer.uncompressed_size).collect();
            let sizes = sizes.filter(|sizes| !sizes.is_empty());
            facts.total_uncompressed_size = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add));
        });
        Ok(())
    }

    /// Adds the formats of the layers. Of an image, the tables are read. Of the images in an index, only documents are read: the
    /// formats are those that the annotations state.
    ///
    /// # Errors
    ///
    /// Those of [`ImageFormats::layers`] and [`ImageFormats::stated_layers`]. Layers that do not exist are skipped.
    pub async fn add_formats(&mut self, root: &Root, formats: &dyn ImageFormats) -> Result<()> {
        if let Root::Image(image) = root {
            if let Some(layers) = if_found(formats.layers(image).await)? {
                self.set_formats(layers);
            }
            return Ok(());
        }
        let mut images = Vec::new();
        self.each(&mut |facts| images.extend(facts.annotated.take().map(|image| (facts.digest, image))));
        // Each may read the SOCI index of its image.
        const MAX_PARALLEL_DOCUMENTS: usize = 8;
        let stated = stream::iter(images).map(async |(digest, image)| {
            let layers = if_found(formats.stated_layers(&image).await)?;
            Ok::<_, Error>(layers.map(|layers| (digest, layers)))
        });
        let stated: Vec<_> = stated.buffer_unordered(MAX_PARALLEL_DOCUMENTS).boxed().try_collect().await?;
        let stated: HashMap<_, _> = stated.into_iter().flatten().collect();
        self.each(&mut |facts| {
            if let Some(layers) = stated.get(&facts.digest) {
                facts.set_formats(layers.clone());
            }
        });
        Ok(())
    }

    fn set_formats(&mut self, layers: Vec<Option<LayerFormat>>) {
        for (facts, format) in self.layers.iter_mut().zip(layers) {
            facts.format = format.map(FormatFacts::of);
        }
    }

    /// Calls a function for this document and everything below it.
    fn each(&mut self, act: &mut dyn FnMut(&mut Inspection)) {
        act(self);
        self.manifests.iter_mut().for_each(|facts| facts.each(act));
    }
}

/// Returns `None` for what does not exist.
fn if_found<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if error.is_not_found() => Ok(None),
        found => found.map(Some),
    }
}

impl ConfigFacts {
    fn of(digest: Digest, config: &Config) -> ConfigFacts {
        ConfigFacts {
            digest,
            created: config.created().map(str::to_owned),
            author: config.author().map(str::to_owned),
            execution: config.execution().clone(),
            history: config.history().to_vec(),
        }
    }
}

impl FormatFacts {
    fn of(format: LayerFormat) -> FormatFacts {
        let LayerFormat { format: name, table_size, files, problem } = format;
        FormatFacts { name, table_size, files, problem }
    }
}

impl LayerFacts {
    fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest, self.size)
    }

    fn of(layer: &Descriptor) -> LayerFacts {
        LayerFacts {
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            size: layer.size,
            uncompressed_size: None,
            format: None,
            annotations: layer.annotations.clone(),
        }
    }
}
