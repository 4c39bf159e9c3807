use std::sync::Arc;

use ocikit_spec::{
    Annotations, Config, Content, Descriptor, Digest, Document, MAX_DOCUMENT_SIZE, Manifest, MediaType, Platform,
};

use crate::edit::{ImageEdit, IndexEdit};
use crate::error::{Error, Result};
use crate::source::{Name, Source, SourceExt, read_at_most};

/// What a name leads to: an image, an index of images, or something else that borrows their form.
#[derive(Debug, Clone)]
pub enum Root {
    /// A container image for one platform.
    Image(Image),
    /// A list of manifests, usually one image for several platforms.
    Index(Index),
    /// An artifact: a chart, a signature, an SBOM, or a manifest of a kind that is only passed on.
    Other(Artifact),
}

/// A container image: a manifest, and where its config and layers are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) source: Arc<dyn Source>,
}

/// An index, and where its entries are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Index {
    pub(crate) descriptor: Descriptor,
    pub(crate) document: ocikit_spec::Index,
    pub(crate) source: Arc<dyn Source>,
}

/// Something in a registry or layout that is neither an image nor an index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) source: Arc<dyn Source>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    descriptor: Descriptor,
    source: Arc<dyn Source>,
}

impl Root {
    /// Opens what a name leads to. If the name is a digest, the root has that digest, whatever the source says.
    ///
    /// # Errors
    ///
    /// Those of [`SourceExt::find`] and of reading the document.
    pub async fn open(source: Arc<dyn Source>, name: &Name) -> Result<Root> {
        let descriptor = source.find(name).await?;
        Root::at(source, descriptor).await
    }

    /// Opens what a descriptor leads to. The descriptor of the root has the media type of its bytes, which may be another
    /// than the one given here.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Mismatch`] and [`Error::Document`] as the document is missing, damaged or
    /// senseless.
    pub async fn at(source: Arc<dyn Source>, mut descriptor: Descriptor) -> Result<Root> {
        let content = source.content(&descriptor).await?;
        descriptor.media_type = content.media_type(&descriptor.media_type);
        Ok(match content {
            Content::Schema1 | Content::Blob => Root::Other(Artifact { descriptor, manifest: None, source }),
            Content::Document(Document::Index(document)) => Root::Index(Index { descriptor, document, source }),
            Content::Document(Document::Manifest(manifest)) => {
                // What is in the form of an image and has layers of something else is still an image to those who
                // pass it on; only a type of its own makes it an artifact.
                let config = manifest.config().map(|config| &config.media_type);
                if manifest.artifact_type().is_none() && config.is_some_and(MediaType::is_image_config) {
                    Root::Image(Image { descriptor, manifest, source })
                } else {
                    Root::Other(Artifact { descriptor, manifest: Some(manifest), source })
                }
            }
        })
    }

    /// The descriptor that led here.
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Root::Image(image) => &image.descriptor,
            Root::Index(index) => &index.descriptor,
            Root::Other(artifact) => &artifact.descriptor,
        }
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.descriptor().digest
    }

    /// Where it is read from.
    pub fn source(&self) -> &Arc<dyn Source> {
        match self {
            Root::Image(image) => &image.source,
            Root::Index(index) => &index.source,
            Root::Other(artifact) => &artifact.source,
        }
    }

    /// The document, unless it is of a kind that is only passed on.
    pub fn document(&self) -> Option<Document> {
        match self {
            Root::Image(image) => Some(Document::Manifest(image.manifest.clone())),
            Root::Index(index) => Some(Document::Index(index.document.clone())),
            Root::Other(artifact) => artifact.manifest.clone().map(Document::Manifest),
        }
    }

    /// The annotations of the document.
    pub fn annotations(&self) -> Annotations {
        self.document().map(|document| document.annotations().clone()).unwrap_or_default()
    }
}

impl Image {
    /// The descriptor that led here.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Where it is read from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The config, read and checked now.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::read`], and [`Error::Document`].
    pub async fn config(&self) -> Result<Config> {
        let descriptor = self.manifest.config().ok_or_else(|| Error::not_found("config", &self.source))?;
        read_at_most(&*self.source, descriptor, MAX_DOCUMENT_SIZE)?;
        let bytes = self.source.read(descriptor).await?;
        Config::parse(bytes).map_err(|source| Error::document(&descriptor.digest, &self.source, source))
    }

    /// The layers, from the lowest to the highest.
    pub fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        self.manifest.layers().iter().map(|layer| Layer::at(self.source.clone(), layer.clone()))
    }

    /// Begins an edit.
    pub fn edit(&self) -> ImageEdit {
        ImageEdit::new(self)
    }
}

impl Index {
    /// The descriptor that led here.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// The document.
    pub fn document(&self) -> &ocikit_spec::Index {
        &self.document
    }

    /// The entries, in order.
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

    /// Opens the image for a platform: the entry that [answers best](Platform::rank). Entries that do not name a platform
    /// have that of their config.
    ///
    /// # Errors
    ///
    /// [`Error::NoPlatform`] if there is none, otherwise as [`Root::at`].
    pub async fn image_for(&self, platform: &Platform) -> Result<Image> {
        let platforms = self.platforms().await?;
        let found = self.manifests().iter().zip(&platforms);
        let ranked = found.filter_map(|(entry, found)| Some((platform.rank(found.as_ref()?)?, entry)));
        let best = ranked.min_by_key(|(rank, _)| *rank);
        let missing =
            || Error::no_platform(std::slice::from_ref(platform), platforms.iter().flatten().cloned(), &self.source);
        match self.open(best.ok_or_else(missing)?.1).await? {
            Root::Image(image) => Ok(image),
            _ => Err(missing()),
        }
    }

    /// The platform of each entry, in order: that of its descriptor or, if that names none, that of its config
    /// (ocidir-rs#73). Attestations, artifacts and entries that are not here have none.
    ///
    /// # Errors
    ///
    /// Those of reading manifests and configs; [`Error::Unsupported`] if more than
    /// [`MAX_PLATFORM_LOOKUPS`](crate::platform::MAX_PLATFORM_LOOKUPS) entries name no platform.
    pub async fn platforms(&self) -> Result<Vec<Option<Platform>>> {
        crate::platform::of_entries(&*self.source, self.manifests()).await
    }

    /// Begins an edit.
    pub fn edit(&self) -> IndexEdit {
        IndexEdit::new(self)
    }
}

impl Artifact {
    /// The descriptor that led here.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The manifest, unless it is of a kind that is only passed on.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }
}

impl Layer {
    /// A layer that a manifest lists, in the place where its bytes are.
    pub fn at(source: Arc<dyn Source>, descriptor: Descriptor) -> Layer {
        Layer { descriptor, source }
    }

    /// Type, digest and size.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Where it is read from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The compressed bytes, checked as they pass.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::open`].
    pub async fn open(&self) -> Result<crate::Body> {
        self.source.open(&self.descriptor).await
    }
}
