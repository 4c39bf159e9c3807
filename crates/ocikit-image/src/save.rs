use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::body::Body;
use crate::bridge::consume;
use crate::error::{Error, Result};

impl Body {
    /// Writes all bytes to a file, which appears or is replaced only when they are complete and, for a body of
    /// [`SourceExt::open`](crate::SourceExt::open), have the right digest. Returns their number. A symlink is followed.
    /// The memory needed does not depend on the length.
    ///
    /// If the process is killed, a temporary file named `.ocikit-*` may be left beside the target.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use ocikit_image::{Memory, SourceExt};
    /// use ocikit_spec::{Descriptor, MediaType};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("sbom.json");
    /// let memory = Memory::new().with_bytes(&b"{}"[..]);
    /// let body = memory.open(&Descriptor::of(MediaType::OCTET_STREAM, b"{}")).await?;
    /// assert_eq!(body.save(&path).await?, 2);
    /// assert_eq!(std::fs::read(&path)?, b"{}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the source; [`Error::Failed`] if the file cannot be written, is a directory or is not a regular file, or if
    /// the source returns fewer or more bytes than it stated. The target is then unchanged.
    pub async fn save(self, path: impl Into<PathBuf>) -> Result<u64> {
        let (path, length) = (path.into(), self.length());
        consume(self, move |chunks| {
            let failed = |error| Error::failed("write", path.display(), error);
            let target = target(&path).map_err(failed)?;
            let mut file = temporary_beside(&target).map_err(failed)?;
            let mut written = 0_u64;
            for chunk in chunks {
                let chunk = chunk?;
                file.write_all(&chunk).map_err(failed)?;
                written += chunk.len() as u64;
            }
            if written != length {
                return Err(failed(io::Error::other(format!("the source returned {written} of {length} bytes"))));
            }
            if target.exists() {
                // After a crash, the name must not lead to an incomplete file.
                file.as_file().sync_all().map_err(failed)?;
            }
            file.persist(&target).map_err(|error| failed(error.error))?;
            Ok(written)
        })
        .await
    }
}

/// Returns the file to replace: that which a symlink leads to.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => Err(io::Error::other("it is not a regular file")),
        Ok(_) => fs::canonicalize(path),
        Err(_) => Ok(path.to_owned()),
    }
}

/// Creates a temporary file in the directory of another, with the permissions of any new file.
fn temporary_beside(target: &Path) -> io::Result<NamedTempFile> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ocikit-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ocikit_spec::{Descriptor, MediaType};

    use super::*;

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[tokio::test]
    async fn a_file_appears_complete_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let right = Descriptor::of(MediaType::OCTET_STREAM, b"abc");
        let wrong = || Body::from(Bytes::from_static(b"abx")).verified(&right, "here");
        assert!(matches!(wrong().save(&path).await, Err(Error::Mismatch { .. })));
        assert_eq!(names(directory.path()), 0);
        let body = Body::from(Bytes::from_static(b"abc")).verified(&right, "here");
        assert_eq!(body.save(&path).await.unwrap(), 3);
        assert!(wrong().save(&path).await.is_err());
        assert_eq!((fs::read(&path).unwrap(), names(directory.path())), (b"abc".to_vec(), 1));
        // A body that is not verified has at least the length that its source stated.
        let short = Body::new(5, futures::stream::iter([Ok(Bytes::from_static(b"abc"))]));
        assert!(matches!(short.save(&path).await, Err(Error::Failed { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert!(Body::from(Bytes::new()).save(directory.path()).await.is_err());
        assert!(Body::from(Bytes::new()).save(directory.path().join("gone/file")).await.is_err());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_symlink_is_kept_and_permissions_are_those_of_any_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("plain"), b"").unwrap();
        std::os::unix::fs::symlink("plain", path("link")).unwrap();
        Body::from(Bytes::from_static(b"new")).save(path("link")).await.unwrap();
        assert_eq!(fs::read(path("plain")).unwrap(), b"new");
        assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
        Body::from(Bytes::new()).save(path("saved")).await.unwrap();
        fs::write(path("other"), b"").unwrap();
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!(mode("saved"), mode("other"));
    }
}
