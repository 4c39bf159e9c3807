use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ocikit_archive::layer::Budget;
use ocikit_spec::{Descriptor, Digest, Manifest, MediaType};

use super::file::TITLE;
use super::place::{StagedFile, place};
use super::title::path_of_title;
use super::unpack::unpack;
use super::{CONTENT_DIGEST, CONTENT_UNPACK};
use crate::bridge::blocking;
use crate::error::{Error, Mismatch, Need, Result};
use crate::layer::DiffId;
use crate::root::{Artifact, Image, Layer, Root};
use crate::source::{Source, SourceExt};

/// The number of files that are downloaded in parallel.
const MAX_PARALLEL_FILES: usize = 4;

/// The beginning of the names of temporary directories.
const PREFIX: &str = ".ocikit-";

/// Options of [`pull_files`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// Whether existing files and directories are replaced. Otherwise they are an error.
    pub overwrite: bool,
}

ocikit_spec::setters! {
    PullOptions {
        overwrite: bool,
    }
}

/// The files of an artifact.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pulled {
    /// The files and directories that were written, in the order of the layers.
    pub files: Vec<PulledFile>,
    /// The layers without a title, which have no file name.
    pub untitled: Vec<Descriptor>,
}

/// A file or directory of an artifact.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PulledFile {
    /// Where it was written.
    pub path: PathBuf,
    /// Its name in the artifact.
    pub title: String,
    /// The descriptor of its layer.
    pub descriptor: Descriptor,
    /// Whether it is a directory, which was unpacked.
    pub is_directory: bool,
}

/// Writes the files of an artifact to a directory, by the conventions of oras: a layer with a title is a file, and one with
/// `io.deis.oras.content.unpack` a directory.
///
/// All files are downloaded and checked under temporary names before the first one gets its name. If something fails, the
/// directory is as before. An artifact without a titled layer leaves it untouched. Titles that lead out of the directory, also through symlinks, are refused.
///
/// # Errors
///
/// [`Error::Exists`] if a file exists, unless [`PullOptions::overwrite`] is set; [`Error::Broken`] for titles that cannot be
/// used and two files of one name; [`Error::Unmet`] for an index; those of the source; [`Error::Failed`] if a file
/// cannot be written.
pub async fn pull_files(root: &Root, directory: &Path, options: &PullOptions) -> Result<Pulled> {
    let (source, manifest) = match root {
        Root::Image(Image { source, manifest, .. })
        | Root::Other(Artifact { source, manifest: Some(manifest), .. }) => (source, manifest),
        Root::Index(_) | Root::Other(_) => {
            let what = format!("{} is of type {}, which has no files", root.digest(), root.descriptor().media_type);
            return Err(Error::unmet(root.source(), what, Need::IndexEntry));
        }
    };
    let (planned, untitled) = plan(manifest, source)?;
    if planned.is_empty() {
        return Ok(Pulled { files: Vec::new(), untitled });
    }
    let (target, overwrite) = (directory.to_owned(), options.overwrite);
    let created = blocking(move || create(&target)).await?;
    let outcome = write(source, &planned, directory, overwrite).await;
    if outcome.is_err() && created {
        // Empty, because everything was undone.
        let _ = fs::remove_dir(directory);
    }
    outcome?;
    let files = planned.into_iter().map(|file| PulledFile {
        path: directory.join(&file.path),
        title: file.title,
        descriptor: file.layer,
        is_directory: file.is_directory,
    });
    Ok(Pulled { files: files.collect(), untitled })
}

/// A file to write.
#[derive(Debug, Clone)]
struct PlannedFile {
    title: String,
    path: PathBuf,
    layer: Descriptor,
    is_directory: bool,
}

/// Returns the files of a manifest and the layers without a title.
fn plan(manifest: &Manifest, source: &Arc<dyn Source>) -> Result<(Vec<PlannedFile>, Vec<Descriptor>)> {
    let (mut files, mut untitled) = (Vec::new(), Vec::new());
    for layer in manifest.layers() {
        let Some(title) = layer.annotations.get(TITLE) else {
            if layer.media_type != MediaType::OCI_EMPTY {
                untitled.push(layer.clone());
            }
            continue;
        };
        let unusable = |problem| Error::broken(source, format!("the title `{title}` cannot be used: {problem}"));
        let path = path_of_title(title).map_err(unusable)?;
        let is_directory = layer.annotations.get(CONTENT_UNPACK) == Some("true");
        files.push(PlannedFile { title: title.to_owned(), path, layer: layer.clone(), is_directory });
    }
    // Whatever is below a path follows it in this order.
    let mut paths: BTreeMap<&Path, &str> = BTreeMap::new();
    for file in &files {
        if paths.insert(&file.path, &file.title).is_some() {
            return Err(Error::broken(source, format!("two files have the title `{}`", file.title)));
        }
    }
    for ((upper, title), (lower, other)) in paths.iter().zip(paths.iter().skip(1)) {
        if lower.starts_with(upper) {
            return Err(Error::broken(source, format!("the file `{title}` is also the directory of `{other}`")));
        }
    }
    drop(paths);
    Ok((files, untitled))
}

/// Creates a directory, and returns whether it did not exist.
fn create(directory: &Path) -> Result<bool> {
    let created = !directory.exists();
    fs::create_dir_all(directory).map_err(|error| Error::failed("create", directory.display(), error))?;
    Ok(created)
}

async fn write(source: &Arc<dyn Source>, files: &[PlannedFile], directory: &Path, overwrite: bool) -> Result<()> {
    let target = directory.to_owned();
    let staging = blocking(move || temporary(&target)).await?;
    let stage = |(number, file): (usize, &PlannedFile)| {
        let path = staging.path().join(number.to_string());
        stage(source.clone(), file.clone(), path).boxed()
    };
    let staged: Vec<_> = files.iter().enumerate().map(stage).collect();
    let staged: Vec<StagedFile> = stream::iter(staged).buffered(MAX_PARALLEL_FILES).try_collect().await?;
    let directory = directory.to_owned();
    blocking(move || place(&staged, &directory, staging.path().as_ref(), overwrite)).await
}

/// Creates the directory for files that are not complete, in the target.
#[cfg(unix)]
fn temporary(directory: &Path) -> Result<ocikit_archive::unpack::TemporaryDirectory> {
    // What was replaced before a process was killed is kept.
    let created = ocikit_archive::unpack::TemporaryDirectory::create(directory, PREFIX, Some(super::place::REPLACED));
    created.map_err(|error| Error::failed("write to", directory.display(), error.into()))
}

#[cfg(not(unix))]
fn temporary(directory: &Path) -> Result<tempfile::TempDir> {
    let created = tempfile::Builder::new().prefix(PREFIX).tempdir_in(directory);
    created.map_err(|error| Error::failed("write to", directory.display(), error))
}

/// Downloads a file or directory to a temporary name.
async fn stage(source: Arc<dyn Source>, file: PlannedFile, path: PathBuf) -> Result<StagedFile> {
    if !file.is_directory {
        source.open(&file.layer).await?.save(&path).await?;
        return Ok(StagedFile { from: path, to: file.path });
    }
    // The media type may be any; the convention is a tar.
    let descriptor = Descriptor { media_type: MediaType::OCI_LAYER_GZIP, ..file.layer.clone() };
    let layer = Layer::at(source.clone(), descriptor);
    let (budget, within) = (Budget::new(), path.clone());
    let (shared, prefix) = (budget.clone(), file.path.clone());
    let work = move |tar: &mut crate::layer::LayerTar<'_>| match unpack(tar, &shared, &prefix, &within) {
        // The layer is not damaged.
        Err(ocikit_archive::Error::Io(error)) if is_of_target(error.kind()) => {
            Ok(Err(Error::failed("write", prefix.display(), error)))
        }
        unpacked => unpacked.map(Ok),
    };
    let (unpacked, found) = layer.decode_within(&budget, DiffId::Compute, work).await?;
    unpacked?;
    let stated = file.layer.annotations.get(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
    if let (Some(stated), Some(found)) = (stated, found)
        && stated.algorithm() == found.algorithm()
        && stated != found
    {
        return Err(Error::mismatch(&stated, &source, Mismatch::Digest(found)));
    }
    Ok(StagedFile { from: path, to: file.path })
}

/// Returns whether an error is one of writing files, which reading a layer does not have.
fn is_of_target(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(kind, FileTooLarge | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{ArtifactBuilder, ArtifactFile};
    use crate::memory::Memory;

    fn titled(titles: &[&str]) -> Root {
        let mut artifact = ArtifactBuilder::new("application/vnd.x");
        let memory = Memory::new();
        for title in titles {
            let bytes = title.as_bytes().to_vec();
            let mut layer = Descriptor::of("text/plain".into(), &bytes);
            memory.insert(bytes);
            layer.annotations.insert(TITLE, *title);
            artifact.layer(layer);
        }
        let source: Arc<dyn Source> = Arc::new(memory);
        artifact.finish(&source).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn files_and_directories_come_back() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/file"), "in a directory").unwrap();
        std::os::unix::fs::symlink("sub/file", tree.join("link")).unwrap();
        fs::write(place.path().join("plain"), "plain").unwrap();
        let mut artifact = ArtifactBuilder::new("application/vnd.x");
        for name in ["tree", "plain"] {
            artifact.layer_from(ArtifactFile::new(place.path().join(name)).layer(0).await.unwrap());
        }
        let root = artifact.finish(&(Arc::new(Memory::new()) as Arc<dyn Source>)).unwrap();
        let out = place.path().join("out");
        let pulled = pull_files(&root, &out, &PullOptions::default()).await.unwrap();
        assert_eq!(pulled.files.len(), 2);
        assert_eq!(fs::read_to_string(out.join("tree/link")).unwrap(), "in a directory");
        assert_eq!(fs::read_to_string(out.join("plain")).unwrap(), "plain");
        assert_eq!(names(&out), ["plain", "tree"]);
        let again = pull_files(&root, &out, &PullOptions::default()).await.unwrap_err();
        assert!(matches!(again, Error::Exists { .. }), "{again}");
        fs::write(out.join("tree/old"), "").unwrap();
        pull_files(&root, &out, &PullOptions { overwrite: true }).await.unwrap();
        assert_eq!(names(&out.join("tree")), ["link", "sub"], "a directory is replaced as a whole");
        assert_eq!(names(&out), ["plain", "tree"]);
    }

    #[tokio::test]
    async fn titles_that_lead_out_or_clash_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        for titles in [&["ok", "../a"][..], &["/a"], &["a\u{7}b"], &["a", "a"], &["a", "./a"], &["a", "a-b", "a/b"]] {
            let error = pull_files(&titled(titles), &out, &PullOptions::default()).await.unwrap_err();
            assert!(matches!(error, Error::Broken { .. }), "{titles:?}: {error}");
            assert!(!out.exists(), "{titles:?}");
        }
        fs::create_dir(&out).unwrap();
        std::os::unix::fs::symlink(place.path(), out.join("up")).unwrap();
        for overwrite in [false, true] {
            let error = pull_files(&titled(&["up/a"]), &out, &PullOptions { overwrite }).await.unwrap_err();
            assert!(error.to_string().contains("is a symlink"), "{error}");
        }
        assert_eq!(names(place.path()), ["out"]);
        assert_eq!(names(&out), ["up"]);
    }

    #[tokio::test]
    async fn nothing_is_left_if_one_file_fails() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        fs::create_dir_all(out.join("b")).unwrap();
        fs::write(out.join("a"), "old").unwrap();
        let error = pull_files(&titled(&["a", "b"]), &out, &PullOptions { overwrite: true }).await.unwrap_err();
        assert!(error.to_string().contains("cannot replace b"), "{error}");
        assert_eq!(
            (names(&out), fs::read_to_string(out.join("a")).unwrap()),
            (vec!["a".into(), "b".into()], "old".into())
        );
        let mut artifact = ArtifactBuilder::new("application/vnd.x");
        let mut layer = Descriptor::of("text/plain".into(), b"missing");
        layer.annotations.insert(TITLE, "c");
        artifact.layer(layer);
        let root = artifact.finish(&(Arc::new(Memory::new()) as Arc<dyn Source>)).unwrap();
        assert!(pull_files(&root, &out, &PullOptions::default()).await.is_err());
        assert_eq!(names(&out), ["a", "b"]);
    }
}
