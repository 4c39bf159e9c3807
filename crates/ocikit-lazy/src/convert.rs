//! The conversion of images.

use std::collections::HashMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::{Budget, Path};
use ocikit_archive::{Compression, EncoderOptions};
use ocikit_image::{
    BlobFile, ComposeOptions, ConvertOptions, DiffId, Error, Image, Layer, LayerOptions, LayerPool, LayerTar, Mapped,
    Member, Memory, Mismatch, NewLayer, Result, Root, Selection, SourceExt, bridge, create_index, map_images,
};
use ocikit_spec::{Descriptor, Digest, Document, MediaType};

use crate::error::Stopped;
use crate::estargz::WithoutOwnFiles;
use crate::files::{FileAccess, find_ztocs, with_files};
use crate::form::{self, Form, LayerContent};
use crate::hashing::Hashing;
use crate::output::{Output, Stored, Written};
use crate::pieces::PieceBudget;
use crate::placement::{self, Mark, Placement};
use crate::rafs::{NydusOptions, NydusReader, from_nydus, to_nydus};
use crate::reason::{Reason, Warning};
use crate::soci::{LayerCompression, LayerIndex, Prefetch, Ztoc};
use crate::{chunked, estargz, plain, soci};

/// The number of layers of an image that are prepared in parallel. [`LayerPool`] limits those that are converted.
const MAX_WAITING_LAYERS: usize = 8;

/// The default distance of checkpoints of SOCI in uncompressed bytes, as that of the reference.
const DEFAULT_SPAN_SIZE: u64 = 4 << 20;

/// The default size in bytes from which layers get a ztoc, as that of the reference.
const DEFAULT_MIN_LAYER_SIZE: u64 = 10 << 20;

/// The level of zstd that the usual tools have as their default.
const DEFAULT_ZSTD_LEVEL: u32 = 3;

/// The level of gzip that the usual tools have as their default.
const DEFAULT_GZIP_LEVEL: u32 = 6;

/// A format of layers to convert to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Format {
    /// Layers that readers download as a whole.
    Plain(PlainOptions),
    /// SOCI: layers stay as they are, and get an index.
    Soci(SociOptions),
    /// zstd:chunked: the same tars, compressed in chunks.
    ZstdChunked(ZstdChunkedOptions),
    /// eStargz: gzip-compressed in chunks, with a table of contents as a further file.
    Estargz(EstargzOptions),
    /// Nydus: blobs of chunks, and a layer with the metadata of all files. [`LazyOptions`] sets its threads and directory.
    Nydus(NydusOptions),
}

impl Format {
    /// Returns the name: `plain`, `soci`, `zstd-chunked`, `estargz` or `nydus`.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Plain(_) => "plain",
            Format::Soci(_) => "soci",
            Format::ZstdChunked(_) => "zstd-chunked",
            Format::Estargz(_) => "estargz",
            Format::Nydus(_) => "nydus",
        }
    }
}

/// How plain layers are compressed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlainOptions {
    /// Compression and level; gzip by default.
    pub encoder: EncoderOptions,
}

impl Default for PlainOptions {
    fn default() -> PlainOptions {
        PlainOptions { encoder: Compression::Gzip.into() }
    }
}

/// The layers that SOCI indexes, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SociOptions {
    /// The distance of checkpoints in uncompressed bytes; 4 MiB by default.
    pub span_size: u64,
    /// The size in bytes from which layers are indexed; 10 MiB by default.
    pub min_layer_size: u64,
    /// Where the index is found.
    pub version: SociVersion,
    /// The files and directories that the snapshotter fetches first. Paths that do not exist are left out.
    pub prefetch: Vec<Path>,
}

/// The version of a SOCI index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SociVersion {
    /// A referrer of the image, whose digest stays.
    V1,
    /// An entry beside the image in an image index; an annotation of the image names it.
    #[default]
    V2,
}

impl Default for SociOptions {
    fn default() -> SociOptions {
        SociOptions {
            span_size: DEFAULT_SPAN_SIZE,
            min_layer_size: DEFAULT_MIN_LAYER_SIZE,
            version: SociVersion::default(),
            prefetch: Vec::new(),
        }
    }
}

/// How zstd:chunked layers are written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ZstdChunkedOptions {
    /// The level of zstd, 1 to 19; 3 if `None`.
    pub level: Option<u32>,
}

/// How eStargz layers are written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EstargzOptions {
    /// The level of gzip, 1 to 9; 6 if `None`.
    pub level: Option<u32>,
    /// The files and directories that the snapshotter fetches first, in this order: they come first in their layers. Paths that
    /// do not exist are left out. A layer that has such a file is copied to a temporary file, and its tar is another one.
    pub prefetch: Vec<Path>,
}

/// The images to convert, and the resources for it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LazyOptions {
    /// The images.
    pub selection: Selection,
    /// The maximum number of threads that compress a layer; the number of processors if `None`. The result does not
    /// depend on it.
    pub threads: Option<NonZeroUsize>,
    /// The directory of temporary files; the current one if `None`.
    pub directory: Option<PathBuf>,
    /// Where the converted images are.
    pub placement: Placement,
}

/// The result of [`convert`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Converted {
    /// The converted root.
    pub mapped: Mapped,
    /// SOCI indexes of version 1, and the images of [`Placement::Referrer`]: their subjects are the images.
    pub referrers: Vec<Root>,
    /// What was left as it is.
    pub warnings: Vec<Warning>,
    /// Whether the layers or the place of an image changed, and not its documents only.
    is_changed: bool,
}

impl Converted {
    /// Returns whether anything was converted, or had the format already: if not, the warnings say why.
    ///
    /// An image of several layers counts as converted if one of them could be.
    pub fn is_converted(&self) -> bool {
        !self.referrers.is_empty() || self.is_changed || self.warnings.iter().all(|warning| !warning.is_kept())
    }
}

impl From<Converted> for Mapped {
    fn from(converted: Converted) -> Mapped {
        converted.mapped
    }
}

impl LazyOptions {
    fn directory(&self) -> PathBuf {
        self.directory.clone().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| ".".into())
    }

    fn threads(&self) -> NonZeroUsize {
        let mut options = EncoderOptions::default();
        options.threads = self.threads;
        options.thread_count()
    }
}

/// Converts the layers of the selected images. Images of Docker's format become OCI images, because these formats need
/// annotations. A layer that has the format is kept; an image whose layers all have it is the same image.
///
/// A layer that the format cannot express, or that its readers could not open, is kept with a [`Warning`].
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let tar = testing::Tar::new().file("etc/motd", b"hello").finish();
/// # let descriptor = testing::image_of(&memory, &"linux/amd64".parse()?, testing::Compression::Gzip, &[tar]);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_lazy::{EstargzOptions, Format, LazyOptions, convert};
///
/// let converted = convert(&root, &Format::Estargz(EstargzOptions::default()), &LazyOptions::default()).await?;
/// assert_eq!(converted.mapped.replaced.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`] and [`Layer::decode_within`]; [`Error::Mismatch`] if a layer is not the one that the config lists;
/// [`Error::Failed`] if a temporary file cannot be written; [`Error::Unsupported`] for a level that does not exist.
pub async fn convert(root: &Root, format: &Format, options: &LazyOptions) -> Result<Converted> {
    let pieces = PieceBudget::new(options.threads());
    let job =
        Job { format, options, budget: Budget::new(), pieces, pool: LayerPool::new(), warnings: Mutex::default() };
    job.check()?;
    let oci = ocikit_image::convert(root, &ConvertOptions::default()).await?.mapped;
    let (mapped, referrers) = match options.placement {
        Placement::Replace => job.replace(&oci.root).await?,
        Placement::Index => job.beside(&oci.root).await?,
        Placement::Referrer => job.referrers(&oci.root).await?,
    };
    let is_changed = mapped.root.digest() != oci.root.digest();
    let mut warnings = job.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    warnings.sort_by_key(|warning| (warning.digest(), warning.to_string()));
    warnings.dedup();
    Ok(Converted { mapped: joined(oci, mapped), referrers, warnings, is_changed })
}

/// The converted images of a root, with the descriptors of the ones that they come from.
struct Collected {
    mapped: Mapped,
    made: Vec<(Descriptor, Image)>,
}

/// Returns a result with another root.
fn replaced_root(mut mapped: Mapped, before: &Root, root: Root) -> Mapped {
    mapped.replaced.remove(&before.digest());
    if root.digest() != before.digest() {
        mapped.replaced.insert(before.digest(), root.digest());
    }
    mapped.root = root;
    mapped
}

/// Returns the result of two changes, one after the other.
fn joined(first: Mapped, mut second: Mapped) -> Mapped {
    for (before, between) in first.replaced {
        let after = second.replaced.remove(&between).unwrap_or(between);
        second.replaced.insert(before, after);
    }
    second
}

/// The conversion of one root.
struct Job<'a> {
    format: &'a Format,
    options: &'a LazyOptions,
    budget: Budget,
    pieces: PieceBudget,
    pool: LayerPool<Digest, Option<NewLayer>>,
    warnings: Mutex<Vec<Warning>>,
}

impl Job<'_> {
    fn check(&self) -> Result<()> {
        let (compression, level) = match self.format {
            Format::Plain(_) | Format::Nydus(_) => return Ok(()),
            Format::Soci(options) => {
                let is_valid = (1..=1 << 30).contains(&options.span_size);
                let what = || format!("spans of {} bytes; use 1 to {}", options.span_size, 1 << 30);
                return if is_valid { Ok(()) } else { Err(unsupported(what())) };
            }
            Format::ZstdChunked(options) => (Compression::Zstd, options.level),
            Format::Estargz(options) => (Compression::Gzip, options.level),
        };
        match (EncoderOptions::levels(compression), level) {
            (Some(levels), Some(level)) if !levels.contains(&level) => {
                Err(unsupported(format!("level {level} does not exist; use {} to {}", levels.start(), levels.end())))
            }
            _ => Ok(()),
        }
    }

    fn warn(&self, layer: Digest, reason: Reason) {
        self.note(Warning::Layer { layer, reason });
    }

    fn note(&self, warning: Warning) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    /// Converts images in their places.
    async fn replace(&self, root: &Root) -> Result<(Mapped, Vec<Root>)> {
        let selection = &self.options.selection.keeping_files();
        match self.format {
            Format::Soci(options) => self.soci(root, options, options.version).await,
            Format::Nydus(_) => self.replace_plain(root, Some(Mark::Nydus)).await,
            Format::ZstdChunked(_) => self.replace_plain(root, Some(Mark::Zstd)).await,
            Format::Estargz(_) => self.replace_plain(root, None).await,
            Format::Plain(_) => {
                let plain = match root {
                    Root::Index(index) => Root::Index(placement::detach(index, Mark::Nydus, |_| true)?),
                    Root::Image(_) | Root::Other(_) => root.clone(),
                };
                let mut mapped = map_images(&plain, selection, |image| self.change(image)).await?;
                if let Root::Index(index) = &mapped.root {
                    let is_new = |entry: &Descriptor| mapped.replaced.values().any(|new| *new == entry.digest);
                    let detached = soci::detach(&placement::detach(index, Mark::Zstd, is_new)?)?;
                    mapped.replaced.remove(&plain.digest());
                    mapped = replaced_root(mapped, root, placement::alone(root, detached).await?);
                }
                // It was asked for.
                mapped.dropped_soci.clear();
                Ok((mapped, Vec::new()))
            }
        }
    }

    /// Converts the images that are no entries of a lazy format beside others. An entry of the same format is removed if the
    /// image for its platform was converted.
    async fn replace_plain(&self, root: &Root, mark: Option<Mark>) -> Result<(Mapped, Vec<Root>)> {
        let change = async |image: Image| match placement::is_beside(root, &image) {
            true => Ok(image),
            false => self.change(image).await,
        };
        let mut mapped = map_images(root, &self.options.selection.keeping_files(), change).await?;
        if let (Root::Index(index), Some(mark)) = (&mapped.root, mark) {
            let is_new = |entry: &Descriptor| mapped.replaced.values().any(|new| *new == entry.digest);
            let detached = placement::detach_replaced(index, mark, is_new)?;
            mapped = replaced_root(mapped, root, Root::Index(detached));
        }
        Ok((mapped, Vec::new()))
    }

    /// Adds converted images to the index of a root, or to a new one.
    async fn beside(&self, root: &Root) -> Result<(Mapped, Vec<Root>)> {
        let mark = match self.format {
            Format::Soci(options) => return self.soci(root, options, SociVersion::V2).await,
            Format::Nydus(_) => Mark::Nydus,
            Format::ZstdChunked(_) => Mark::Zstd,
            Format::Estargz(_) => {
                return Err(unplaced(root, "eStargz", "beside plain ones: clients could not tell them apart"));
            }
            Format::Plain(_) => return Err(unplaced(root, "plain layers", "beside others")),
        };
        let done = |image: &Image| placement::is_beside(root, image) || placement::is_listed(root, mark, image);
        let converted = self.collect(root, done).await?;
        let made: HashMap<_, _> = converted.made.into_iter().map(|(plain, made)| (plain.digest, made)).collect();
        if made.is_empty() {
            return Ok((converted.mapped, Vec::new()));
        }
        let index = match root {
            Root::Index(index) => index.clone(),
            image => create_index(&[Member::new(image.clone())], &ComposeOptions::default()).await?.index,
        };
        let new = Root::Index(placement::add(&index, mark, &made).await?);
        Ok((replaced_root(converted.mapped, root, new), Vec::new()))
    }

    /// Returns converted images as referrers of a root.
    async fn referrers(&self, root: &Root) -> Result<(Mapped, Vec<Root>)> {
        match self.format {
            Format::Soci(options) => return self.soci(root, options, SociVersion::V1).await,
            Format::Nydus(_) => {}
            Format::ZstdChunked(_) => {
                return Err(unplaced(root, "zstd:chunked", "as referrers: no client looks for them"));
            }
            Format::Estargz(_) => return Err(unplaced(root, "eStargz", "as referrers: no client looks for them")),
            Format::Plain(_) => return Err(unplaced(root, "plain layers", "as referrers: no client looks for them")),
        }
        let converted = self.collect(root, |image| placement::is_beside(root, image)).await?;
        let mut referrers = Vec::new();
        for (plain, made) in converted.made {
            let subject = Descriptor::new(plain.media_type.clone(), plain.digest, plain.size);
            referrers.push(Root::Image(made.edit().set_subject(&subject).finish().await?));
        }
        Ok((converted.mapped, referrers))
    }

    /// Converts the images of a root that are not `done` and leaves the root as it is.
    async fn collect(&self, root: &Root, done: impl Fn(&Image) -> bool + Sync) -> Result<Collected> {
        let made = Mutex::new(Vec::new());
        let change = async |image: Image| {
            if !done(&image) {
                let changed = self.change(image.clone()).await?;
                if changed.digest() != image.digest() {
                    made.lock().unwrap_or_else(PoisonError::into_inner).push((image.descriptor().clone(), changed));
                }
            }
            Ok(image)
        };
        let mapped = map_images(root, &self.options.selection, change).await?;
        let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Images are changed in parallel.
        made.sort_by_key(|(plain, _)| plain.digest);
        Ok(Collected { mapped, made })
    }

    /// Converts an image to a format other than SOCI.
    async fn change(&self, image: Image) -> Result<Image> {
        match self.format {
            Format::Nydus(options) => self.nydus(&image, options).await,
            _ => self.image(image).await,
        }
    }

    async fn nydus(&self, image: &Image, options: &NydusOptions) -> Result<Image> {
        let mut options = options.clone();
        options.threads = Some(self.options.threads());
        options.directory = Some(self.options.directory());
        // Without the files that only eStargz has.
        let source = with_files(image.clone(), FileAccess::Contents, &self.options.directory()).await?;
        let converted = to_nydus(&source, &options).await?;
        for lost in converted.lost_xattrs {
            self.note(Warning::LostXattr { image: image.digest(), lost });
        }
        Ok(converted.image)
    }

    async fn is_nydus(&self, image: &Image) -> Result<bool> {
        Ok(NydusReader::detect(image, self.options.directory()).await?.is_some())
    }

    /// Refuses an image whose layers are no tars.
    async fn check_plain(&self, image: &Image) -> Result<()> {
        match self.is_nydus(image).await? {
            true => Err(Error::Unsupported {
                place: format!("image {} in {}", image.digest(), image.source()),
                what: "it has the format of Nydus, which is converted to plain layers only".to_owned(),
            }),
            false => Ok(()),
        }
    }

    async fn image(&self, image: Image) -> Result<Image> {
        if let Format::Plain(PlainOptions { encoder }) = self.format
            && self.is_nydus(&image).await?
        {
            let layer = LayerOptions::from(*encoder).directory(Some(self.options.directory()));
            return from_nydus(&image, &layer).await;
        }
        self.check_plain(&image).await?;
        let config = image.config().await?;
        let diff_ids = &config.rootfs().diff_ids;
        let layers: Vec<_> = image.layers().enumerate().collect();
        let converted = stream::iter(layers).map(|(position, layer)| {
            let listed = diff_ids.get(position).copied();
            async move { self.layer(layer, listed).await }
        });
        let converted: Vec<_> = converted.buffered(MAX_WAITING_LAYERS).boxed().try_collect().await?;
        let mut edit = image.edit();
        for (position, new) in converted.into_iter().enumerate() {
            if let Some(new) = new {
                edit.replace_layer(position, new);
            }
        }
        if let Format::Plain(_) = self.format {
            edit.remove_annotation(soci::INDEX_DIGEST);
        }
        edit.finish().await
    }

    /// Returns the converted layer; `None` if it is kept.
    async fn layer(&self, layer: Layer, listed: Option<Digest>) -> Result<Option<NewLayer>> {
        let descriptor = layer.descriptor().clone();
        if descriptor.media_type.is_foreign_layer() {
            self.warn(descriptor.digest, Reason::Foreign);
            return Ok(None);
        }
        let form = match form::content(&layer).await? {
            // A table that is too large to be read may be the right one.
            LayerContent::Invalid(crate::Error::TooLarge { .. }) => form::stated(&descriptor),
            content => content.form(),
        };
        let is_done = match self.format {
            // A layer that is not what its annotations say loses them.
            Format::Plain(_) => form == Form::Plain && !form::has_annotations(&descriptor),
            Format::ZstdChunked(_) => form == Form::ZstdChunked,
            Format::Estargz(_) => form == Form::Estargz,
            Format::Soci(_) | Format::Nydus(_) => true,
        };
        if is_done {
            return Ok(None);
        }
        let made = self.pool.once(descriptor.digest, self.write(&layer, form, listed)).await?;
        // The same layer can be listed with other annotations.
        Ok(made.map(|new| with_annotations_of(new, &descriptor)))
    }

    async fn write(&self, layer: &Layer, form: Form, listed: Option<Digest>) -> Result<Option<NewLayer>> {
        let (directory, pieces, budget) = (self.options.directory(), self.pieces.clone(), self.budget.clone());
        let format = self.format.clone();
        let write = move |tar: &mut LayerTar<'_>| write_layer(tar, &format, form, &budget, &pieces, &directory);
        let work = move |tar: &mut LayerTar<'_>| match write(tar) {
            Err(Stopped::Reading(error)) => Err(error),
            written => Ok(written),
        };
        let (written, diff_id) = layer.decode_within(&self.budget, DiffId::Compute, work).await?;
        if let (Some(listed), Some(found)) = (listed, diff_id)
            && listed != found
        {
            let place = format!("layer {} of {}", layer.digest(), layer.source());
            return Err(Error::mismatch(&listed, place, Mismatch::Digest(found)));
        }
        match written {
            Ok(written) => Ok(Some(written.into_layer(diff_id)?)),
            Err(Stopped::Plain(reason)) => {
                self.warn(layer.digest(), reason);
                Ok(None)
            }
            Err(Stopped::Writing(error)) => Err(self.failed(error)),
            Err(Stopped::Reading(error)) => Err(Error::broken(format!("layer {}", layer.digest()), error)),
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::failed("write a layer to a temporary file in", self.options.directory().display(), error)
    }

    async fn soci(&self, root: &Root, options: &SociOptions, version: SociVersion) -> Result<(Mapped, Vec<Root>)> {
        let attached = Mutex::new(Vec::new());
        let ztocs = LayerPool::new();
        let change = async |image: Image| {
            if placement::is_beside(root, &image) {
                return Ok(image);
            }
            let is_attached = version == SociVersion::V2 && soci::is_attached(root, &image);
            // An entry that is no index of ztocs does not count.
            if is_attached && !find_ztocs(&image).await?.is_empty() {
                return Ok(image);
            }
            self.check_plain(&image).await?;
            let layers = self.ztocs(&image, options, &ztocs).await?;
            if layers.is_empty() {
                self.note(Warning::NoLayers { image: image.digest(), min_layer_size: options.min_layer_size });
                return Ok(image);
            }
            let subject = (version == SociVersion::V1).then(|| image.descriptor());
            let lists = prefetch_lists(&layers, options).await?;
            let index = soci::manifest(&layers, &lists, options.span_size, subject).await?;
            let digest = index.digest().to_string();
            let changed = match version {
                SociVersion::V1 => image.clone(),
                SociVersion::V2 => image.edit().annotate(soci::INDEX_DIGEST, &digest).finish().await?,
            };
            let mut attached = attached.lock().unwrap_or_else(PoisonError::into_inner);
            attached.push((image.digest(), changed.descriptor().clone(), index));
            Ok(changed)
        };
        let mapped = map_images(root, &self.options.selection, change).await?;
        let mut attached = attached.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Images are changed in parallel; the entries follow the order of their images.
        let order = |digest: &Digest| match &mapped.root {
            Root::Index(index) => index.manifests().iter().position(|entry| entry.digest == *digest),
            Root::Image(_) | Root::Other(_) => None,
        };
        attached.sort_by_key(|(before, image, _)| (order(&image.digest), *before));
        if version == SociVersion::V1 {
            return Ok((mapped, attached.into_iter().map(|(_, _, index)| index).collect()));
        }
        if attached.is_empty() {
            return Ok((mapped, Vec::new()));
        }
        let mut index = match mapped.root.clone() {
            Root::Index(index) => index,
            image => create_index(&[Member::new(image)], &ComposeOptions::default()).await?.index,
        };
        for (before, image, soci) in &attached {
            index = soci::attach(&index, image, before, soci).await?;
        }
        // The index knows the places of its images only; a registry would take ztocs for blobs that it has.
        let parts = attached.iter().flat_map(|(_, _, soci)| {
            let children: Vec<_> = soci.document().iter().flat_map(digests).collect();
            children.into_iter().chain([soci.digest()]).map(|digest| (digest, soci.source().clone()))
        });
        let memory = Memory::over(index.source().clone()).with_parts(parts.collect::<Vec<_>>());
        let new = Root::at(Arc::new(memory), index.descriptor().clone()).await?;
        Ok((replaced_root(mapped, root, new), Vec::new()))
    }

    async fn ztocs(
        &self,
        image: &Image,
        options: &SociOptions,
        pool: &LayerPool<Digest, Option<BlobFile>>,
    ) -> Result<Vec<LayerIndex>> {
        let layers: Vec<_> = image.layers().collect();
        let found = stream::iter(layers).map(|layer| async move {
            let descriptor = layer.descriptor().clone();
            if descriptor.size < options.min_layer_size {
                return Ok(None);
            }
            if descriptor.media_type.is_foreign_layer() {
                self.warn(descriptor.digest, Reason::Foreign);
                return Ok(None);
            }
            let ztoc = pool.once(descriptor.digest, self.ztoc(&layer, options)).await?;
            Ok::<_, Error>(ztoc.map(|ztoc| LayerIndex { ztoc, layer: descriptor }))
        });
        let found: Vec<_> = found.buffered(MAX_WAITING_LAYERS).boxed().try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn ztoc(&self, layer: &Layer, options: &SociOptions) -> Result<Option<BlobFile>> {
        let (digest, size) = (layer.digest(), layer.descriptor().size);
        let compression = match layer.compression().await? {
            Compression::Gzip => LayerCompression::Gzip,
            Compression::None => LayerCompression::Uncompressed,
            Compression::Zstd | Compression::Xz | Compression::Bzip2 => {
                self.warn(digest, Reason::Compression);
                return Ok(None);
            }
        };
        let (budget, directory, span_size) = (self.budget.clone(), self.options.directory(), options.span_size);
        budget.layer(size);
        let place = format!("layer {digest} in {}", layer.source());
        let work = move |chunks: &mut bridge::Chunks| {
            let built = chunks.with_reader(|reader| soci::build(reader, compression, size, span_size, &budget))?;
            let built = built.and_then(|ztoc| {
                let mut output = Output::create(&directory)?;
                std::io::Write::write_all(&mut output, &ztoc)?;
                Ok(output.finish()?)
            });
            match built {
                Err(Stopped::Reading(error)) => Err(match error.limit() {
                    Some(limit) => Error::Unsupported { place, what: limit.to_string() },
                    None => Error::broken(place, error),
                }),
                built => Ok(built),
            }
        };
        match bridge::consume(layer.open().await?, work).await? {
            Ok(stored) => Ok(Some(blob("ztoc", stored, MediaType::OCTET_STREAM))),
            Err(Stopped::Plain(reason)) => {
                self.warn(digest, reason);
                Ok(None)
            }
            Err(Stopped::Writing(error)) => Err(self.failed(error)),
            Err(Stopped::Reading(error)) => Err(Error::broken(format!("layer {digest}"), error)),
        }
    }
}

/// Returns the lists of what is fetched first, by layer, from the lowest one.
async fn prefetch_lists(layers: &[LayerIndex], options: &SociOptions) -> Result<Vec<(Digest, String)>> {
    let mut prefetch = Prefetch::of(&options.prefetch);
    let mut lists = Vec::new();
    for indexed in layers.iter().rev().filter(|_| !options.prefetch.is_empty()) {
        let bytes = indexed.ztoc.open(indexed.ztoc.descriptor()).await?.bytes().await?;
        let ztoc = Ztoc::parse(&bytes).map_err(|error| unsupported(error.to_string()))?;
        lists.extend(prefetch.list(&ztoc).map(|list| (indexed.layer.digest, list)));
    }
    lists.reverse();
    Ok(lists)
}

/// Returns the digests of config and layers.
fn digests(document: &Document) -> Vec<Digest> {
    document.children().map(|child| child.digest).collect()
}

/// Refuses a place in which no client would find the images of a format.
fn unplaced(root: &Root, format: &str, place: &str) -> Error {
    let what = format!("images with {format} cannot be {place}");
    Error::Unsupported { place: format!("image {} in {}", root.digest(), root.source()), what }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { place: "a new layer".to_owned(), what }
}

fn write_layer(
    tar: &mut impl Read,
    format: &Format,
    form: Form,
    budget: &Budget,
    pieces: &PieceBudget,
    directory: &std::path::Path,
) -> Result<Written, Stopped> {
    match format {
        Format::ZstdChunked(options) => {
            let level = options.level.unwrap_or(DEFAULT_ZSTD_LEVEL).cast_signed();
            match form {
                Form::Estargz => {
                    let mut tar = Hashing::new(WithoutOwnFiles::within(&Budget::new(), tar));
                    let written = chunked::write(&mut tar, budget, level, pieces, directory)?;
                    Ok(Written { diff_id: Some(tar.digest()), ..written })
                }
                Form::Plain | Form::ZstdChunked => chunked::write(tar, budget, level, pieces, directory),
            }
        }
        Format::Estargz(options) => {
            let level = options.level.unwrap_or(DEFAULT_GZIP_LEVEL);
            match &options.prefetch[..] {
                [] => estargz::write(tar, budget, level, pieces, directory, false),
                prefetch => {
                    let mut ordered = estargz::ordered(tar, prefetch, directory)?;
                    estargz::write(&mut ordered.tar, budget, level, pieces, directory, ordered.has_landmark)
                }
            }
        }
        Format::Plain(PlainOptions { encoder }) => {
            let mut encoder = *encoder;
            encoder.threads = Some(pieces.threads());
            plain::write(tar, budget, &encoder, form == Form::Estargz, directory)
        }
        // Layers stay as they are.
        Format::Soci(_) | Format::Nydus(_) => Err(Reason::Compression.into()),
    }
}

impl Written {
    fn into_layer(self, source: Option<Digest>) -> Result<NewLayer> {
        let Written { stored, media_type, annotations, diff_id } = self;
        let Some(diff_id) = diff_id.or(source) else {
            return Err(unsupported("the digest of the tar is unknown".to_owned()));
        };
        let file = blob("layer", stored, media_type);
        let mut descriptor = file.descriptor().clone();
        for (key, value) in annotations {
            descriptor.annotations.insert(key, value);
        }
        Ok(NewLayer::new(Layer::at(Arc::new(file), descriptor), diff_id))
    }
}

fn blob(what: &str, stored: Stored, media_type: MediaType) -> BlobFile {
    let descriptor = Descriptor::new(media_type, stored.digest, stored.size);
    BlobFile::known(format!("{what} {}", stored.digest), stored.file, descriptor)
}

/// Returns a layer with the annotations of the one that it replaces, except those of a format.
fn with_annotations_of(new: NewLayer, old: &Descriptor) -> NewLayer {
    let mut descriptor = new.descriptor().clone();
    for (key, value) in old.annotations.iter() {
        if !form::is_annotation(key) {
            descriptor.annotations.insert(key, value);
        }
    }
    let diff_id = new.diff_id();
    NewLayer::new(Layer::at(new.layer().source().clone(), descriptor), diff_id)
}
