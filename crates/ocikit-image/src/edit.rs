use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ocikit_spec::annotations::SOCI_INDEX_DIGEST;
use ocikit_spec::{Config, ConfigEdit, Descriptor, Digest, History, Manifest, Platform};

use crate::bound::{check_layers, has_layers_of};
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::new_layer::NewLayer;
use crate::root::{Artifact, Image, Index, Root};
use crate::source::Source;

/// Changes to an image, which produce a new one. The original and its source are unchanged.
///
/// Manifest and config keep everything that is not changed: unknown fields, the order of keys, annotations, the subject.
/// Layers stay where they are; the new image reads them from the source of the original.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let descriptor = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let Root::Image(image) = Root::at(memory, descriptor).await? else { panic!("it is an image") };
/// let edited = image.edit().annotate("team", "web").config(|c| c.env("LANG", "C.UTF-8").label("a", "b")).finish().await?;
/// assert_eq!(edited.config().await?.execution().env, ["LANG=C.UTF-8"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct ImageEdit<'a> {
    image: Image,
    edit: ocikit_spec::ManifestEdit,
    /// The changes to the config, in order. They are made when the config was read.
    changes: Vec<Change<'a>>,
    /// The sources of new layers.
    placed: HashMap<Digest, Arc<dyn Source>>,
    /// The config, if it was read before.
    config: Option<Config>,
}

/// A change to the config of an image.
enum Change<'a> {
    Push(Digest, Option<History>),
    Insert(usize, Digest, Option<History>),
    Replace(usize, Digest),
    Remove(usize),
    Empty(usize),
    Config(Box<dyn Fn(&mut ConfigEdit) -> &mut ConfigEdit + Send + Sync + 'a>),
}

impl fmt::Debug for ImageEdit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageEdit { image, edit, changes, placed, .. } = self;
        let layers: Vec<_> = placed.keys().collect();
        let mut shown = f.debug_struct("ImageEdit");
        shown.field("image", image).field("edit", edit).field("changes", &changes.len()).field("layers", &layers);
        shown.finish()
    }
}

impl Image {
    /// Starts an edit.
    pub fn edit<'a>(&self) -> ImageEdit<'a> {
        ImageEdit {
            image: self.clone(),
            edit: self.manifest.edit(),
            changes: Vec::new(),
            placed: HashMap::new(),
            config: None,
        }
    }
}

impl<'a> ImageEdit<'a> {
    /// Gives the edit the config that was read before, so that it is not read again.
    pub(crate) fn with_config(&mut self, config: Config) -> &mut ImageEdit<'a> {
        self.config = Some(config);
        self
    }

    /// Sets an annotation of the manifest.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut ImageEdit<'a> {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the manifest, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut ImageEdit<'a> {
        self.edit.remove_annotation(key);
        self
    }

    /// Replaces the subject, or adds one.
    pub fn set_subject(&mut self, subject: &Descriptor) -> &mut ImageEdit<'a> {
        self.edit.set_subject(subject);
        self
    }

    /// Removes the subject, if there is one.
    pub fn remove_subject(&mut self) -> &mut ImageEdit<'a> {
        self.edit.remove_subject();
        self
    }

    /// Changes the subject to another manifest, for referrers of an image that was edited.
    pub fn repoint_subject(&mut self, digest: &Digest, size: u64) -> &mut ImageEdit<'a> {
        self.edit.repoint_subject(digest, size);
        self
    }

    /// Changes the config. It is read and changed by [`finish`](ImageEdit::finish), which can call the function several
    /// times.
    pub fn config(
        &mut self,
        change: impl Fn(&mut ConfigEdit) -> &mut ConfigEdit + Send + Sync + 'a,
    ) -> &mut ImageEdit<'a> {
        self.changes.push(Change::Config(Box::new(change)));
        self
    }

    /// Adds a layer on top of the others, with its entry in the history. Its media type is that of the same format in
    /// the family of the manifest: OCI or Docker.
    pub fn append_layer(&mut self, layer: NewLayer) -> &mut ImageEdit<'a> {
        let descriptor = self.place(&layer);
        self.edit.push_layer(&descriptor);
        self.changes.push(Change::Push(layer.diff_id(), layer.history().cloned()));
        self
    }

    /// Inserts a layer, so that it has this position, counted from the lowest.
    pub fn insert_layer(&mut self, position: usize, layer: NewLayer) -> &mut ImageEdit<'a> {
        let descriptor = self.place(&layer);
        self.edit.insert_layer(position, &descriptor);
        self.changes.push(Change::Insert(position, layer.diff_id(), layer.history().cloned()));
        self
    }

    /// Replaces a layer by another, for example the same files in another compression. The entry in the history is kept.
    pub fn replace_layer(&mut self, position: usize, layer: NewLayer) -> &mut ImageEdit<'a> {
        let descriptor = self.place(&layer);
        self.edit.replace_layer(position, &descriptor);
        self.changes.push(Change::Replace(position, layer.diff_id()));
        self
    }

    /// Removes a layer and its entry in the history; the positions of those above it decrease by one.
    pub fn remove_layer(&mut self, position: usize) -> &mut ImageEdit<'a> {
        self.edit.remove_layer(position);
        self.changes.push(Change::Remove(position));
        self
    }

    /// Removes a layer that has no files of its own, and keeps its history entry as that of a step that created no layer.
    pub fn empty_layer(&mut self, position: usize) -> &mut ImageEdit<'a> {
        self.edit.remove_layer(position);
        self.changes.push(Change::Empty(position));
        self
    }

    /// Replaces the lowest layers, which are those of an old base image, by the layers of a new one. Config and history
    /// are changed by the function.
    pub(crate) fn replace_base(
        &mut self,
        old_layers: usize,
        new: &Image,
        change: impl Fn(&mut ConfigEdit) -> &mut ConfigEdit + Send + Sync + 'a,
    ) -> &mut ImageEdit<'a> {
        let own: HashSet<_> = self.image.manifest.layers().iter().map(|layer| layer.digest).collect();
        for _ in 0..old_layers {
            self.edit.remove_layer(0);
        }
        for (position, layer) in new.manifest.layers().iter().enumerate() {
            if !own.contains(&layer.digest) {
                self.placed.insert(layer.digest, new.source.clone());
            }
            let media_type = layer.media_type.in_family_of(&self.image.descriptor.media_type);
            self.edit.insert_layer(position, &Descriptor { media_type, ..layer.clone() });
        }
        self.config(change)
    }

    /// Returns the image with the changes; the same image if nothing changed. The platform of its descriptor changes with
    /// that of its config.
    ///
    /// # Errors
    ///
    /// Those of reading the config, if it changes. [`Error::Document`] if the original does not have the expected form,
    /// and if a position does not exist. [`Error::Unsupported`] if the config of an artifact changes, and if layers
    /// change and the config lists another number of layers than the manifest. [`Error::Unmet`] if layers of a Nydus image
    /// change, unless all of them are replaced by plain ones. A SOCI index is no longer named if layers change.
    pub async fn finish(&self) -> Result<Image> {
        let Image { descriptor: old, source: base, .. } = &self.image;
        let mut edit = self.edit.clone();
        let mut documents = HashMap::new();
        let mut descriptor = old.clone();
        if let Some((before, after)) = self.changed_config().await?
            && let Some(config) = self.image.manifest.config()
        {
            let digest = Digest::of(config.digest.algorithm(), after.bytes());
            if digest != config.digest {
                edit.repoint_config(&digest, after.bytes().len() as u64);
                documents.insert(digest, after.bytes().clone());
                descriptor.platform = descriptor.platform.map(|listed| moved(&listed, &before, &after));
            }
        }
        let mut manifest = edit.finish().map_err(|source| unusable(old, base, source))?;
        if !has_layers_of(&manifest, &self.image.manifest) {
            check_layers(&self.image, &manifest).await?;
            // A SOCI index is one of the old layers.
            let index = |manifest: &Manifest| manifest.annotations().get(SOCI_INDEX_DIGEST).map(str::to_owned);
            if index(&manifest).is_some() && index(&manifest) == index(&self.image.manifest) {
                edit.remove_annotation(SOCI_INDEX_DIGEST);
                manifest = edit.finish().map_err(|source| unusable(old, base, source))?;
            }
        }
        let digest = Digest::of(old.digest.algorithm(), manifest.bytes());
        if digest == old.digest {
            return Ok(self.image.clone());
        }
        documents.insert(digest, manifest.bytes().clone());
        let size = manifest.bytes().len() as u64;
        let descriptor = Descriptor { digest, size, data: None, ..descriptor };
        let source = over(base, documents, &self.placed);
        Ok(Image::of(descriptor, manifest, Arc::new(source)))
    }

    /// Returns the config before and after the changes; `None` if there are none, or if it is not an image config.
    async fn changed_config(&self) -> Result<Option<(Config, Config)>> {
        let (image, changes) = (&self.image, &self.changes);
        if changes.is_empty() {
            return Ok(None);
        }
        let refuse = |what: String| Err(Error::Unsupported { place: image.source.to_string(), what });
        if !image.manifest.config().is_some_and(|config| config.media_type.is_image_config()) {
            return match changes.iter().any(|change| matches!(change, Change::Config(_))) {
                true => refuse(format!("{} is an artifact and has no image config", image.digest())),
                false => Ok(None),
            };
        }
        let config = match &self.config {
            Some(config) => config.clone(),
            None => image.config().await?,
        };
        let (listed, layers) = (config.rootfs().diff_ids.len(), image.manifest.layers().len());
        if listed != layers && changes.iter().any(|change| !matches!(change, Change::Config(_))) {
            return refuse(format!("{} has {layers} layers, and its config lists {listed}", image.digest()));
        }
        let mut edit = config.edit();
        for change in changes {
            match change {
                Change::Push(diff_id, history) => edit.push_layer(diff_id, history.as_ref()),
                Change::Insert(position, diff_id, history) => edit.insert_layer(*position, diff_id, history.as_ref()),
                Change::Replace(position, diff_id) => edit.replace_layer(*position, diff_id),
                Change::Remove(position) => edit.remove_layer(*position),
                Change::Empty(position) => edit.empty_layer(*position),
                Change::Config(change) => change(&mut edit),
            };
        }
        let unusable = |source| {
            let digest = image.manifest.config().map_or(image.digest(), |config| config.digest);
            Error::document(&digest, &image.source, source)
        };
        Ok(Some((config.clone(), edit.finish().map_err(unusable)?)))
    }

    /// Records the source of a new layer and returns its descriptor for the manifest.
    fn place(&mut self, layer: &NewLayer) -> Descriptor {
        let descriptor = layer.descriptor().clone();
        let known = self.image.manifest.layers().iter().any(|known| known.digest == descriptor.digest);
        if !known {
            self.placed.insert(descriptor.digest, layer.layer().source().clone());
        }
        let media_type = descriptor.media_type.in_family_of(&self.image.descriptor.media_type);
        Descriptor { media_type, ..descriptor }
    }
}

/// Returns the platform of an entry of an index after a change of the config. A field that is the same in both configs
/// keeps its value in the entry, because an entry can be more precise than the config.
fn moved(listed: &Platform, before: &Config, after: &Config) -> Platform {
    let (Some(before), Some(after)) = (before.platform(), after.platform()) else { return listed.clone() };
    fn field<T: Clone + PartialEq>(listed: &T, before: &T, after: &T) -> T {
        if before == after { listed.clone() } else { after.clone() }
    }
    let is_same = before.os == after.os && before.architecture == after.architecture;
    Platform {
        os: field(&listed.os, &before.os, &after.os),
        architecture: field(&listed.architecture, &before.architecture, &after.architecture),
        os_version: field(&listed.os_version, &before.os_version, &after.os_version),
        os_features: field(&listed.os_features, &before.os_features, &after.os_features),
        // A variant belongs to its architecture.
        variant: if is_same { field(&listed.variant, &before.variant, &after.variant) } else { after.variant.clone() },
    }
}

/// Changes to an index, which produce a new one. Entries are addressed by their position.
#[derive(Debug)]
pub struct IndexEdit {
    index: Index,
    edit: ocikit_spec::IndexEdit,
    added: Vec<Arc<dyn Source>>,
    /// The sources of the documents and blobs of new entries.
    placed: HashMap<Digest, Arc<dyn Source>>,
}

impl Index {
    /// Starts an edit.
    pub fn edit(&self) -> IndexEdit {
        IndexEdit { index: self.clone(), edit: self.document.edit(), added: Vec::new(), placed: HashMap::new() }
    }
}

impl IndexEdit {
    /// Sets an annotation of the index.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut IndexEdit {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the index, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut IndexEdit {
        self.edit.remove_annotation(key);
        self
    }

    /// Sets an annotation of an entry. Annotations of the manifest that it points to are separate.
    pub fn annotate_entry(&mut self, position: usize, key: &str, value: &str) -> &mut IndexEdit {
        self.edit.annotate_entry(position, key, value);
        self
    }

    /// Removes an annotation of an entry, if it exists.
    pub fn remove_entry_annotation(&mut self, position: usize, key: &str) -> &mut IndexEdit {
        self.edit.remove_entry_annotation(position, key);
        self
    }

    /// Sets the platform of an entry, or removes it.
    pub fn set_platform(&mut self, position: usize, platform: Option<&Platform>) -> &mut IndexEdit {
        self.edit.set_platform(position, platform);
        self
    }

    /// Replaces the subject, or adds one.
    pub fn set_subject(&mut self, subject: &Descriptor) -> &mut IndexEdit {
        self.edit.set_subject(subject);
        self
    }

    /// Removes the subject, if there is one.
    pub fn remove_subject(&mut self) -> &mut IndexEdit {
        self.edit.remove_subject();
        self
    }

    /// Changes other fields of the document: media types, artifact types.
    pub fn document(&mut self, change: impl FnOnce(&mut ocikit_spec::IndexEdit)) -> &mut IndexEdit {
        change(&mut self.edit);
        self
    }

    /// Adds an entry for a root at the end, with its descriptor: media type, platform and annotations.
    pub fn push(&mut self, root: &Root) -> &mut IndexEdit {
        self.edit.push(root.descriptor());
        self.place(root);
        self
    }

    /// Inserts an entry for a root, so that it has this position.
    pub fn insert(&mut self, position: usize, root: &Root) -> &mut IndexEdit {
        self.edit.insert(position, root.descriptor());
        self.place(root);
        self
    }

    /// Points an entry to another root. Its other fields, such as the platform, are kept.
    pub fn replace(&mut self, position: usize, root: &Root) -> &mut IndexEdit {
        let descriptor = root.descriptor();
        self.edit.repoint(position, &descriptor.digest, descriptor.size);
        self.place(root);
        self
    }

    /// Removes an entry; the positions of those after it decrease by one.
    pub fn remove(&mut self, position: usize) -> &mut IndexEdit {
        self.edit.remove(position);
        self
    }

    /// Returns the index with the changes; the same index if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if annotations of the original are not an object of strings, and if a position does not
    /// exist.
    pub fn finish(&self) -> Result<Index> {
        let Index { descriptor: old, source: base, .. } = &self.index;
        let document = self.edit.finish().map_err(|source| unusable(old, base, source))?;
        let Some(descriptor) = replaced(old, document.bytes()) else { return Ok(self.index.clone()) };
        let documents = HashMap::from([(descriptor.digest, document.bytes().clone())]);
        let source = self.added.iter().cloned().fold(over(base, documents, &self.placed), Memory::with_source);
        Ok(Index { descriptor, document, source: Arc::new(source) })
    }

    /// Records the source of a new entry. What an image consists of is known, so that no other source is asked for it;
    /// what is below another root is looked for.
    fn place(&mut self, root: &Root) {
        let source = root.source();
        if Arc::ptr_eq(source, &self.index.source) {
            return;
        }
        match root {
            Root::Image(Image { manifest, .. }) => {
                let parts = manifest.config().into_iter().chain(manifest.layers()).map(|part| part.digest);
                self.placed.extend(parts.chain([root.digest()]).map(|digest| (digest, source.clone())));
            }
            Root::Index(_) | Root::Other(_) => self.added.push(source.clone()),
        }
    }
}

impl Root {
    /// Returns the root with another digest and size of its subject, which keeps its other fields; the same root if it
    /// has no subject.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the subject of the original does not have the form of a descriptor.
    pub fn with_subject(&self, digest: &Digest, size: u64) -> Result<Root> {
        let (old, place) = (self.descriptor(), self.source());
        let manifest = |manifest: &Manifest| {
            let edited = manifest.edit().repoint_subject(digest, size).finish();
            edited.map_err(|error| unusable(old, place, error))
        };
        let stored = |bytes: &Bytes| -> (Descriptor, Arc<dyn Source>) {
            match replaced(old, bytes) {
                Some(descriptor) => {
                    let documents = [(descriptor.digest, bytes.clone())];
                    (descriptor, Arc::new(over(place, documents, &HashMap::new())))
                }
                None => (old.clone(), place.clone()),
            }
        };
        Ok(match self {
            Root::Image(image) => {
                let manifest = manifest(&image.manifest)?;
                let (descriptor, source) = stored(manifest.bytes());
                Root::Image(Image::of(descriptor, manifest, source))
            }
            Root::Other(Artifact { manifest: Some(found), .. }) => {
                let manifest = manifest(found)?;
                let (descriptor, source) = stored(manifest.bytes());
                Root::Other(Artifact { descriptor, manifest: Some(manifest), source })
            }
            Root::Index(index) => {
                let document = index.document.edit().repoint_subject(digest, size).finish();
                let document = document.map_err(|error| unusable(old, place, error))?;
                let (descriptor, source) = stored(document.bytes());
                Root::Index(Index { descriptor, document, source })
            }
            Root::Other(Artifact { manifest: None, .. }) => self.clone(),
        })
    }
}

fn unusable(descriptor: &Descriptor, place: &Arc<dyn Source>, source: ocikit_spec::Error) -> Error {
    Error::document(&descriptor.digest, place, source)
}

/// Returns the descriptor of new bytes; `None` if they are the old ones.
pub(crate) fn replaced(old: &Descriptor, bytes: &Bytes) -> Option<Descriptor> {
    let digest = Digest::of(old.digest.algorithm(), bytes);
    (digest != old.digest).then(|| Descriptor { digest, size: bytes.len() as u64, data: None, ..old.clone() })
}

/// Returns a source of new documents, and of documents and blobs of other sources, over a base.
pub(crate) fn over(
    base: &Arc<dyn Source>,
    documents: impl IntoIterator<Item = (Digest, Bytes)>,
    placed: &HashMap<Digest, Arc<dyn Source>>,
) -> Memory {
    let memory = Memory::over(base.clone());
    let memory = documents.into_iter().fold(memory, |memory, (digest, bytes)| memory.with_document(digest, bytes));
    placed.iter().fold(memory, |memory, (digest, source)| memory.with_part(*digest, source.clone()))
}
