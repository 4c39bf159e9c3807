use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ocikit_archive::Compression;
use ocikit_archive::layer::{Budget, Entry, File, Kind, Path, Reader, Writer};

use crate::bridge::blocking;
use crate::error::{Error, Result};
use crate::layer::DiffId;
use crate::root::Image;

impl Image {
    /// Writes the file system that a container of this image sees as an uncompressed tar, and returns the writer.
    ///
    /// Layers are read twice: for the list of files, and for their contents; [`Image::nearby`] downloads those of a registry
    /// once. Directories come first, then files in the order of
    /// their layers. All names of a file but the first are hard links. The root has an entry only if a layer has one, so that
    /// extracting the tar leaves the directory that it is extracted to as it is. Directories that hold files come again at the
    /// end, so that programs that set the times of a directory when they leave it, such as GNU tar, set them last. Memory does
    /// not depend on the size of files.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use std::sync::Arc;
    /// # use ocikit_image::{Memory, Root, testing};
    /// # let memory = Arc::new(Memory::new());
    /// # let tar = testing::Tar::new().file("etc/motd", b"hello").finish();
    /// # let image = testing::image_of(&memory, &"linux/amd64".parse()?, ocikit_archive::Compression::Gzip, &[tar]);
    /// # let Root::Image(image) = Root::at(memory, image).await? else { unreachable!() };
    /// let tar = image.export(Vec::new()).await?;
    /// assert!(tar.starts_with(b"etc/\0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Image::files`], and [`Error::Failed`] if writing fails.
    pub async fn export<W: Write + Send + 'static>(&self, writer: W) -> Result<W> {
        let files = Arc::new(self.files().await?);
        let listed = files.clone();
        let mut wanted: Vec<BTreeMap<u64, Vec<Path>>> = self.file_layers().iter().map(|_| BTreeMap::new()).collect();
        let mut holders = BTreeSet::new();
        for (path, located) in files.iter().filter(|(_, located)| !located.file.is_directory()) {
            holders.extend(path.parent());
            if let Some(entry) = located.file.entry {
                wanted[located.layer].entry(entry).or_default().push(path.clone());
            }
        }
        let place = format!("image {} in {}", self.digest(), self.source);
        let broken = place.clone();
        let failed = move |error: ocikit_archive::Error| match error {
            ocikit_archive::Error::Io(error) => Error::failed("write", "the tar", error),
            error => Error::broken(&broken, error),
        };
        let begin = failed.clone();
        let unwritable = Arc::new(AtomicBool::new(false));
        let flag = unwritable.clone();
        let mut tar = blocking(move || {
            let mut tar = Writer::new(&Compression::None.into(), Watched { writer, failed: flag }).map_err(&begin)?;
            let directories = files.iter().filter(|(_, located)| located.file.is_directory());
            for (path, located) in directories.filter(|(path, located)| is_described(path, &located.file)) {
                tar.append(&directory(path, &located.file), io::empty()).map_err(&begin)?;
            }
            Ok(tar)
        })
        .await?;
        // An image may list the same layer several times.
        let budget = Budget::new();
        for (layer, mut names) in self.file_layers().into_iter().zip(wanted) {
            if names.is_empty() {
                continue;
            }
            let (within, unwritable) = (budget.clone(), unwritable.clone());
            let work = move |layer: &mut crate::LayerTar<'_>| {
                let mut reader = Reader::within(&within, layer);
                let mut number = 0;
                while let (false, Some(entry)) = (names.is_empty(), reader.next_entry()?) {
                    if let Some(names) = names.remove(&number)
                        && let Err(error) = append(&mut tar, entry, names, &mut reader)
                    {
                        // A failure of the writer is no damage of the layer.
                        return if unwritable.load(Ordering::Relaxed) { Ok(Err(error)) } else { Err(error) };
                    }
                    number += 1;
                }
                Ok(Ok(tar))
            };
            let (outcome, _) = layer.decode_within(&budget, DiffId::Skip, work).await?;
            tar = outcome.map_err(&failed)?;
        }
        blocking(move || {
            // In reverse, a directory comes after those that it holds.
            for path in holders.iter().rev() {
                if let Some(located) = listed.get(path).filter(|located| is_described(path, &located.file)) {
                    tar.append(&directory(path, &located.file), io::empty()).map_err(&failed)?;
                }
            }
            let (Watched { mut writer, .. }, _) = tar.finish().map_err(&failed)?;
            writer.flush().map_err(|error| Error::failed("write", "the tar", error))?;
            Ok(writer)
        })
        .await
    }
}

/// Returns whether a directory gets an entry: the root only if a layer has one.
fn is_described(path: &Path, directory: &File) -> bool {
    !path.is_root() || directory.entry.is_some()
}

/// The entry of a directory.
fn directory(path: &Path, file: &File) -> Entry {
    Entry { path: path.clone(), kind: Kind::File(file.kind.clone()), metadata: file.metadata.clone() }
}

/// Appends a file with all its names.
fn append<W: Write>(
    tar: &mut Writer<W>,
    entry: Entry,
    names: Vec<Path>,
    contents: &mut impl io::Read,
) -> ocikit_archive::Result<()> {
    let mut names = names.into_iter();
    let Some(first) = names.next() else { return Ok(()) };
    let entry = Entry { path: first.clone(), ..entry };
    tar.append(&entry, contents)?;
    names.try_for_each(|path| {
        let kind = Kind::HardLink { target: first.clone() };
        tar.append(&Entry { path, kind, metadata: entry.metadata.clone() }, io::empty())
    })
}

/// A writer that remembers whether it failed.
struct Watched<W> {
    writer: W,
    failed: Arc<AtomicBool>,
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }
}
