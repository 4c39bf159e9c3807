//! Converts one layer: its blob, with a bootstrap of the layer alone.

use std::io;
use std::path::{Path as DirectoryPath, PathBuf};
use std::sync::{Arc, LazyLock};

use ocikit_image::files::{Budget, Entry, File, FileKind, Kind, Metadata, Node, Path, Reader, Tree};
use ocikit_image::{BlobFile, DiffId, Error, Layer, LayerTar, Result};
use ocikit_spec::{Annotations, Descriptor, MediaType};

use crate::output::Output;
use crate::rafs::blob::Tail;
use crate::rafs::bootstrap::Bootstrap;
use crate::rafs::data::{BlobData, Chunking, Data, Failure, FileChunks, OtherBlobs};
use crate::rafs::table::{Candidate, Contents, Settings, Table, feature, id_of};
use crate::rafs::tree::{Item, MAX_NAME_BYTES, Names};

/// The annotation of a blob.
pub(super) const BLOB_ANNOTATION: &str = "containerd.io/snapshot/nydus-blob";

/// A layer that was converted.
#[derive(Debug)]
pub(super) struct ConvertedLayer {
    pub(super) files: FileChunks,
    pub(super) blob: Arc<BlobData>,
    pub(super) layer: Layer,
}

/// What the conversion of a layer needs to know.
#[derive(Debug, Clone)]
pub(super) struct LayerJob {
    /// The position of its blob in the conversion.
    pub(super) position: u16,
    pub(super) chunking: Chunking,
    /// The blobs of which it may use chunks.
    pub(super) others: Arc<OtherBlobs>,
    pub(super) directory: PathBuf,
    pub(super) budget: Budget,
}

impl LayerJob {
    /// Reads a layer once and converts it.
    pub(super) async fn run(self, layer: &Layer) -> Result<(Tree, ConvertedLayer)> {
        let budget = self.budget.clone();
        layer.decode_within(&budget, DiffId::Skip, move |tar| self.convert(tar)).await?.0
    }

    /// The outer result is that of reading the layer, the inner one that of writing the blob.
    fn convert(self, tar: &mut LayerTar<'_>) -> ocikit_archive::Result<Result<(Tree, ConvertedLayer)>> {
        let output = match Output::create(&self.directory) {
            Ok(output) => output,
            Err(error) => return Ok(Err(unwritten(&self.directory, error))),
        };
        let mut data = Data::new(output, self.chunking, self.position, self.others.clone());
        let mut stopped = None;
        let tree = Tree::read_with(&mut Reader::within(&self.budget, tar), |number, entry, reader| {
            let Kind::File(FileKind::Regular { size }) = entry.kind else { return Ok(None) };
            match data.add(number, size, reader) {
                Ok(()) => Ok(None),
                Err(Failure::Read(error)) => Err(error.into()),
                Err(Failure::Store(error)) => {
                    let kind = error.kind();
                    stopped = Some(error);
                    Err(io::Error::from(kind).into())
                }
            }
        });
        if let Some(error) = stopped {
            return Ok(Err(unwritten(&self.directory, error)));
        }
        let tree = tree?;
        Ok(self.finish(data, &tree).map(|converted| (tree, converted)))
    }

    fn finish(&self, data: Data<Output>, tree: &Tree) -> Result<ConvertedLayer> {
        let failed = |error| unwritten(&self.directory, error);
        let data = data.finish().map_err(failed)?;
        let (tail, mut blob, files) = Tail::of(data, &self.chunking).map_err(failed)?;
        let stored = {
            let position = usize::from(self.position);
            let mut candidates = self.others.candidates(position + 1);
            candidates[position] = Some(Candidate { info: blob.info.clone(), chunks: &blob.chunks });
            let whiteouts = whiteouts(tree);
            let names = Names::of(items(tree, &whiteouts, &files)).map_err(|error| unsupported(&error))?;
            let table = Table::of(&names, &candidates).map_err(|error| unsupported(&error))?;
            let prefetch = if table.blobs.is_empty() { Vec::new() } else { vec![0] };
            let settings = self.chunking.settings();
            let contents = Contents { names: &names, table: &table, settings, prefetch };
            let bootstrap = Bootstrap::of(&contents).map_err(|error| unsupported(&error))?;
            tail.finish(|writer| bootstrap.write(writer)).map_err(failed)?
        };
        blob.info.id = id_of(&stored.digest);
        blob.info.features &= !feature::INLINED_BOOTSTRAP;
        let mut annotations = Annotations::new();
        annotations.insert(BLOB_ANNOTATION, "true");
        let descriptor = Descriptor::new(MediaType::NYDUS_BLOB, stored.digest, stored.size);
        let descriptor = Descriptor { annotations, ..descriptor };
        let file = BlobFile::known(format!("blob {}", stored.digest), stored.file, descriptor);
        Ok(ConvertedLayer { files, blob: Arc::new(blob), layer: file.into() })
    }
}

impl Chunking {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            version: self.version,
            stored: self.compressor.into(),
            digester: self.digester,
            chunk_size: self.chunk_size,
        }
    }
}

/// A whiteout in the bootstrap of a layer, which is an empty file.
static WHITEOUT: LazyLock<File> = LazyLock::new(|| File {
    kind: FileKind::Regular { size: 0 },
    metadata: Metadata::default(),
    entry: None,
    digest: None,
});

/// Returns the paths of the files that are the whiteouts of a layer, sorted.
fn whiteouts(tree: &Tree) -> Vec<Path> {
    let is_directory = |path: &Path| matches!(tree.get(path), Some(Node::File(file)) if file.is_directory());
    let paths = tree.hidden().filter_map(|whiteout| Entry::whiteout(whiteout.clone()));
    let paths = paths.map(|entry| entry.path).filter(|path| path.parent().is_none_or(|parent| is_directory(&parent)));
    // The name of a whiteout is longer than what it hides. The merged bootstrap has none.
    let mut paths: Vec<_> = paths.filter(|path| path.name().len() <= MAX_NAME_BYTES).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Returns the files of a layer and its whiteouts, sorted. Names of files in lower layers are left out: only the merged
/// bootstrap can hold them.
fn items<'a>(tree: &'a Tree, whiteouts: &'a [Path], files: &'a FileChunks) -> impl Iterator<Item = Item<'a>> {
    let mut nodes = tree
        .iter()
        .filter_map(move |(path, node)| match node {
            Node::File(file) => Some(Item {
                path: path.as_bytes(),
                file,
                identity: file.entry.map(|entry| (0, entry)),
                chunks: file.entry.map_or(&[][..], |entry| files.of(entry)),
            }),
            Node::Link(_) => None,
        })
        .peekable();
    let mut whiteouts = whiteouts
        .iter()
        .map(|path| Item { path: path.as_bytes(), file: &WHITEOUT, identity: None, chunks: &[] })
        .peekable();
    std::iter::from_fn(move || match (nodes.peek(), whiteouts.peek()) {
        (Some(node), Some(whiteout)) if whiteout.path < node.path => whiteouts.next(),
        (Some(_), _) => nodes.next(),
        (None, _) => whiteouts.next(),
    })
}

/// Returns the error for a file or image that no bootstrap can hold.
pub(super) fn unsupported(error: &dyn std::error::Error) -> Error {
    Error::Unsupported { place: "a Nydus image".to_owned(), what: error.to_string() }
}

/// Returns the error for a blob that cannot be written.
pub(super) fn unwritten(directory: &DirectoryPath, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::Unsupported => unsupported(&error),
        _ => Error::failed("write a layer to a temporary file in", directory.display(), error),
    }
}
