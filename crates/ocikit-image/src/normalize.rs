use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::{Budget, Metadata, ModifiedTime, Owner, Time, Writer, sort};
use ocikit_archive::{Compression, EncoderOptions};
use ocikit_spec::{Config, Digest, History};

use crate::bound::check_plain;
use crate::error::{Error, Need, Result};
use crate::formats::{ImageFormats, without_own_entries};
use crate::layer::{DiffId, LayerTar};
use crate::layer_pool::LayerPool;
use crate::map_images::{Mapped, Selection, map_images};
use crate::new_layer::{LayerOptions, NewLayer, Place};
use crate::recompress::{MAX_WAITING_LAYERS, check_compression};
use crate::rewrite::Failed;
use crate::root::{Image, Layer, Root};
use crate::walk::limits::Limits;
use crate::walk::{Edge, Found, Walk};

/// The images to normalize, and what of them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NormalizeOptions {
    /// The images.
    pub selection: Selection,
    /// The latest time of files, history and creation, which is meant by `SOURCE_DATE_EPOCH`; that of the creation of each
    /// image if `None`.
    pub epoch: Option<Time>,
    /// Whether earlier times are kept.
    pub earlier: EarlierTimes,
    /// The owner of all files.
    pub owner: Option<Owner>,
    /// The layers that are kept as they are, such as those of the base image, so that the images share them in registries.
    /// Their files keep their times and owners.
    pub kept_layers: HashSet<Digest>,
    /// The compression of the layers; that of each layer if `None`.
    pub compression: Option<EncoderOptions>,
    /// Formats whose own entries in layers are left out of the new ones.
    pub formats: Option<Arc<dyn ImageFormats>>,
    /// The directory of temporary files; the current one if `None`.
    pub directory: Option<std::path::PathBuf>,
}

ocikit_spec::setters! {
    NormalizeOptions {
        selection: Selection,
        epoch: Option<Time>,
        earlier: EarlierTimes,
        owner: Option<Owner>,
        kept_layers: HashSet<Digest>,
        compression: Option<EncoderOptions>,
        formats: Option<Arc<dyn ImageFormats>>,
        directory: Option<std::path::PathBuf>,
    }
}

/// What happens to times before the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EarlierTimes {
    /// They are kept, as BuildKit does it.
    #[default]
    Keep,
    /// They are set to the epoch too.
    Replace,
}

/// Makes images reproducible whose builds are not: later times of files, of the history and of the creation become the
/// epoch; entries of layers are ordered by path, without duplicates and names of owners; layers are compressed in the
/// same way everywhere. Two builds of the same files give the same digest.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use ocikit_image::{Memory, Root, testing};
/// # let memory = Arc::new(Memory::new());
/// # let empty = vec![0; 1024];
/// # let descriptor = testing::image_of(&memory, &"linux/amd64".parse()?, ocikit_archive::Compression::Gzip, &[empty]);
/// # let root = Root::at(memory, descriptor).await?;
/// use ocikit_image::files::Time;
/// use ocikit_image::{NormalizeOptions, normalize};
///
/// let mut options = NormalizeOptions::default();
/// options.epoch = Some(Time { seconds: 1_700_000_000, nanoseconds: 0 });
/// let once = normalize(&root, &options).await?.root;
/// assert_eq!(normalize(&once, &options).await?.root.digest(), once.digest());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`map_images`] and [`Layer::decode_within`]. [`Error::Unmet`] without an epoch if an image has no creation
/// time; [`Error::Failed`] if a temporary file cannot be written.
pub async fn normalize(root: &Root, options: &NormalizeOptions) -> Result<Mapped> {
    let (pool, budget) = (LayerPool::new(), Budget::new());
    map_images(root, &options.selection, |image| normalize_image(image, options, &pool, &budget)).await
}

/// Returns the layers of an image, or of all images of an index; see [`NormalizeOptions::kept_layers`].
///
/// # Errors
///
/// Those of reading the manifests.
pub async fn layer_digests(root: &Root) -> Result<HashSet<Digest>> {
    let source = root.source();
    let mut walk = Walk::reading(&**source, Limits::IMAGE, |entry| Root::at(source.clone(), entry));
    walk.start_with(root.descriptor(), Ok(root.clone()))?;
    let mut layers = HashSet::new();
    while let Some(node) = walk.next().await {
        let Found::Content(opened) = node.found else { continue };
        match opened? {
            Root::Index(index) => {
                for (position, entry) in
                    index.manifests().iter().enumerate().filter(|(_, entry)| !entry.is_attestation())
                {
                    walk.add(&node.path, Edge::Manifest(position), entry)?;
                }
            }
            Root::Image(image) => layers.extend(image.layers().map(|layer| layer.digest())),
            Root::Other(_) => {}
        }
    }
    Ok(layers)
}

/// The changed layers, by the old digest and the epoch.
type Pool = LayerPool<(Digest, Time)>;

async fn normalize_image(image: Image, options: &NormalizeOptions, pool: &Pool, budget: &Budget) -> Result<Image> {
    check_plain(&image).await?;
    if let Some(encoder) = &options.compression {
        check_compression(&image, encoder.compression)?;
    }
    let config = image.config().await?;
    let epoch = match options.epoch {
        Some(epoch) => epoch,
        None => config.created().and_then(Time::parse).ok_or_else(|| {
            let what = format!("{} has no creation time, and no other time was given", image.digest());
            Error::unmet(image.source(), what, Need::Time)
        })?,
    };
    let time = match options.earlier {
        EarlierTimes::Keep => ModifiedTime::AtMost(epoch),
        EarlierTimes::Replace => ModifiedTime::Fixed(epoch),
    };
    let is_kept = |layer: &Layer| is_foreign(layer) || options.kept_layers.contains(&layer.digest());
    let layers = without_own_entries(&image, options.formats.as_ref()).await?.file_layers();
    let layers: Vec<_> = layers.into_iter().enumerate().filter(|(_, layer)| !is_kept(layer)).collect();
    let changed = stream::iter(layers).map(async |(position, layer)| {
        let normalized = normalized(&layer, time, options, budget);
        Ok::<_, Error>((position, pool.once((layer.digest(), epoch), normalized).await?))
    });
    let changed: Vec<_> = changed.buffered(MAX_WAITING_LAYERS).boxed().try_collect().await?;
    let mut edit = image.edit();
    for (position, new) in changed {
        edit.replace_layer(position, new);
    }
    let steps = normalized_history(&config, time);
    let created = config.created().map(|created| clamped(created, time));
    edit.config(move |config| {
        for (position, step) in &steps {
            config.replace_history(*position, step);
        }
        match &created {
            Some(created) => config.created(created),
            None => config,
        }
    });
    edit.finish().await
}

fn is_foreign(layer: &Layer) -> bool {
    layer.descriptor().media_type.is_foreign_layer()
}

/// Returns the steps whose time changes.
fn normalized_history(config: &Config, time: ModifiedTime) -> Vec<(usize, History)> {
    let steps = config.history().iter().enumerate();
    let changed = steps.filter_map(|(position, step)| {
        let old = step.created.as_deref()?;
        let created = clamped(old, time);
        (created != old).then(|| (position, History { created: Some(created), ..step.clone() }))
    });
    changed.collect()
}

/// Returns the new form of a time; the old text if it does not change, or is no time.
fn clamped(text: &str, rule: ModifiedTime) -> String {
    match Time::parse(text) {
        Some(found) if rule.of(found) != found => rule.of(found).to_string(),
        _ => text.to_owned(),
    }
}

async fn normalized(
    layer: &Layer,
    time: ModifiedTime,
    options: &NormalizeOptions,
    budget: &Budget,
) -> Result<NewLayer> {
    let (options, within) = (options.clone(), budget.clone());
    let write = move |tar: &mut LayerTar<'_>| {
        let encoder = options.compression.unwrap_or_else(|| match tar.compression() {
            Compression::Xz | Compression::Bzip2 => Compression::Gzip.into(),
            same => same.into(),
        });
        let place = Place::of(&LayerOptions { encoder, directory: options.directory.clone() });
        let mut temporary = place.file()?;
        let mut writer = Writer::new(&encoder, place.file()?).map_err(|error| place.failed(error))?;
        let change = |metadata: &mut Metadata| {
            metadata.modified = time.of(metadata.modified);
            if let Some(Owner::Fixed { uid, gid }) = options.owner {
                (metadata.uid, metadata.gid) = (uid, gid);
            }
        };
        sort(&mut *tar, &mut temporary, &within, &mut writer, change)
            .map_err(|error| Failed::of(error, tar, &place))?;
        let (file, written): (File, _) = writer.finish().map_err(|error| place.failed(error))?;
        Ok(NewLayer::of_written(file, &written)?)
    };
    layer.decode_within(budget, DiffId::Skip, move |tar| write(tar).map(Ok).or_else(Failed::split)).await?.0
}
