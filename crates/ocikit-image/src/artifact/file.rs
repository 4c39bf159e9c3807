use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ocikit_archive::Compression;
use ocikit_archive::layer::{self, Entry, FileKind, Kind, Metadata, Time, Writer};
use ocikit_spec::{Annotations, Descriptor, Digest, MediaType};

use super::title::path_of_title;
use super::{CONTENT_DIGEST, CONTENT_UNPACK};
use crate::blob_file::BlobFile;
use crate::bridge::blocking;
use crate::error::{Error, Result};
use crate::root::Layer;

/// The media type of the config of an artifact whose user states none, as oras-go writes it.
pub const UNKNOWN_CONFIG: &str = "application/vnd.unknown.config.v1+json";

/// `org.opencontainers.image.title`: the name of the file in a layer.
pub(super) const TITLE: &str = "org.opencontainers.image.title";

/// A file or directory that becomes a layer of an artifact, by the conventions of oras. Its text form is `FILE[:TYPE]`:
/// the last colon begins the media type, and `FILE:` is a file whose name has a colon.
///
/// ```
/// use ocikit_image::ArtifactFile;
///
/// let file: ArtifactFile = "sbom.json:application/spdx+json".parse().unwrap();
/// assert_eq!(file.path.to_str(), Some("sbom.json"));
/// assert_eq!(file.media_type.unwrap().as_str(), "application/spdx+json");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ArtifactFile {
    /// The file or directory.
    pub path: PathBuf,
    /// The media type. By default that of a tar layer, compressed for a directory, as oras has it.
    pub media_type: Option<MediaType>,
    /// The name in the artifact. By default the path; of an absolute path and one that leads upwards, the last part.
    pub title: Option<String>,
    /// Annotations of the layer, in addition to its title.
    pub annotations: Annotations,
}

impl ArtifactFile {
    /// Returns a file or directory with the default media type and title.
    pub fn new(path: impl Into<PathBuf>) -> ArtifactFile {
        ArtifactFile { path: path.into(), media_type: None, title: None, annotations: Annotations::new() }
    }

    /// Returns the name in the artifact.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a name that no artifact can have: one that is not UTF-8, has control characters or leads
    /// out of its directory.
    pub fn title(&self) -> Result<String> {
        let refuse = |what: String| Error::Unsupported { place: self.path.display().to_string(), what };
        let chosen = match &self.title {
            Some(title) => title.clone(),
            None => {
                let path =
                    Some(self.path.as_path()).filter(|path| path.to_str().is_some_and(|it| path_of_title(it).is_ok()));
                let name = path.or_else(|| self.path.file_name().map(Path::new));
                name.and_then(Path::to_str).unwrap_or_default().to_owned()
            }
        };
        match path_of_title(&chosen) {
            Ok(path) => Ok(path.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/")),
            Err(problem) => Err(refuse(format!("the title `{chosen}` cannot be used: {problem}"))),
        }
    }

    /// Reads the file once and returns it as a layer with its title. A directory becomes a compressed tar in a temporary
    /// file: owners are left out, and every entry has the modification time `modified` in seconds since 1970, so that the
    /// bytes depend only on the contents.
    ///
    /// # Errors
    ///
    /// As [`ArtifactFile::title`]; [`Error::Failed`] if something cannot be read, [`Error::Unsupported`] for a directory with
    /// devices, pipes or sockets.
    pub async fn layer(&self, modified: u64) -> Result<Layer> {
        let title = self.title()?;
        let is_directory = {
            let path = self.path.clone();
            blocking(move || fs::metadata(&path).map_err(|error| Error::failed("read", path.display(), error)))
                .await?
                .is_dir()
        };
        let (blob, default, tar) = match is_directory {
            false => (BlobFile::open(&self.path).await?, MediaType::OCI_LAYER, None),
            true => {
                let (path, prefix) = (self.path.clone(), title.clone());
                let (file, tar) = blocking(move || pack(&path, &prefix, modified)).await?;
                (BlobFile::of(self.path.display().to_string(), file).await?, MediaType::OCI_LAYER_GZIP, Some(tar))
            }
        };
        let media_type = self.media_type.clone().unwrap_or(default);
        let mut descriptor = Descriptor { media_type, ..blob.descriptor().clone() };
        let mut annotations: Vec<(String, String)> =
            self.annotations.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        if let Some(tar) = tar {
            annotations.push((CONTENT_DIGEST.to_owned(), tar.to_string()));
            annotations.push((CONTENT_UNPACK.to_owned(), "true".to_owned()));
        }
        annotations.push((TITLE.to_owned(), title));
        // Go sorts the keys of maps.
        annotations.sort();
        descriptor.annotations = annotations.into_iter().collect();
        Ok(Layer::at(Arc::new(blob), descriptor))
    }
}

impl FromStr for ArtifactFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<ArtifactFile, Self::Err> {
        Ok(match text.rsplit_once(':') {
            Some((path, media_type)) => ArtifactFile {
                media_type: (!media_type.is_empty()).then(|| MediaType::new(media_type)),
                ..ArtifactFile::new(path)
            },
            None => ArtifactFile::new(text),
        })
    }
}

/// Writes a directory to an unnamed temporary file, as a tar compressed with gzip whose names begin with a prefix. Returns
/// the digest of the tar.
fn pack(directory: &Path, prefix: &str, modified: u64) -> Result<(File, Digest)> {
    let failed = |path: &Path, error: io::Error| Error::failed("read", path.display(), error);
    let cannot_write = |error: io::Error| Error::failed("write", "a temporary file", error);
    let file = tempfile::tempfile().map_err(cannot_write)?;
    let mut layer = Writer::new(&Compression::Gzip.into(), file).map_err(|error| Error::broken(prefix, error))?;
    // Entries in the order of Go's `filepath.Walk`: a directory, then its contents by name.
    let mut pending = vec![(directory.to_owned(), prefix.as_bytes().to_vec())];
    while let Some((path, name)) = pending.pop() {
        // The given path may be a symlink to a directory; those inside are kept as they are.
        let found = if path == directory { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let found = found.map_err(|error| failed(&path, error))?;
        let (kind, contents) = if found.is_dir() {
            let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let mut names: Vec<_> =
                entries.map_err(|error| failed(&path, error))?.into_iter().map(|entry| entry.file_name()).collect();
            names.sort_by(|left, right| right.cmp(left));
            for child in names {
                let child_name = [&name[..], b"/", child.as_encoded_bytes()].concat();
                pending.push((path.join(&child), child_name));
            }
            (FileKind::Directory, None)
        } else if found.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| failed(&path, error))?;
            (FileKind::Symlink { target: target.as_os_str().as_encoded_bytes().into() }, None)
        } else if found.is_file() {
            let contents = File::open(&path).map_err(|error| failed(&path, error))?;
            (FileKind::Regular { size: found.len() }, Some(contents))
        } else {
            let what = "it is a device, pipe or socket, which an artifact cannot hold".to_owned();
            return Err(Error::Unsupported { place: path.display().to_string(), what });
        };
        let metadata = Metadata {
            mode: permissions(&found),
            modified: Time { seconds: i64::try_from(modified).unwrap_or(i64::MAX), nanoseconds: 0 },
            ..Metadata::default()
        };
        let entry = Entry { path: layer::Path::confined(&name), kind: Kind::File(kind), metadata };
        let written = match contents {
            Some(contents) => layer.append(&entry, contents),
            None => layer.append(&entry, io::empty()),
        };
        written.map_err(|error| Error::broken(path.display(), error))?;
    }
    let (file, written) = layer.finish().map_err(|error| Error::broken(prefix, error))?;
    Ok((file, written.diff_id))
}

#[cfg(unix)]
fn permissions(found: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o777
}

#[cfg(not(unix))]
fn permissions(found: &fs::Metadata) -> u32 {
    if found.is_dir() { 0o755 } else { 0o644 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_begins_the_type() {
        for (text, path, media_type) in [
            ("a.txt", "a.txt", None),
            ("a.txt:text/plain", "a.txt", Some("text/plain")),
            ("hi:txt:", "hi:txt", None),
            ("hi:txt:text/plain", "hi:txt", Some("text/plain")),
            ("dir/", "dir/", None),
        ] {
            let file: ArtifactFile = text.parse().unwrap();
            assert_eq!((file.path.to_str(), file.media_type), (Some(path), media_type.map(MediaType::new)), "{text}");
        }
    }

    #[test]
    fn titles_are_relative() {
        for (path, title) in [
            ("a.txt", Some("a.txt")),
            ("./sub/a.txt", Some("sub/a.txt")),
            ("/tmp/a.txt", Some("a.txt")),
            ("../../a.txt", Some("a.txt")),
            ("dir/", Some("dir")),
            ("..", None),
            ("a\nb", None),
        ] {
            assert_eq!(ArtifactFile::new(path).title().ok().as_deref(), title, "{path}");
        }
    }

    #[tokio::test]
    async fn a_directory_has_the_same_bytes_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d");
        fs::create_dir_all(path.join("sub")).unwrap();
        fs::write(path.join("sub/b"), "b").unwrap();
        fs::write(path.join("a"), "a").unwrap();
        let first = ArtifactFile::new(&path).layer(0).await.unwrap();
        File::open(path.join("a")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let second = ArtifactFile::new(&path).layer(0).await.unwrap();
        assert_eq!(first.descriptor(), second.descriptor());
        assert_eq!(first.descriptor().media_type, MediaType::OCI_LAYER_GZIP);
        assert_eq!(first.descriptor().annotations.get(TITLE), Some("d"));
        assert_eq!(first.entries().await.unwrap().iter().count(), 4);
    }
}
