//! Converts an image: a blob for each layer, and the bootstrap layer with the files of all.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path as DirectoryPath, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::BlobWriter;
use ocikit_archive::{Compression, EncoderOptions};
use ocikit_image::bridge::blocking;
use ocikit_image::files::{Budget, FileTree, Path, Tree};
use ocikit_image::{BlobFile, ConvertOptions, Error, Format, Image, Layer, NewLayer, Result, Root};
use ocikit_spec::{Annotations, Descriptor, History, MediaType};

use crate::lost_xattr::LostXattr;
use crate::rafs::blob::DEFAULT_DIGESTER;
use crate::rafs::bootstrap::{BLOB_IDS_ANNOTATION, BOOTSTRAP_ANNOTATION, Bootstrap, VERSION_ANNOTATION, write_layer};
use crate::rafs::contents::NydusReader;
use crate::rafs::data::{Chunking, OtherBlobs};
use crate::rafs::dictionary::Dictionary;
use crate::rafs::layer::{ConvertedLayer, LayerJob, unsupported, unwritten};
use crate::rafs::options::{ChunkSize, Compressor, Deduplicate, RafsVersion};
use crate::rafs::table::{Candidate, Contents, Settings, Table};
use crate::rafs::tree::{Item, Names, lost_xattrs};

/// The number of layers that are converted in parallel. Each uses all processors for compression.
const MAX_PARALLEL_LAYERS: usize = 2;

/// The maximum number of attributes that are listed as lost.
const MAX_LOST_XATTRS: usize = 100;

/// How an image is converted to Nydus.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NydusOptions {
    /// The version of RAFS.
    pub version: RafsVersion,
    /// The compression of chunks.
    pub compressor: Compressor,
    /// The maximum size of a chunk.
    pub chunk_size: ChunkSize,
    /// Where equal chunks are found.
    pub deduplicate: Deduplicate,
    /// Chunks of another image, which are not stored again.
    pub dictionary: Option<Dictionary>,
    /// The files and directories that a mount reads ahead, in this order. A directory means everything below it; paths
    /// that do not exist are left out. The whole image if empty.
    pub prefetch: Vec<Path>,
    /// The maximum number of threads that compress a layer; the number of processors if `None`. The bytes do not depend
    /// on it.
    pub threads: Option<NonZeroUsize>,
    /// The directory of temporary files; the current one if `None`.
    pub directory: Option<PathBuf>,
}

/// An image in the format of Nydus.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NydusImage {
    /// The image; the given one if it was converted before.
    pub image: Image,
    /// The extended attributes that the format cannot hold; at most 100 are listed.
    pub lost_xattrs: Vec<LostXattr>,
}

/// Converts an image to the format of Nydus: each layer becomes a blob of compressed chunks, and one more layer, the
/// bootstrap, has the metadata of all files. Blobs that no visible file uses are left out. An image that was converted
/// before is returned as it is.
///
/// Layers are read once each, two in parallel. The bytes depend only on the image and the options. Memory is that of the
/// [`FileTree`] twice, about 80 bytes for each chunk, and 40 MiB.
///
/// # Errors
///
/// As [`Layer::decode_within`]; [`Error::Unsupported`] for what the format cannot hold, such as more than 254 blobs;
/// [`Error::Failed`] if a temporary file cannot be written.
pub async fn to_nydus(image: &Image, options: &NydusOptions) -> Result<NydusImage> {
    let directory = options.directory.clone().filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| DirectoryPath::new(".").to_owned());
    if NydusReader::detect(image, &directory).await?.is_some() {
        return Ok(NydusImage { image: image.clone(), lost_xattrs: Vec::new() });
    }
    // The given layers, which may have a way to read their files.
    let layers = image.file_layers();
    let image = oci(image).await?;
    if let Some(foreign) = image.manifest().layers().iter().find(|layer| layer.media_type.is_foreign_layer()) {
        let what = format!("layer {} must not be distributed in another form", foreign.digest);
        return Err(Error::Unsupported { place: image.source().to_string(), what });
    }
    let mut conversion = Conversion::of(options, layers.len(), directory)?;
    let files = match options.deduplicate {
        Deduplicate::Layer => conversion.parallel(&image, &layers).await?,
        Deduplicate::Image => conversion.one_by_one(&image, &layers).await?,
    };
    let (prefetch, dictionary) = (options.prefetch.clone(), options.dictionary.clone());
    let merged = blocking(move || Merged::write(&files, &conversion, dictionary.as_ref(), &prefetch)).await?;
    let image = replace_layers(&image, &merged).await?;
    Ok(NydusImage { image, lost_xattrs: merged.lost_xattrs })
}

/// Returns the image with OCI's media types, which Nydus images always have.
async fn oci(image: &Image) -> Result<Image> {
    let mut options = ConvertOptions::default();
    options.to = Format::Oci;
    match ocikit_image::convert(&Root::Image(image.clone()), &options).await?.mapped.root {
        Root::Image(image) => Ok(image),
        Root::Index(_) | Root::Other(_) => Ok(image.clone()),
    }
}

/// The conversion of an image.
struct Conversion {
    chunking: Chunking,
    settings: Settings,
    directory: PathBuf,
    budget: Budget,
    /// The blobs that a layer may use: those of the dictionary, which come after those of the layers, and lower layers.
    others: Arc<OtherBlobs>,
    converted: Vec<ConvertedLayer>,
}

impl Conversion {
    fn of(options: &NydusOptions, layers: usize, directory: PathBuf) -> Result<Conversion> {
        let digester = options.dictionary.as_ref().map_or(DEFAULT_DIGESTER, |dictionary| dictionary.digester());
        let chunking = Chunking {
            version: options.version,
            compressor: options.compressor,
            digester,
            chunk_size: options.chunk_size,
            threads: options.threads,
        };
        let mut others = OtherBlobs::default();
        if let Some(dictionary) = &options.dictionary {
            dictionary.check(&chunking.settings())?;
            for (position, blob) in (layers..).zip(dictionary.blobs()) {
                others.add(position_of(position)?, blob.clone());
            }
        }
        let (settings, budget) = (chunking.settings(), Budget::new());
        Ok(Conversion { chunking, settings, directory, budget, others: Arc::new(others), converted: Vec::new() })
    }

    fn job(&self, position: usize) -> Result<LayerJob> {
        let (directory, budget, others) = (self.directory.clone(), self.budget.clone(), self.others.clone());
        Ok(LayerJob { position: position_of(position)?, chunking: self.chunking, others, directory, budget })
    }

    async fn parallel(&mut self, image: &Image, layers: &[Layer]) -> Result<FileTree> {
        let jobs: Vec<_> = (0..layers.len()).map(|at| self.job(at)).collect::<Result<_>>()?;
        let converting = stream::iter(layers.iter().zip(jobs)).map(|(layer, job)| job.run(layer));
        let mut converting = converting.buffered(MAX_PARALLEL_LAYERS).boxed();
        let mut files = FileTree::with_budget(&self.budget);
        while let Some((tree, converted)) = converting.try_next().await? {
            files = apply(image, files, tree).await?;
            self.converted.push(converted);
        }
        Ok(files)
    }

    async fn one_by_one(&mut self, image: &Image, layers: &[Layer]) -> Result<FileTree> {
        let mut files = FileTree::with_budget(&self.budget);
        for (position, layer) in layers.iter().enumerate() {
            let (tree, converted) = self.job(position)?.run(layer).await?;
            Arc::make_mut(&mut self.others).add(position_of(position)?, converted.blob.clone());
            files = apply(image, files, tree).await?;
            self.converted.push(converted);
        }
        Ok(files)
    }
}

/// Returns the position of a blob in the conversion.
fn position_of(position: usize) -> Result<u16> {
    u16::try_from(position).map_err(|error| unsupported(&error))
}

async fn apply(image: &Image, mut files: FileTree, tree: Tree) -> Result<FileTree> {
    let place = format!("image {} in {}", image.digest(), image.source());
    blocking(move || {
        let applied = files.apply(&tree);
        drop(tree);
        match applied.and_then(|()| files.settle()) {
            Ok(()) => Ok(files),
            Err(error) => match error.limit() {
                Some(limit) => Err(Error::Unsupported { place, what: limit.to_string() }),
                None => Err(Error::broken(place, error)),
            },
        }
    })
    .await
}

/// The layers of the new image.
struct Merged {
    /// Each converted layer, with whether a visible file uses its blob.
    layers: Vec<(Layer, bool)>,
    /// The blobs of the dictionary that visible files use.
    dictionary: Vec<Layer>,
    bootstrap: NewLayer,
    lost_xattrs: Vec<LostXattr>,
}

impl Merged {
    fn write(
        files: &FileTree,
        conversion: &Conversion,
        dictionary: Option<&Dictionary>,
        prefetch: &[Path],
    ) -> Result<Merged> {
        let Conversion { converted, others, settings, directory, .. } = conversion;
        let mut candidates = others.candidates(converted.len());
        for (candidate, layer) in candidates.iter_mut().zip(converted) {
            let blob = &layer.blob;
            *candidate = Some(Candidate { info: blob.info.clone(), chunks: &blob.chunks });
        }
        let items = files.iter().map(|(path, located)| {
            let entry = located.file.entry;
            let layer = converted.get(located.layer);
            let chunks = entry.zip(layer).map_or(&[][..], |(entry, layer)| layer.files.of(entry));
            let identity = entry.map(|entry| (located.layer, entry));
            Item { path: path.as_bytes(), file: &located.file, identity, chunks }
        });
        let names = Names::of(items).map_err(|error| unsupported(&error))?;
        let table = Table::of(&names, &candidates).map_err(|error| unsupported(&error))?;
        let prefetch = match (table.blobs.is_empty(), prefetch.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![0],
            (false, false) => prefetch.iter().filter_map(|path| names.find(path.as_bytes())).collect(),
        };
        let contents = Contents { names: &names, table: &table, settings: *settings, prefetch };
        let bootstrap = write_bootstrap(&contents, directory)?;
        let layers = converted.iter().enumerate().map(|(at, layer)| (layer.layer.clone(), table.uses(at)));
        let dictionary = dictionary.iter().flat_map(|dictionary| dictionary.layers());
        let dictionary = (converted.len()..).zip(dictionary).filter(|(at, _)| table.uses(*at));
        let dictionary = dictionary.map(|(_, layer)| layer.clone()).collect();
        Ok(Merged { layers: layers.collect(), dictionary, bootstrap, lost_xattrs: lost(files) })
    }
}

fn lost(files: &FileTree) -> Vec<LostXattr> {
    let lost = files.iter().flat_map(|(path, located)| {
        let names = lost_xattrs(&located.file.metadata);
        names.map(move |name| LostXattr { path: path.clone(), name: name.to_owned() })
    });
    lost.take(MAX_LOST_XATTRS).collect()
}

fn write_bootstrap(contents: &Contents<'_>, directory: &DirectoryPath) -> Result<NewLayer> {
    let failed = |error| unwritten(directory, error);
    let bootstrap = Bootstrap::of(contents).map_err(|error| unsupported(&error))?;
    let file = tempfile::tempfile_in(directory).map_err(failed)?;
    let mut blob = BlobWriter::new(&EncoderOptions::from(Compression::Gzip), file).map_err(failed)?;
    write_layer(contents, &bootstrap, &mut blob).map_err(failed)?;
    let (file, written) = blob.finish().map_err(failed)?;
    let ids = contents.table.blobs.iter().map(|blob| format!("\"{}\"", String::from_utf8_lossy(&blob.info.id)));
    let ids = ids.collect::<Vec<_>>().join(",");
    let mut annotations = Annotations::new();
    annotations.insert(BOOTSTRAP_ANNOTATION, "true");
    annotations.insert(VERSION_ANNOTATION, contents.settings.version.as_str());
    annotations.insert(BLOB_IDS_ANNOTATION, format!("[{ids}]"));
    let descriptor = Descriptor::new(MediaType::OCI_LAYER_GZIP, written.digest, written.size);
    let descriptor = Descriptor { annotations, ..descriptor };
    let file = BlobFile::known(format!("layer {}", written.digest), file, descriptor);
    let history = History {
        created_by: Some("ocikit convert --to nydus".to_owned()),
        comment: Some("Nydus Bootstrap Layer".to_owned()),
        ..History::default()
    };
    Ok(NewLayer::new(file.into(), written.diff_id).with_history(history))
}

/// Returns the image with its layers replaced by blobs. Those that no file uses are removed; their steps stay in the history.
async fn replace_layers(image: &Image, merged: &Merged) -> Result<Image> {
    let mut edit = image.edit();
    let mut seen = HashSet::new();
    let mut removed = Vec::new();
    for (position, (layer, is_used)) in merged.layers.iter().enumerate() {
        // The digest of a blob is also that of what the config lists, because blobs are not compressed as a whole.
        match *is_used && seen.insert(layer.digest()) {
            true => {
                edit.replace_layer(position, NewLayer::new(layer.clone(), layer.digest()));
            }
            false => removed.push(position),
        }
    }
    for position in removed.into_iter().rev() {
        edit.empty_layer(position);
    }
    for layer in &merged.dictionary {
        if seen.insert(layer.digest()) {
            edit.append_layer(NewLayer::new(layer.clone(), layer.digest()));
        }
    }
    edit.append_layer(merged.bootstrap.clone());
    edit.finish().await
}
