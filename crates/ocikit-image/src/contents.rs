use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::{Budget, Entry, FileKind, FileTree, Located, Lookup, Path, Reader, Step, Tree};
use tokio::sync::OnceCell;

use crate::bridge::{Chunks, CopyFailed, blocking, consume, copy};
use crate::error::{Error, Result};
use crate::layer::DiffId;
use crate::root::{Image, Layer};

/// The number of layers that are read in parallel. Each uses one processor.
///
/// Two zstd decoders with the maximum window size take 64 MiB.
const MAX_PARALLEL_LAYERS: usize = 2;

/// The maximum size in bytes of a file that is kept while its layer is scanned. A larger file is read again once it is
/// known to be the right one.
const MAX_KEPT_FILE_BYTES: u64 = 4 << 20;

impl Image {
    /// Returns the file system that a container of this image sees. Reads and checks every layer, several in parallel.
    ///
    /// # Errors
    ///
    /// As [`Layer::decode`]; [`Error::Broken`] if a layer cannot be applied to those below it.
    pub async fn files(&self) -> Result<FileTree> {
        let layers = self.file_layers();
        // An image may list a layer several times, such as the empty layer of old builders. It is read once.
        let mut once = HashSet::new();
        let again = layers.iter().map(|layer| layer.descriptor().digest).filter(|digest| !once.insert(*digest));
        let again: HashMap<_, OnceCell<Arc<Tree>>> = again.map(|digest| (digest, OnceCell::new())).collect();
        let budget = Budget::new();
        let trees = stream::iter(&layers).map(async |layer| {
            let read = async || layer.tree_within(&budget).await.map(Arc::new);
            match again.get(&layer.descriptor().digest) {
                Some(known) => known.get_or_try_init(read).await.cloned(),
                None => read().await,
            }
        });
        // Boxed, so that the future is `Send` whatever the closure borrows.
        let trees = trees.buffered(MAX_PARALLEL_LAYERS).boxed();
        trees.try_fold(FileTree::with_budget(&budget), async |files, tree| self.lay(files, tree).await).await
    }

    /// Applies a layer to the files of those below it.
    pub(crate) async fn lay(&self, mut files: FileTree, tree: Arc<Tree>) -> Result<FileTree> {
        let place = format!("image {} in {}", self.digest(), self.source);
        blocking(move || {
            let applied = files.apply(&tree);
            drop(tree);
            match applied.and_then(|()| files.settle()) {
                Ok(()) => Ok(files),
                Err(error) => Err(refused(place, error)),
            }
        })
        .await
    }

    /// Writes the contents of one file. Symlinks and hard links are followed inside the image; layers below the one
    /// with the file are read only if a link leads there.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the file does not exist, [`Error::Unsupported`] if it is not a regular file,
    /// [`Error::Mismatch`] if the layer is damaged, which may be detected after bytes of a large file were written.
    /// Those of the writer.
    pub async fn read_file(&self, path: &[u8], writer: impl Write + Send + 'static) -> Result<()> {
        read_file(&self.file_layers(), path, writer).await
    }
}

/// Returns the error for a layer that cannot be applied, or that exceeds a limit.
fn refused(place: String, error: ocikit_archive::Error) -> Error {
    match error.unsupported() {
        Some(what) => Error::Unsupported { place, what },
        None => Error::broken(place, error),
    }
}

impl Layer {
    /// Writes the contents of one file of this layer. Links are followed inside the layer.
    ///
    /// # Errors
    ///
    /// As [`Image::read_file`].
    pub async fn read_file(&self, path: &[u8], writer: impl Write + Send + 'static) -> Result<()> {
        read_file(std::slice::from_ref(self), path, writer).await
    }
}

async fn read_file(layers: &[Layer], path: &[u8], mut writer: impl Write + Send + 'static) -> Result<()> {
    let place =
        || layers.last().map_or_else(|| "an image without layers".to_owned(), |layer| layer.source().to_string());
    let wanted = Path::confined(path);
    let mut lookup = Lookup::new(layers.len(), path);
    // The file from the layer that was read last: at most one file is held, however many layers are read.
    let mut kept = None;
    let budget = Budget::new();
    let (path, found) = loop {
        let step = lookup.step().map_err(|error| Error::not_found(format!("file /{wanted}: {error}"), place()));
        match step? {
            Step::Found(path, located) => break (path, located),
            Step::Missing => return Err(Error::not_found(format!("file /{wanted}"), place())),
            Step::Need(number) => {
                let (tree, bytes) = look(&layers[number], lookup.expected(), &budget).await?;
                lookup.give(tree);
                kept = bytes.map(|(entry, bytes)| (number, entry, bytes)).or(kept);
            }
        }
    };
    let layer = &layers[found.layer];
    let Located { file, .. } = &found;
    let (FileKind::Regular { .. }, Some(number)) = (&file.kind, file.entry) else {
        let what = format!("/{path} is {}", word(&file.kind));
        return Err(Error::Unsupported { place: place(), what });
    };
    let failed = move |error| Error::failed("write", format!("the bytes of /{path}"), error);
    if let Some((.., bytes)) = kept.filter(|(layer, entry, _)| (*layer, *entry) == (found.layer, number)) {
        return writer.write_all(&bytes).and_then(|()| writer.flush()).map_err(failed);
    }
    if let Some(files) = layer.files()
        && let Some(contents) = files.contents(number).await?
    {
        let write = move |chunks: &mut Chunks| {
            for chunk in chunks {
                writer.write_all(&chunk?).map_err(&failed)?;
            }
            writer.flush().map_err(failed)
        };
        return consume(contents, write).await;
    }
    let (written, _) = layer
        .decode_within(&budget.clone(), DiffId::Skip, move |tar| {
            let mut reader = Reader::within(&budget, tar);
            for _ in 0..number {
                reader.next_entry()?;
            }
            reader.next_entry()?;
            // The outer result is that of the reader, the inner one that of the writer.
            match copy(reader, |bytes| writer.write_all(bytes)) {
                Ok(()) => Ok(writer.flush()),
                Err(CopyFailed::Writing(error)) => Ok(Err(error)),
                Err(CopyFailed::Reading(error)) => Err(error.into()),
            }
        })
        .await?;
    written.map_err(failed)
}

/// Returns the tree of a layer, and the last entry with this path if its file is small.
async fn look(layer: &Layer, expected: Path, budget: &Budget) -> Result<(Tree, Option<(u64, Vec<u8>)>)> {
    if let Some(tree) = layer.listed_tree(budget).await? {
        return Ok((tree, None));
    }
    let within = budget.clone();
    let looked = layer.decode_within(budget, DiffId::Skip, move |tar| {
        let mut kept = None;
        let tree = Tree::read_with(&mut Reader::within(&within, tar), |number, entry: &Entry, reader| {
            if entry.path == expected {
                let mut bytes = Vec::new();
                reader.take(MAX_KEPT_FILE_BYTES + 1).read_to_end(&mut bytes)?;
                kept = (bytes.len() as u64 <= MAX_KEPT_FILE_BYTES).then_some((number, bytes));
            }
            Ok(None)
        })?;
        Ok((tree, kept))
    });
    Ok(looked.await?.0)
}

fn word(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::Regular { .. } => "a file",
        FileKind::Directory => "a directory",
        FileKind::Symlink { .. } => "a symbolic link",
        FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. } => "a device",
        FileKind::Fifo => "a pipe",
    }
}
