use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ocikit_spec::{Descriptor, Digest, MediaType, Platform, annotations};

use crate::bound::{has_layers_of, is_nydus_of, is_soci_of};
use crate::edit::{over, replaced};
use crate::error::{Error, Need, Result};
use crate::platform::best_entries;
use crate::root::{Artifact, Image, Index, Root};
use crate::select_platforms::select_platforms;
use crate::source::Source;
use crate::walk::limits::{Limits, MAX_DEPTH, MAX_NEW_DOCUMENTS_BYTES, too_deep};
use crate::walk::{Edge, Found, Walk};

/// The number of images that are changed in parallel.
const MAX_PARALLEL_CHANGES: usize = 8;

/// The images of a root that a change applies to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// The platforms whose images are changed; all images if empty.
    pub platforms: Vec<Platform>,
    /// Whether the change keeps the files of images, as a conversion does. Otherwise an image is refused that gets other layers
    /// while the index has a Nydus image that was made from it.
    pub keeps_files: bool,
}

impl Selection {
    /// Selects all images.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// Returns the same images for a change that keeps their files.
    pub fn keeping_files(&self) -> Selection {
        Selection { keeps_files: true, ..self.clone() }
    }

    /// Selects the images for these platforms; all images if there are none.
    pub fn of(platforms: impl Into<Vec<Platform>>) -> Selection {
        Selection { platforms: platforms.into(), keeps_files: false }
    }
}

/// The result of [`map_images`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Mapped {
    /// The root with the changed images.
    pub root: Root,
    /// The new digest of each manifest and index that changed, by its old digest.
    pub replaced: HashMap<Digest, Digest>,
    /// BuildKit's attestation manifests of changed images, by their new digests. The index names the changed image for
    /// each; the statements in them still name the old digest.
    pub attestations: Vec<Digest>,
    /// The manifests and indexes of Docker's format with changed annotations, by their new digests. That format has no
    /// annotations, and docker ignores them.
    pub docker_annotations: Vec<Digest>,
    /// The images whose SOCI index was dropped because their layers changed, by their new digests. Such an index is one of
    /// certain layers.
    pub dropped_soci: Vec<Digest>,
    /// The number of images that were selected. An image that an index lists twice counts twice.
    pub images: usize,
}

/// Changes the selected images of a root: an image, or the images of an index and of the indexes below it.
///
/// An image that is listed several times is changed once. Everything that refers to a changed image follows: the entries
/// of all indexes with their platforms, BuildKit's attestation manifests (`vnd.docker.reference.digest`, and a subject).
/// The platform of an entry follows the platform of the descriptor that the change returns; see [`ImageEdit::finish`].
/// Documents that do not refer to a changed one keep their bytes, as do artifacts and attestation manifests. Up to 8
/// images are changed in parallel.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let one = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
/// # let two = testing::image(&memory, 2, &"linux/arm64".parse()?, &[1000]);
/// # let root = Root::at(memory.clone(), testing::index(&memory, &[one, two])).await?;
/// use ocikit_image::{Selection, map_images};
///
/// let label = async |image: ocikit_image::Image| image.edit().config(|c| c.label("team", "web")).finish().await;
/// let mapped = map_images(&root, &Selection::all(), label).await?;
/// assert_eq!((mapped.images, mapped.replaced.len()), (2, 3), "two manifests and the index");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// The first error of a change. [`Error::NoPlatform`] if there is no image for one of the platforms;
/// [`Error::Unsupported`] for an artifact, and if the new documents exceed
/// [`MAX_NEW_DOCUMENTS_BYTES`](crate::walk::limits::MAX_NEW_DOCUMENTS_BYTES).
///
/// [`ImageEdit::finish`]: crate::ImageEdit::finish
pub async fn map_images<F, Changed>(root: &Root, selection: &Selection, change: F) -> Result<Mapped>
where
    F: Fn(Image) -> Changed + Sync,
    Changed: Future<Output = Result<Image>> + Send,
{
    match root {
        Root::Index(index) => map_index(index, selection, Some(&change), &|_, _| ()).await,
        Root::Image(image) => {
            // By the same rule as everywhere.
            select_platforms(root, &selection.platforms).await?;
            let changed = change(image.clone()).await?;
            let docker_annotations = docker_annotations(image, &changed).into_iter().collect();
            let dropped_soci = dropped_soci(image, &changed).into_iter().collect();
            Ok(Mapped { docker_annotations, dropped_soci, ..Mapped::single(root.digest(), Root::Image(changed)) })
        }
        Root::Other(_) => {
            let what = format!("{} is an artifact, not an image or index", root.digest());
            Err(Error::Unsupported { place: root.source().to_string(), what })
        }
    }
}

impl From<Root> for Mapped {
    /// Returns a result without anything known about it but the root.
    fn from(root: Root) -> Mapped {
        Mapped { images: 0, ..Mapped::single(root.digest(), root) }
    }
}

impl Mapped {
    /// Returns the result for a root that is no index.
    pub(crate) fn single(before: Digest, root: Root) -> Mapped {
        let is_changed = root.digest() != before;
        let replaced = is_changed.then(|| (before, root.digest())).into_iter().collect();
        let (attestations, docker_annotations, dropped_soci) = (Vec::new(), Vec::new(), Vec::new());
        Mapped { root, replaced, attestations, docker_annotations, dropped_soci, images: 1 }
    }
}

/// Returns the digest of a changed manifest of Docker's format, if it has other annotations.
fn docker_annotations(old: &Image, new: &Image) -> Option<Digest> {
    let annotations = new.manifest.annotations();
    let is_docker = new.descriptor.media_type == MediaType::DOCKER_MANIFEST;
    (is_docker && !annotations.is_empty() && annotations != old.manifest.annotations()).then(|| new.digest())
}

/// Returns the digest of an image that had a SOCI index, if its layers changed.
fn dropped_soci(old: &Image, new: &Image) -> Option<Digest> {
    let had_index = old.manifest.annotations().get(annotations::SOCI_INDEX_DIGEST).is_some();
    (had_index && !has_layers_of(&old.manifest, &new.manifest)).then(|| new.digest())
}

/// The entries that were selected in an index, and its place.
#[derive(Debug)]
pub(crate) struct Selected<'a> {
    /// The positions of the selected images.
    pub(crate) positions: &'a [usize],
    /// Whether it is the root.
    pub(crate) is_root: bool,
    /// The number of images that were selected in it and below.
    pub(crate) images: usize,
}

/// Changes the selected images below an index, unless there is no change, and then each index.
pub(crate) async fn map_index<F, Changed>(
    index: &Index,
    selection: &Selection,
    change: Option<&F>,
    change_index: &(dyn Fn(&mut ocikit_spec::IndexEdit, Selected<'_>) + Sync),
) -> Result<Mapped>
where
    F: Fn(Image) -> Changed + Sync,
    Changed: Future<Output = Result<Image>> + Send,
{
    let below = Below::read(index, selection, change.is_some()).await?;
    let missing = selection.platforms.iter().filter(|wanted| !below.matched.contains(wanted));
    let missing: Vec<_> = missing.cloned().collect();
    if !missing.is_empty() {
        return Err(Error::no_platform(&missing, below.platforms, &index.source));
    }
    let mut rebuild = Rebuild {
        below: &below,
        changes_images: change.is_some(),
        change_index,
        new: HashMap::new(),
        counts: HashMap::new(),
        documents: HashMap::new(),
        placed: HashMap::new(),
        bytes: 0,
        attestations: Vec::new(),
        docker_annotations: Vec::new(),
        dropped_soci: Vec::new(),
        keeps_files: selection.keeps_files,
        changes: HashMap::new(),
        root: None,
    };
    if let Some(change) = change {
        let images: Vec<Image> = below.images.iter().map(|digest| below.image(digest)).collect::<Result<_>>()?;
        let changed = images.into_iter().map(|old| {
            async move {
                let new = change(old.clone()).await?;
                Ok::<_, Error>((old, new))
            }
            .boxed()
        });
        let mut changed = stream::iter(changed).buffered(MAX_PARALLEL_CHANGES);
        while let Some((old, new)) = changed.try_next().await? {
            rebuild.add(&old, new)?;
        }
    }
    let images = rebuild.index(index, 0)?;
    Ok(rebuild.finish(index, images))
}

/// The documents below an index that the change needs.
#[derive(Default)]
struct Below {
    roots: HashMap<Digest, Result<Root, Arc<Error>>>,
    /// The selected images, each once, in the order in which they were found.
    images: Vec<Digest>,
    /// For each index the positions of the entries that were selected; `None` if all are.
    chosen: HashMap<Digest, Option<HashSet<usize>>>,
    /// The requested platforms that some image is for.
    matched: HashSet<Platform>,
    /// The platforms of all images.
    platforms: Vec<Platform>,
}

impl Below {
    async fn read(index: &Index, selection: &Selection, changes_images: bool) -> Result<Below> {
        let source = &index.source;
        let mut below = Below::default();
        let mut walk = Walk::reading(&**source, Limits::IMAGE, |entry| Root::at(source.clone(), entry));
        walk.start_with(&index.descriptor, Ok(Root::Index(index.clone())))?;
        let mut selected = HashSet::new();
        while let Some(node) = walk.next().await {
            let Found::Content(opened) = node.found else { continue };
            match &opened {
                Ok(Root::Index(index)) => {
                    let chosen = below.choose(index, selection).await?;
                    let entries = index.manifests().iter().enumerate();
                    let needed = entries.filter(|(at, entry)| {
                        let is_chosen = is_chosen(chosen.as_ref(), *at) && changes_images;
                        if is_chosen && !entry.is_attestation() {
                            selected.insert(entry.digest);
                        }
                        is_needed(entry, is_chosen)
                    });
                    let needed: HashSet<_> = needed.map(|(_, entry)| entry.digest).collect();
                    for (position, entry) in index.manifests().iter().enumerate() {
                        let about = entry.described_image();
                        if needed.contains(&entry.digest) || about.is_some_and(|about| needed.contains(&about)) {
                            walk.add(&node.path, Edge::Manifest(position), entry)?;
                        }
                    }
                    below.chosen.insert(node.path.digest, chosen);
                }
                Ok(Root::Image(_)) => below.images.push(node.path.digest),
                Ok(Root::Other(_)) | Err(_) => {}
            }
            below.roots.insert(node.path.digest, opened.map_err(Arc::new));
        }
        below.images.retain(|digest| selected.contains(digest));
        Ok(below)
    }

    /// Returns the positions of the entries with the best rank for the platforms; `None` if all are selected.
    async fn choose(&mut self, index: &Index, selection: &Selection) -> Result<Option<HashSet<usize>>> {
        if selection.platforms.is_empty() {
            return Ok(None);
        }
        let found = index.platforms().await?;
        let mut chosen = HashSet::new();
        for platform in &selection.platforms {
            // A platform that is missing here may be in another index of the same root.
            if let Ok(best) = best_entries(std::slice::from_ref(platform), &found) {
                self.matched.insert(platform.clone());
                chosen.extend(best);
            }
        }
        self.platforms.extend(found.into_iter().flatten());
        Ok(Some(chosen))
    }

    /// Returns a document that was needed; `None` if it was not.
    fn root(&self, digest: &Digest) -> Result<Option<&Root>> {
        self.roots.get(digest).map(Result::as_ref).transpose().map_err(Error::again)
    }

    fn image(&self, digest: &Digest) -> Result<Image> {
        match self.root(digest)? {
            Some(Root::Image(image)) => Ok(image.clone()),
            _ => Err(Error::not_found(digest, "the index")),
        }
    }
}

/// Returns whether an entry is read: one that may be an index, or a manifest that is changed.
fn is_needed(entry: &Descriptor, is_changed: bool) -> bool {
    match &entry.media_type {
        _ if entry.is_attestation() => false,
        kind if kind.is_manifest() => is_changed,
        kind => !kind.is_blob(),
    }
}

fn is_chosen(chosen: Option<&HashSet<usize>>, position: usize) -> bool {
    chosen.is_none_or(|chosen| chosen.contains(&position))
}

/// How an image changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageChange {
    /// It has other annotations, or another config.
    SameLayers,
    /// It has other layers.
    OtherLayers,
    /// It has become a Nydus image.
    Nydus,
}

impl ImageChange {
    fn of(old: &Image, new: &Image) -> ImageChange {
        match has_layers_of(&old.manifest, &new.manifest) {
            true => ImageChange::SameLayers,
            false if new.manifest.is_nydus() => ImageChange::Nydus,
            false => ImageChange::OtherLayers,
        }
    }
}

/// The new indexes and attestation manifests, from the leaves to the root. One that is listed several times is changed
/// once.
struct Rebuild<'a> {
    below: &'a Below,
    changes_images: bool,
    change_index: &'a (dyn Fn(&mut ocikit_spec::IndexEdit, Selected<'_>) + Sync),
    /// The descriptor of each document that was changed or visited, by its old digest.
    new: HashMap<Digest, Descriptor>,
    /// The number of images that were selected in each index.
    counts: HashMap<Digest, usize>,
    documents: HashMap<Digest, Bytes>,
    placed: HashMap<Digest, Arc<dyn Source>>,
    /// The size of all new documents in bytes.
    bytes: u64,
    attestations: Vec<Digest>,
    docker_annotations: Vec<Digest>,
    dropped_soci: Vec<Digest>,
    keeps_files: bool,
    /// How images changed, by their old digests.
    changes: HashMap<Digest, ImageChange>,
    root: Option<ocikit_spec::Index>,
}

impl Rebuild<'_> {
    /// Adds an image that was changed, with the sources of what it has and the old one has not.
    fn add(&mut self, old: &Image, new: Image) -> Result<()> {
        let known = parts(old).map(|part| part.digest).collect::<HashSet<_>>();
        if new.digest() != old.digest() {
            self.docker_annotations.extend(docker_annotations(old, &new));
            self.dropped_soci.extend(dropped_soci(old, &new));
            self.changes.insert(old.digest(), ImageChange::of(old, &new));
            self.count(&new.descriptor, &new.source)?;
            self.placed.insert(new.digest(), new.source.clone());
            for part in parts(&new).filter(|part| !known.contains(&part.digest)) {
                if new.manifest.config().is_some_and(|config| config.digest == part.digest) {
                    self.count(part, &new.source)?;
                }
                self.placed.insert(part.digest, new.source.clone());
            }
        }
        self.new.insert(old.digest(), new.descriptor);
        Ok(())
    }

    fn count(&mut self, document: &Descriptor, place: &dyn ToString) -> Result<()> {
        self.bytes = self.bytes.saturating_add(document.size);
        if self.bytes <= MAX_NEW_DOCUMENTS_BYTES {
            return Ok(());
        }
        let what = format!("the new documents exceed the limit of {MAX_NEW_DOCUMENTS_BYTES} bytes");
        Err(Error::Unsupported { place: place.to_string(), what })
    }

    /// Rebuilds an index and what is below it, and returns the number of images that were selected.
    fn index(&mut self, index: &Index, depth: usize) -> Result<usize> {
        if depth > MAX_DEPTH {
            return Err(too_deep(&index.digest(), &index.source));
        }
        let below = self.below;
        let chosen = below.chosen.get(&index.digest()).and_then(Option::as_ref);
        let mut edit = index.document.edit();
        let (mut positions, mut images) = (Vec::new(), 0_usize);
        let mut stale = HashSet::new();
        for (position, entry) in index.manifests().iter().enumerate() {
            if entry.is_attestation() || entry.media_type.is_blob() {
                continue;
            }
            let is_chosen = is_chosen(chosen, position);
            let root = match is_needed(entry, is_chosen && self.changes_images) {
                true => below.root(&entry.digest)?,
                false => None,
            };
            if let Some(Root::Index(nested)) = root {
                if !self.counts.contains_key(&entry.digest) {
                    let count = self.index(nested, depth + 1)?;
                    self.counts.insert(entry.digest, count);
                }
                images = images.saturating_add(self.counts.get(&entry.digest).copied().unwrap_or_default());
                self.repoint(&mut edit, index, position, &mut stale)?;
                continue;
            }
            // Artifacts in an index are left alone.
            if !is_chosen || (self.changes_images && !matches!(root, Some(Root::Image(_)))) {
                continue;
            }
            self.repoint(&mut edit, index, position, &mut stale)?;
            positions.push(position);
            images += 1;
        }
        (self.change_index)(&mut edit, Selected { positions: &positions, is_root: depth == 0, images });
        let mut stale: Vec<_> = stale.into_iter().collect();
        stale.sort_unstable();
        for position in stale.into_iter().rev() {
            edit.remove(position);
        }
        let document = edit.finish().map_err(|source| Error::document(&index.digest(), &index.source, source))?;
        if let Some(descriptor) = replaced(&index.descriptor, document.bytes()) {
            self.put(index.digest(), descriptor, document.bytes().clone(), &index.source)?;
        }
        if depth == 0 {
            self.root = Some(document);
        }
        Ok(images)
    }

    fn put(&mut self, old: Digest, new: Descriptor, bytes: Bytes, place: &dyn ToString) -> Result<()> {
        self.count(&new, place)?;
        self.documents.insert(new.digest, bytes);
        self.new.insert(old, new);
        Ok(())
    }

    /// Points an entry to the changed document, and the attestation manifests of the old one to the new one.
    /// SOCI indexes of other layers become stale.
    fn repoint(
        &mut self,
        edit: &mut ocikit_spec::IndexEdit,
        index: &Index,
        position: usize,
        stale: &mut HashSet<usize>,
    ) -> Result<()> {
        let entry = &index.manifests()[position];
        let old = entry.digest;
        let Some(new) = self.new.get(&old).filter(|new| new.digest != old).cloned() else { return Ok(()) };
        edit.repoint(position, &new.digest, new.size);
        if entry.media_type != new.media_type && entry.media_type.is_document() {
            edit.set_entry_media_type(position, &new.media_type);
        }
        // The image was read through one of its entries, which decides about the platform of all of them.
        let before = self.below.root(&old)?.and_then(|root| root.descriptor().platform.clone());
        if entry.platform.is_some() && new.platform != before {
            edit.set_platform(position, new.platform.as_ref());
        }
        for (position, entry) in index.manifests().iter().enumerate() {
            if entry.described_image() == Some(old) {
                edit.annotate_entry(position, annotations::DOCKER_REFERENCE_DIGEST, &new.digest.to_string());
                self.attestation(edit, entry, position, &old, &new)?;
            }
        }
        self.repoint_formats(edit, index, position, &new.digest, stale)
    }

    /// Points SOCI indexes and Nydus images that were made from an image to the new one, unless they are not of its layers.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] for a Nydus image beside the changed one that would have other files.
    fn repoint_formats(
        &self,
        edit: &mut ocikit_spec::IndexEdit,
        index: &Index,
        position: usize,
        new: &Digest,
        stale: &mut HashSet<usize>,
    ) -> Result<()> {
        let old = index.manifests()[position].digest;
        let Some(change) = self.changes.get(&old) else { return Ok(()) };
        if *change != ImageChange::SameLayers {
            edit.remove_entry_annotation(position, annotations::SOCI_INDEX_DIGEST);
        }
        for (position, entry) in index.manifests().iter().enumerate() {
            if is_soci_of(entry, &old) {
                match change {
                    ImageChange::SameLayers => {
                        edit.annotate_entry(position, annotations::SOCI_IMAGE_DIGEST, &new.to_string());
                    }
                    ImageChange::OtherLayers | ImageChange::Nydus => {
                        stale.insert(position);
                    }
                }
            }
            if is_nydus_of(entry, &old) {
                let is_changed = self.changes.contains_key(&entry.digest);
                if *change == ImageChange::OtherLayers && !is_changed && !self.keeps_files {
                    let what = format!("{} beside {old} is a Nydus image with its files", entry.digest);
                    return Err(Error::unmet(&index.source, what, Need::PlainLayers));
                }
                // One whose config did not follow is not made from the new image.
                if (*change == ImageChange::SameLayers && is_changed)
                    || (*change == ImageChange::OtherLayers && self.keeps_files)
                {
                    edit.annotate_entry(position, annotations::NYDUS_SOURCE_DIGEST, &new.to_string());
                }
            }
        }
        Ok(())
    }

    /// Changes the subject of an attestation manifest, if that is the old image.
    fn attestation(
        &mut self,
        edit: &mut ocikit_spec::IndexEdit,
        entry: &Descriptor,
        position: usize,
        old: &Digest,
        new: &Descriptor,
    ) -> Result<()> {
        let found = self.below.root(&entry.digest)?;
        let manifest = match found {
            Some(
                Root::Image(Image { manifest, descriptor, source, .. })
                | Root::Other(Artifact { manifest: Some(manifest), descriptor, source }),
            ) => Some((manifest, descriptor, source)),
            _ => None,
        };
        let mut digest = entry.digest;
        if let Some((manifest, descriptor, source)) = manifest
            && manifest.subject().is_some_and(|subject| subject.digest == *old)
        {
            let edited = manifest.edit().repoint_subject(&new.digest, new.size).finish();
            let edited = edited.map_err(|error| Error::document(&entry.digest, source, error))?;
            if let Some(descriptor) = replaced(descriptor, edited.bytes()) {
                edit.repoint(position, &descriptor.digest, descriptor.size);
                digest = descriptor.digest;
                self.put(entry.digest, descriptor, edited.bytes().clone(), source)?;
            }
        }
        if !self.attestations.contains(&digest) {
            self.attestations.push(digest);
        }
        Ok(())
    }

    fn finish(mut self, index: &Index, images: usize) -> Mapped {
        let changed = self.new.iter().filter(|(old, new)| new.digest != **old);
        let replaced = changed.map(|(old, new)| (*old, new.digest)).collect();
        let descriptor = self.new.get(&index.digest()).cloned().unwrap_or_else(|| index.descriptor.clone());
        if let Some(document) = &self.root
            && descriptor.media_type == MediaType::DOCKER_MANIFEST_LIST
            && !document.annotations().is_empty()
            && document.annotations() != index.document.annotations()
        {
            self.docker_annotations.push(descriptor.digest);
        }
        let root = match self.root {
            Some(document) if descriptor.digest != index.digest() => {
                let source = over(&index.source, self.documents, &self.placed);
                Root::Index(Index { descriptor, document, source: Arc::new(source) })
            }
            _ => Root::Index(index.clone()),
        };
        let Rebuild { attestations, docker_annotations, dropped_soci, .. } = self;
        Mapped { root, replaced, attestations, docker_annotations, dropped_soci, images }
    }
}

/// Returns the config and layers of an image.
fn parts(image: &Image) -> impl Iterator<Item = &Descriptor> {
    image.manifest.config().into_iter().chain(image.manifest.layers())
}
