//! BuildKit in a directory of the user, installed from an image.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

#[cfg(unix)]
use ocikit_archive::unpack::{Owners, Staging, UnpackOptions};
#[cfg(unix)]
use ocikit_image::Image;
use ocikit_spec::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
#[cfg(unix)]
use crate::programs::{self, safety_problem};

/// The directory that holds installations of BuildKit, each under the digest of its image.
///
/// Only programs are installed: `buildctl`, `buildkitd`, `runc`, `rootlesskit` and those whose names begin with `buildkit-`. They
/// must be statically linked, as those of the image `moby/buildkit` are.
///
/// ```no_run
/// # async fn example(image: ocikit_image::Image) -> Result<(), ocikit_build::Error> {
/// use ocikit_build::{InstallationSource, Installations};
///
/// let installations = Installations::at("/home/me/.cache/ocikit/buildkit-programs");
/// let source = InstallationSource::of(image.digest(), "localhost:5000/moby/buildkit");
/// let installed = installations.install(&image, &source).await?;
/// println!("{} {}", installed.version, installed.digest);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Installations {
    directory: PathBuf,
}

/// An image that BuildKit is installed from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InstallationSource {
    /// The digest that the user asked for, of the image or of an index that lists it.
    pub digest: Digest,
    /// The location of the image, for display.
    pub location: String,
    /// The platform that the user asked for.
    pub platform: Platform,
}

/// An installed BuildKit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Installation {
    /// The digest of its image.
    pub digest: Digest,
    /// Its version: `v0.26.2`.
    pub version: String,
    /// Where it came from.
    pub source: InstallationSource,
    /// The directory of its programs.
    pub programs: PathBuf,
    /// Why it cannot be used: other users can change it. `None` if it can.
    pub problem: Option<String>,
    directory: PathBuf,
    /// The time of the last `install` of this image.
    installed: SystemTime,
}

/// The description of an installation, in [`DESCRIPTION`].
#[derive(Serialize, Deserialize)]
struct Description {
    image: Digest,
    version: String,
    digest: Digest,
    location: String,
    platform: String,
}

/// The names in the directory of an installation.
const DESCRIPTION: &str = "installation.json";
const PROGRAMS: &str = "bin";
const LOCK: &str = "lock";

/// The maximum size of a description in bytes.
const MAX_DESCRIPTION_BYTES: u64 = 64 << 10;

/// How often an installation that waits for another one looks whether that has ended.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The end of the names of temporary directories.
const TEMPORARY: &str = ".tmp";

impl InstallationSource {
    /// Returns the source with this digest, for the platform of this machine.
    pub fn of(digest: Digest, location: impl Into<String>) -> InstallationSource {
        InstallationSource { digest, location: location.into(), platform: Platform::of_this_machine() }
    }

    /// Returns the source for another platform.
    #[must_use]
    pub fn for_platform(self, platform: Platform) -> InstallationSource {
        InstallationSource { platform, ..self }
    }
}

impl Installations {
    /// Returns the installations in a directory, which need not exist.
    pub fn at(directory: impl Into<PathBuf>) -> Installations {
        Installations { directory: directory.into() }
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns all installations; the one that was installed last comes first, and is used. Anything else in the directory is left
    /// out.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Installation>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::failed("read the directory of installed BuildKits")(error)),
        };
        let mut found: Vec<_> = entries.filter_map(|entry| Installation::read(&entry.ok()?.path())).collect();
        found.sort_by(|a, b| (b.installed, &b.digest).cmp(&(a.installed, &a.digest)));
        Ok(found)
    }

    /// Returns the installation that is used: the last one without a problem.
    ///
    /// # Errors
    ///
    /// As [`Installations::list`].
    pub fn current(&self) -> Result<Option<Installation>> {
        Ok(self.list()?.into_iter().find(|found| found.problem.is_none()))
    }

    /// Returns the installation from a source, if there is one, and makes it the one that is used.
    ///
    /// # Errors
    ///
    /// As [`Installations::list`], and [`Error::Failed`] if its description cannot be written.
    pub fn select(&self, source: &InstallationSource) -> Result<Option<Installation>> {
        let is_same = |found: &Installation| {
            [found.source.digest, found.digest].contains(&source.digest)
                && found.source.platform == source.platform
                && found.problem.is_none()
        };
        let Some(found) = self.list()?.into_iter().find(is_same) else { return Ok(None) };
        found.touch()?;
        Ok(Some(found))
    }

    /// Installs BuildKit from an image: unpacks it, takes its programs, and checks that they run on this machine. The
    /// installation appears when it is complete. Another installation that runs at the same time is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Unfit`] if the image lacks a program or a program does not run, [`Error::Failed`] for the file system, and those of
    /// [`Image::unpack`]. Nothing is then installed.
    #[cfg(unix)]
    pub async fn install(&self, image: &Image, source: &InstallationSource) -> Result<Installation> {
        let target = self.directory.join(directory_name(&image.digest()));
        create_private(&self.directory).map_err(Error::failed("create the directory of installed BuildKits"))?;
        let _lock = self.lock().await?;
        self.remove_stale();
        if let Some(found) = Installation::read(&target).filter(|found| found.problem.is_none()) {
            found.touch()?;
            return Ok(found);
        }
        let unpacked = stage(&self.directory.join("image"))?;
        let options = UnpackOptions::default().owners(Owners::Current);
        let root = unpacked.path().join("rootfs");
        image.unpack(&root, &options).await?;
        let (digest, source) = (image.digest(), source.clone());
        let work = tokio::task::spawn_blocking(move || -> Result<PathBuf> {
            let staged = stage(&target)?;
            let programs = staged.path().join(PROGRAMS);
            programs::collect(&root, &programs, &source.location)?;
            drop(unpacked);
            let version = programs::check(&programs, &source.location)?;
            File::create(staged.path().join(LOCK)).map_err(Error::failed("write the installation"))?;
            let InstallationSource { digest: requested, location, platform } = source;
            let platform = platform.to_string();
            let description = Description { image: digest, version, digest: requested, location, platform };
            write_description(&staged.path(), &description)?;
            staged.commit().map_err(|error| Error::failed("complete the installation")(error.into()))?;
            Ok(target)
        });
        let target = work.await.map_err(|error| Error::failed("install BuildKit")(io::Error::other(error)))??;
        let vanished = || io::Error::from(io::ErrorKind::NotFound);
        Installation::read(&target).ok_or_else(|| Error::failed("read the installation")(vanished()))
    }

    /// Removes an installation.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if a build uses it, [`Error::Failed`] if it cannot be removed.
    pub async fn remove(&self, installation: &Installation) -> Result<()> {
        let failed = Error::failed("remove the installation");
        let _lock = self.lock().await?;
        let lock = File::open(installation.directory.join(LOCK)).map_err(&failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { digest: installation.digest }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Under a temporary name, it cannot be found half removed.
        let name = format!(".{}.removed{TEMPORARY}", directory_name(&installation.digest));
        let removed = self.directory.join(name);
        fs::rename(&installation.directory, &removed).map_err(&failed)?;
        fs::remove_dir_all(removed).map_err(failed)
    }

    /// Locks the directory against other processes that install or remove.
    async fn lock(&self) -> Result<File> {
        let failed = Error::failed("lock the directory of installed BuildKits");
        let file = File::create(self.directory.join(LOCK)).map_err(&failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Removes what processes left that were killed. The lock is held, so no other process writes.
    #[cfg(unix)]
    fn remove_stale(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(TEMPORARY) {
                // Space is lost if that fails, nothing else.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Installation {
    /// Returns the path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Reads a directory. Returns `None` if it is not a complete installation.
    fn read(directory: &Path) -> Option<Installation> {
        let path = directory.join(DESCRIPTION);
        let mut text = Vec::new();
        File::open(&path).ok()?.take(MAX_DESCRIPTION_BYTES).read_to_end(&mut text).ok()?;
        let description: Description = serde_json::from_slice(&text).ok()?;
        let Description { image, version, digest, location, platform } = description;
        if directory.file_name()?.to_str()? != directory_name(&image) {
            return None;
        }
        Some(Installation {
            digest: image,
            version,
            source: InstallationSource { digest, location, platform: platform.parse().ok()? },
            programs: directory.join(PROGRAMS),
            problem: safety_problem(&[directory.parent()?, directory, &directory.join(PROGRAMS), &path]),
            directory: directory.to_owned(),
            installed: path.metadata().and_then(|found| found.modified()).ok()?,
        })
    }

    /// Makes it the one that was installed last.
    fn touch(&self) -> Result<()> {
        let InstallationSource { digest, location, platform } = self.source.clone();
        let (version, platform) = (self.version.clone(), platform.to_string());
        let description = Description { image: self.digest, version, digest, location, platform };
        write_description(&self.directory, &description)
    }

    /// Locks the installation while it is used, so that it is not removed.
    pub(crate) fn hold(&self) -> Result<File> {
        let failed = Error::failed("lock the installed BuildKit");
        let lock = File::open(self.directory.join(LOCK)).map_err(&failed)?;
        match lock.try_lock_shared() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(failed(io::Error::other("it is being removed"))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn directory_name(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

#[cfg(unix)]
fn stage(target: &Path) -> Result<Staging> {
    Staging::beside(target).map_err(|error| Error::failed("create a directory for the installation")(error.into()))
}

fn write_description(directory: &Path, description: &Description) -> Result<()> {
    let failed = Error::failed("write the description of the installation");
    let file = tempfile::NamedTempFile::new_in(directory).map_err(&failed)?;
    serde_json::to_writer_pretty(&file, description).map_err(|error| failed(error.into()))?;
    file.persist(directory.join(DESCRIPTION)).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(not(unix))]
fn safety_problem(_: &[&Path]) -> Option<String> {
    None
}

/// Creates a directory that only this user can enter, and the directories above it.
#[cfg(unix)]
fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, digest: &Digest, version: &str) -> PathBuf {
        let path = directory.join(directory_name(digest));
        create_private(&path.join(PROGRAMS)).unwrap();
        File::create(path.join(LOCK)).unwrap();
        let description = Description {
            image: *digest,
            version: version.to_owned(),
            digest: *digest,
            location: "localhost:5000/buildkit".to_owned(),
            platform: "linux/amd64".to_owned(),
        };
        write_description(&path, &description).unwrap();
        path
    }

    #[tokio::test]
    async fn the_last_installation_is_used() {
        let place = tempfile::tempdir().unwrap();
        let installations = Installations::at(place.path());
        assert!(Installations::at(place.path().join("missing")).list().unwrap().is_empty());
        let digests = [b"one", b"two"].map(|text| Digest::sha256_of(text));
        write(place.path(), &digests[0], "v1");
        std::thread::sleep(Duration::from_millis(10));
        write(place.path(), &digests[1], "v2");
        fs::create_dir(place.path().join(".half.tmp")).unwrap();
        fs::create_dir(place.path().join("sha256-without-description")).unwrap();
        let versions = || installations.list().unwrap().into_iter().map(|found| found.version).collect::<Vec<_>>();
        assert_eq!(versions(), ["v2", "v1"]);

        let platform = || "linux/amd64".parse::<Platform>().unwrap();
        let source = InstallationSource::of(digests[0], "elsewhere").for_platform(platform());
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(installations.select(&source).unwrap().unwrap().version, "v1");
        assert_eq!(versions(), ["v1", "v2"]);
        let other = source.clone().for_platform("linux/arm64".parse().unwrap());
        assert!(installations.select(&other).unwrap().is_none());

        let first = installations.current().unwrap().unwrap();
        let held = first.hold().unwrap();
        assert!(matches!(installations.remove(&first).await, Err(Error::InUse { .. })));
        drop(held);
        installations.remove(&first).await.unwrap();
        assert_eq!(versions(), ["v2"]);
        installations.remove_stale();
        assert!(!place.path().join(".half.tmp").exists());
    }

    #[test]
    fn an_installation_that_others_can_change_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = write(place.path(), &Digest::sha256_of(b"one"), "v1");
        fs::set_permissions(path.join(PROGRAMS), PermissionsExt::from_mode(0o777)).unwrap();
        let installations = Installations::at(place.path());
        assert!(installations.current().unwrap().is_none());
        let found = installations.list().unwrap();
        assert!(found[0].problem.as_ref().is_some_and(|problem| problem.contains("other users")), "{found:?}");
    }
}
