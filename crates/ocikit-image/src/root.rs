use std::sync::Arc;

use ocikit_spec::{Annotations, Config, Content, Descriptor, Digest, Document, Manifest, MediaType, Platform};

use crate::error::{Error, Result};
use crate::layer_files::LayerFiles;
use crate::source::{Name, Source, SourceExt, read_config};

/// The manifest or index that a name leads to.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let source = memory;
/// use ocikit_image::Root;
///
/// let root = Root::at(source, manifest).await?;
/// match &root {
///     Root::Image(image) => println!("an image with {} layers", image.layers().count()),
///     Root::Index(index) => println!("an index of {} manifests", index.manifests().len()),
///     Root::Other(artifact) => println!("an artifact: {:?}", artifact.manifest().and_then(|manifest| manifest.artifact_type())),
/// }
/// # assert!(matches!(root, Root::Image(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub enum Root {
    /// A container image for one platform.
    Image(Image),
    /// An index: a list of manifests, usually one image for each of several platforms.
    Index(Index),
    /// An artifact: a Helm chart, a signature, an SBOM, or a manifest of an unknown media type.
    Other(Artifact),
}

/// A container image: its manifest, and the source of its config and layers. Cheap to clone.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let Root::Image(image) = Root::at(memory, manifest).await? else { panic!("it is an image") };
/// use ocikit_image::Root;
///
/// let config = image.config().await?;
/// assert_eq!(config.platform(), Some(&"linux/amd64".parse()?));
/// for layer in image.layers() {
///     println!("{} has {} bytes", layer.digest(), layer.descriptor().size);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) source: Arc<dyn Source>,
    /// The layers that files are read from, if they are not those of the manifest.
    pub(crate) file_layers: Option<Arc<[Layer]>>,
}

/// An index, and the source of its entries. Cheap to clone.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let index = testing::index(&memory, &[manifest]);
/// # let Root::Index(index) = Root::at(memory, index).await? else { panic!("it is an index") };
/// use ocikit_image::Root;
///
/// let image = index.image_for(&"linux/amd64".parse()?).await?;
/// assert_eq!(image.digest(), index.manifests()[0].digest);
/// let error = index.image_for(&"linux/arm64".parse()?).await.unwrap_err();
/// assert!(error.to_string().contains("linux/amd64"), "it lists what exists");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Index {
    pub(crate) descriptor: Descriptor,
    pub(crate) document: ocikit_spec::Index,
    pub(crate) source: Arc<dyn Source>,
}

/// A manifest that is neither an image nor an index. Cheap to clone.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let artifact = testing::referrer(&memory, &manifest, "application/vnd.example.sbom");
/// # let Root::Other(artifact) = Root::at(memory, artifact).await? else { panic!("it is an artifact") };
/// use ocikit_image::Root;
///
/// let about = artifact.manifest().ok_or("it is a manifest")?;
/// assert_eq!(about.artifact_type().map(|kind| kind.as_str()), Some("application/vnd.example.sbom"));
/// assert_eq!(about.subject().map(|subject| subject.digest), Some(manifest.digest));
/// println!("{} files", artifact.layers().count());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Artifact {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) source: Arc<dyn Source>,
}

/// A layer of an image.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, testing};
/// # let memory = Arc::new(Memory::new());
/// # let manifest = testing::image_of(&memory, &"linux/amd64".parse()?, testing::Compression::Gzip, &[testing::Tar::new().file("a", b"text").finish()]);
/// # let Root::Image(image) = Root::at(memory, manifest).await? else { panic!("it is an image") };
/// use ocikit_image::Root;
///
/// let layer = image.layers().next().ok_or("it has a layer")?;
/// let compressed = layer.open().await?.bytes().await?; // size and digest are checked
/// assert_eq!(compressed.len() as u64, layer.descriptor().size);
/// assert_eq!(layer.entries().await?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Layer {
    descriptor: Descriptor,
    source: Arc<dyn Source>,
    /// How files are read, if not from the tar.
    files: Option<Arc<dyn LayerFiles>>,
}

impl Root {
    /// Opens the root with a name. If the name is a digest, the root is checked to have it, whatever the source
    /// resolves it to.
    ///
    /// # Errors
    ///
    /// Those of [`SourceExt::find_root`] and of reading the document.
    pub async fn open(source: Arc<dyn Source>, name: &Name) -> Result<Root> {
        let descriptor = source.find_root(name).await?;
        Root::at(source, descriptor).await
    }

    /// Opens the root itself, or a manifest or index that it lists, by its digest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the root is something else and does not list it; otherwise as [`Root::at`].
    pub async fn manifest(&self, digest: &Digest) -> Result<Root> {
        match self {
            root if root.digest() == *digest => Ok(root.clone()),
            Root::Index(index) => match index.manifests().iter().find(|entry| entry.digest == *digest) {
                Some(entry) => index.open(entry).await,
                None => Err(Error::not_found(digest, &index.source)),
            },
            Root::Image(_) | Root::Other(_) => Err(Error::not_found(digest, self.source())),
        }
    }

    /// Opens the root with a descriptor. The descriptor of the result has the media type of the bytes, which may differ
    /// from the given one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Mismatch`] and [`Error::Document`] if the document is missing, damaged or cannot
    /// be parsed.
    pub async fn at(source: Arc<dyn Source>, descriptor: Descriptor) -> Result<Root> {
        let content = source.content(&descriptor).await?;
        Ok(Root::of(source, descriptor, content))
    }

    /// Returns the root with a descriptor and the content that was read for it.
    pub(crate) fn of(source: Arc<dyn Source>, mut descriptor: Descriptor, content: Content) -> Root {
        descriptor.media_type = content.media_type(&descriptor.media_type);
        match content {
            Content::Schema1 | Content::Blob => Root::Other(Artifact { descriptor, manifest: None, source }),
            Content::Document(Document::Index(document)) => Root::Index(Index { descriptor, document, source }),
            Content::Document(Document::Manifest(manifest)) => Root::of_manifest(source, descriptor, manifest),
        }
    }

    /// Returns the root with a manifest. A manifest with an image config and unusual layers is treated as an image; only
    /// an artifact type or another config type makes it an artifact.
    pub(crate) fn of_manifest(source: Arc<dyn Source>, descriptor: Descriptor, manifest: Manifest) -> Root {
        let config = manifest.config().map(|config| &config.media_type);
        if manifest.artifact_type().is_none() && config.is_some_and(MediaType::is_image_config) {
            Root::Image(Image::of(descriptor, manifest, source))
        } else {
            Root::Other(Artifact { descriptor, manifest: Some(manifest), source })
        }
    }

    /// Returns the descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Root::Image(image) => &image.descriptor,
            Root::Index(index) => &index.descriptor,
            Root::Other(artifact) => &artifact.descriptor,
        }
    }

    /// Returns the digest.
    pub fn digest(&self) -> Digest {
        self.descriptor().digest
    }

    /// Returns the source.
    pub fn source(&self) -> &Arc<dyn Source> {
        match self {
            Root::Image(image) => &image.source,
            Root::Index(index) => &index.source,
            Root::Other(artifact) => &artifact.source,
        }
    }

    /// Returns the layers of an image or the files of an artifact, in order. An index has none of its own.
    pub fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        match self {
            Root::Image(image) => layers(Some(&image.manifest), &image.source),
            Root::Index(index) => layers(None, &index.source),
            Root::Other(artifact) => layers(artifact.manifest.as_ref(), &artifact.source),
        }
    }

    /// Returns the document, or `None` for an unknown media type.
    pub fn document(&self) -> Option<Document> {
        match self {
            Root::Image(image) => Some(Document::Manifest(image.manifest.clone())),
            Root::Index(index) => Some(Document::Index(index.document.clone())),
            Root::Other(artifact) => artifact.manifest.clone().map(Document::Manifest),
        }
    }

    /// Returns the annotations of the document.
    pub fn annotations(&self) -> Annotations {
        self.document().map(|document| document.annotations().clone()).unwrap_or_default()
    }

    /// Returns the image for a platform: the entry of an index, or the root itself if it is an image for that platform.
    ///
    /// # Errors
    ///
    /// [`Error::NoPlatform`] with the existing platforms if there is none; those of reading manifests and configs.
    pub async fn for_platform(self, platform: &Platform) -> Result<Root> {
        let missing =
            |found: Option<Platform>| Error::no_platform(std::slice::from_ref(platform), found, self.source());
        match &self {
            Root::Index(index) => Ok(Root::Image(index.image_for(platform).await?)),
            Root::Image(image) => {
                let config = image.config().await?;
                match config.platform().is_some_and(|found| platform.accepts(found)) {
                    true => Ok(self),
                    false => Err(missing(config.platform().cloned())),
                }
            }
            Root::Other(_) => Err(missing(None)),
        }
    }
}

impl From<Image> for Root {
    fn from(image: Image) -> Root {
        Root::Image(image)
    }
}

impl From<Index> for Root {
    fn from(index: Index) -> Root {
        Root::Index(index)
    }
}

impl From<Artifact> for Root {
    fn from(artifact: Artifact) -> Root {
        Root::Other(artifact)
    }
}

impl Image {
    pub(crate) fn of(descriptor: Descriptor, manifest: Manifest, source: Arc<dyn Source>) -> Image {
        Image { descriptor, manifest, source, file_layers: None }
    }

    /// Returns whether its files can be read: each layer is a tar, or is [read in another way](LayerFiles).
    pub fn has_files(&self) -> bool {
        let is_tar = |layer: &Layer| layer.files.is_some() || layer.descriptor.media_type.is_tar_layer();
        self.file_layers().iter().all(is_tar)
    }

    /// Returns the image with other layers for reading files, from the lowest to the highest: those of an image whose layers
    /// are no tars, or whose files are found without reading a whole layer. An edit of the image drops them.
    pub fn with_file_layers(self, layers: Vec<Layer>) -> Image {
        Image { file_layers: Some(layers.into()), ..self }
    }

    /// Returns the layers that files are read from: those of the manifest, unless [others](Image::with_file_layers) are set.
    pub fn file_layers(&self) -> Vec<Layer> {
        self.file_layers.as_ref().map_or_else(|| self.layers().collect(), |layers| layers.to_vec())
    }

    /// Returns the descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Returns the source.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads and checks the config.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::read`], and [`Error::Document`].
    pub async fn config(&self) -> Result<Config> {
        let descriptor = self.manifest.config().ok_or_else(|| Error::not_found("config", &self.source))?;
        read_config(&*self.source, descriptor).await
    }

    /// Returns the layers, from the lowest to the highest.
    pub fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        layers(Some(&self.manifest), &self.source)
    }
}

fn layers<'a>(manifest: Option<&'a Manifest>, source: &'a Arc<dyn Source>) -> impl Iterator<Item = Layer> + 'a {
    let layers = manifest.map_or(&[][..], Manifest::layers);
    layers.iter().map(|layer| Layer::at(source.clone(), layer.clone()))
}

impl Index {
    /// Returns the descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Returns the source.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Returns the document.
    pub fn document(&self) -> &ocikit_spec::Index {
        &self.document
    }

    /// Returns the entries, in order.
    pub fn manifests(&self) -> &[Descriptor] {
        self.document.manifests()
    }

    /// Opens an entry.
    ///
    /// # Errors
    ///
    /// As [`Root::at`].
    pub async fn open(&self, entry: &Descriptor) -> Result<Root> {
        Root::at(self.source.clone(), entry.clone()).await
    }

    /// Opens the image for a platform: the entry with the [best rank](Platform::rank). The platform of an entry that
    /// does not state one is read from its config.
    ///
    /// # Errors
    ///
    /// [`Error::NoPlatform`] if there is none, or if its place has only images for other platforms; otherwise as
    /// [`Root::at`].
    pub async fn image_for(&self, platform: &Platform) -> Result<Image> {
        let platforms = self.platforms().await?;
        let found = self.manifests().iter().zip(&platforms);
        let ranked = found.filter_map(|(entry, found)| Some((platform.rank(found.as_ref()?)?, entry)));
        let best = ranked.min_by_key(|(rank, _)| *rank);
        let missing =
            || Error::no_platform(std::slice::from_ref(platform), platforms.iter().flatten().cloned(), &self.source);
        match self.open(best.ok_or_else(missing)?.1).await {
            Ok(Root::Image(image)) => Ok(image),
            Ok(_) => Err(missing()),
            // `docker save` lists more platforms than it holds: moby/moby#49473.
            Err(error) if error.is_not_found() => {
                let mut present = Vec::new();
                for (entry, found) in self.manifests().iter().zip(&platforms) {
                    if let Some(found) = found.as_ref().filter(|found| platform.rank(found).is_none())
                        && self.source.has(entry).await?
                    {
                        present.push(found.clone());
                    }
                }
                match present.is_empty() {
                    true => Err(error),
                    false => Err(Error::no_platform(std::slice::from_ref(platform), present, &self.source)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the platform of each entry, in order: that of its descriptor or, if it has none, that of its config
    /// (ocidir-rs#73). Attestation manifests, artifacts and entries that the source lacks have none.
    ///
    /// # Errors
    ///
    /// Those of reading manifests and configs; [`Error::Unsupported`] if more than
    /// [`MAX_PLATFORM_LOOKUPS`](crate::platform::MAX_PLATFORM_LOOKUPS) entries state no platform.
    pub async fn platforms(&self) -> Result<Vec<Option<Platform>>> {
        crate::platform::of_entries(&*self.source, self.manifests()).await
    }
}

impl Artifact {
    /// Returns the descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Returns the source.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Returns the manifest, or `None` for an unknown media type.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Returns the layers, in order: the files of the artifact. A manifest of an unknown media type has none.
    pub fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        layers(self.manifest.as_ref(), &self.source)
    }
}

impl Layer {
    /// Creates a layer from a descriptor of a manifest and the source of its bytes.
    pub fn at(source: Arc<dyn Source>, descriptor: Descriptor) -> Layer {
        Layer { descriptor, source, files: None }
    }

    /// Returns the layer with another way of reading its files. Its bytes stay those of the blob.
    pub fn with_files(self, files: Arc<dyn LayerFiles>) -> Layer {
        Layer { files: Some(files), ..self }
    }

    pub(crate) fn files(&self) -> Option<&Arc<dyn LayerFiles>> {
        self.files.as_ref()
    }

    /// Returns the descriptor: media type, digest and size.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the digest of the blob.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Returns the source.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Opens the compressed bytes, which are checked as they are read.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::open`].
    pub async fn open(&self) -> Result<crate::Body> {
        self.source.open(&self.descriptor).await
    }
}
