//! The layers of an image as one layer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use ocikit_archive::layer::{Budget, Entry, FileKind, FileTree, Kind, Located, Path, Reader, Writer};

use crate::bridge::blocking;
use crate::error::{Error, Result};
use crate::formats::{ImageFormats, without_own_entries};
use crate::layer::{DiffId, LayerTar};
use crate::memory::Memory;
use crate::new_layer::{LayerOptions, NewLayer, Place};
use crate::root::{Image, Layer};

impl Image {
    /// Returns one layer with the file system that a container of this image sees: all layers, applied in order.
    ///
    /// Every layer is read twice; those of a registry are downloaded once, to a temporary file. Memory is that of the
    /// [`FileTree`]. The same layers give the same bytes.
    ///
    /// # Errors
    ///
    /// As [`Image::files`]; [`Error::Failed`] if a temporary file cannot be written.
    pub async fn merged_layer(&self, options: impl Into<LayerOptions>) -> Result<NewLayer> {
        self.merged_layer_of(&options.into(), None).await
    }

    /// As [`Image::merged_layer`], without the entries that only a format has.
    pub(crate) async fn merged_layer_of(
        &self,
        options: &LayerOptions,
        formats: Option<&Arc<dyn ImageFormats>>,
    ) -> Result<NewLayer> {
        let near = without_own_entries(&self.nearby(options).await?, formats).await?;
        let place = Place::of(options);
        let writer = Writer::new(&options.encoder, place.file()?).map_err(|error| place.failed(error))?;
        let writer: Writer<File> = near.write_merged(&near.files().await?, writer).await?;
        blocking(move || {
            let (file, written) = writer.finish().map_err(|error| place.failed(error))?;
            NewLayer::of_written(file, &written)
        })
        .await
    }

    /// Returns the image with the layers of a registry in temporary files, as they are: for operations that read layers twice.
    /// The files have no name and are in the directory of the options. [File layers](Image::with_file_layers) are dropped.
    ///
    /// # Errors
    ///
    /// Those of reading the layers; [`Error::Failed`] if a temporary file cannot be written.
    pub async fn nearby(&self, options: &LayerOptions) -> Result<Image> {
        let mut memory = Memory::over(self.source.clone());
        for layer in self.layers() {
            memory = memory.with_layer(&layer.nearby(options).await?);
        }
        Ok(Image::of(self.descriptor.clone(), self.manifest.clone(), Arc::new(memory)))
    }

    /// Writes the merged file system of this image to a layer: directories first, then the regular files of each layer
    /// in the order of the layer, then everything else. `files` is the result of [`Image::files`]. The writer is
    /// returned unfinished.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode_within`]; [`Error::Failed`] if writing fails.
    pub async fn write_merged<W: Write + Send + 'static>(
        &self,
        files: &FileTree,
        mut writer: Writer<W>,
    ) -> Result<Writer<W>> {
        let Parts { directories, contents, others } = Parts::of(files);
        writer = append_all(writer, directories).await?;
        let budget = Budget::new();
        for (position, layer) in self.file_layers().into_iter().enumerate() {
            if let Some(contents) = contents.get(&position) {
                writer = append_contents(&layer, contents.clone(), writer, &budget).await?;
            }
        }
        append_all(writer, others).await
    }
}

/// The entries of a merged layer.
#[derive(Default)]
struct Parts {
    directories: Vec<Entry>,
    /// The regular files of each layer by the number of their entry, with the name that they get.
    contents: HashMap<usize, Arc<HashMap<u64, Entry>>>,
    others: Vec<Entry>,
}

impl Parts {
    fn of(files: &FileTree) -> Parts {
        let mut parts = Parts::default();
        let mut contents: HashMap<usize, HashMap<u64, Entry>> = HashMap::new();
        let mut names: HashMap<(usize, u64), Path> = HashMap::new();
        for (path, Located { file, layer, .. }) in files.iter() {
            // A directory without an entry is one that every reader creates.
            let Some(number) = file.entry else { continue };
            let entry = |kind| Entry { path: path.clone(), kind, metadata: file.metadata.clone() };
            if file.is_directory() {
                parts.directories.push(entry(Kind::File(FileKind::Directory)));
                continue;
            }
            if let Some(first) = names.get(&(*layer, number)) {
                parts.others.push(entry(Kind::HardLink { target: first.clone() }));
                continue;
            }
            names.insert((*layer, number), path.clone());
            match file.kind {
                FileKind::Regular { .. } => {
                    contents.entry(*layer).or_default().insert(number, entry(Kind::File(file.kind.clone())));
                }
                _ => parts.others.push(entry(Kind::File(file.kind.clone()))),
            }
        }
        parts.contents = contents.into_iter().map(|(layer, files)| (layer, Arc::new(files))).collect();
        parts
    }
}

async fn append_all<W: Write + Send + 'static>(mut writer: Writer<W>, entries: Vec<Entry>) -> Result<Writer<W>> {
    blocking(move || {
        entries.iter().try_for_each(|entry| writer.append(entry, io::empty())).map_err(unwritten)?;
        Ok(writer)
    })
    .await
}

/// Appends the visible files of a layer.
async fn append_contents<W: Write + Send + 'static>(
    layer: &Layer,
    wanted: Arc<HashMap<u64, Entry>>,
    mut writer: Writer<W>,
    budget: &Budget,
) -> Result<Writer<W>> {
    let within = budget.clone();
    let append = move |tar: &mut LayerTar<'_>| {
        let mut number = 0;
        let mut left = wanted.len();
        let mut reader = Reader::within(&within, &mut *tar);
        while left > 0 {
            if reader.next_entry()?.is_none() {
                break;
            }
            if let Some(entry) = wanted.get(&number) {
                if let Err(error) = writer.append(entry, &mut reader) {
                    drop(reader);
                    return match tar.has_failed() || !matches!(error, ocikit_archive::Error::Io(_)) {
                        true => Err(error),
                        false => Ok(Err(unwritten(error))),
                    };
                }
                left -= 1;
            }
            number += 1;
        }
        Ok(Ok(writer))
    };
    layer.decode_within(budget, DiffId::Skip, append).await?.0
}

/// Returns the error for a tar that cannot be written.
fn unwritten(error: ocikit_archive::Error) -> Error {
    match error {
        ocikit_archive::Error::Io(source) => Error::failed("write", "the merged layer", source),
        error => Error::broken("the merged layer", error),
    }
}
