//! A directory that appears under its name when it is complete.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RawMode, fchmod, flock, openat, unlinkat};
use rustix::io::Errno;

use crate::error::Result;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A temporary directory that is removed with everything in it when it is dropped. It is locked until then, so that the next
/// process finds those that a killed process has left, and removes them.
#[derive(Debug)]
pub struct TemporaryDirectory {
    parent: PathBuf,
    name: String,
    /// Held for its lock.
    _lock: OwnedFd,
}

/// The number of names that are tried.
const ATTEMPTS: u32 = 1000;

/// The number in the name of the next directory of this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The end of the names of temporary directories.
const ENDING: &str = ".tmp";

impl TemporaryDirectory {
    /// Creates a directory in a parent directory, whose name starts with a prefix and ends with `.tmp`. What a killed process
    /// has left under such a name is removed before, unless it has a file whose name starts with `keep`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) of the file system.
    pub fn create(parent: &Path, prefix: &str, keep: Option<&str>) -> Result<TemporaryDirectory> {
        remove_abandoned(parent, &[prefix], keep);
        TemporaryDirectory::new(parent, prefix)
    }

    /// Creates a directory as [`TemporaryDirectory::create`], and removes what killed processes have left under a name that
    /// starts with any of several prefixes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) of the file system.
    pub fn create_among(parent: &Path, prefix: &str, abandoned: &[&str]) -> Result<TemporaryDirectory> {
        remove_abandoned(parent, abandoned, None);
        TemporaryDirectory::new(parent, prefix)
    }

    fn new(parent: &Path, prefix: &str) -> Result<TemporaryDirectory> {
        for _ in 0..ATTEMPTS {
            // A name is used once, because the watchdog of another program may remove an earlier directory late.
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{prefix}{}-{number}{ENDING}", std::process::id());
            let path = parent.join(&name);
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            }
            // Until it is locked, another process may take it for abandoned.
            let Ok(lock) = rustix::fs::open(&path, DIRECTORY, Mode::empty()) else { continue };
            // Some file systems have no locks; then no process removes anything.
            if flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) || !is_at(&lock, &path)
            {
                continue;
            }
            return Ok(TemporaryDirectory { parent: parent.to_owned(), name, _lock: lock });
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists).into())
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed stays under the temporary name, and a committed directory has another one.
        if let Ok(parent) = rustix::fs::open(&self.parent, DIRECTORY, Mode::empty()) {
            let _ = remove_all(&parent, &self.name);
        }
    }
}

/// Returns whether a path still leads to an open directory.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (rustix::fs::fstat(directory), rustix::fs::lstat(path)) else { return false };
    (open.st_dev, open.st_ino) == (there.st_dev, there.st_ino)
}

/// Returns whether an open directory belongs to this user and others cannot write to it. Another user could move a directory
/// while what is in it is removed.
fn is_own(directory: &OwnedFd) -> bool {
    let writable_by_others = Mode::WGRP | Mode::WOTH;
    rustix::fs::fstat(directory).is_ok_and(|found| {
        found.st_uid == rustix::process::geteuid().as_raw()
            && !Mode::from_raw_mode(found.st_mode).intersects(writable_by_others)
    })
}

/// Returns whether something is mounted below a directory, whose files are not temporary. Systems without the list of mounts
/// have none.
fn has_mounts(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // Spaces and some other bytes are escaped. A path that has them is compared up to the first one.
    points.map(|point| point.split('\\').next().unwrap_or(point)).any(|point| Path::new(point).starts_with(&path))
}

/// Removes temporary directories of this user that no process has locked. Failures are ignored: the names stay as they are.
fn remove_abandoned(parent: &Path, prefixes: &[&str], keep: Option<&str>) {
    let has_prefix = |name: &str, prefix: &str| {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let middle = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(ENDING));
        middle
            .and_then(|middle| middle.split_once('-'))
            .is_some_and(|(process, attempt)| number(process) && number(attempt))
    };
    let is_temporary = |name: &str| prefixes.iter().any(|prefix| has_prefix(name, prefix));
    let Ok(entries) = fs::read_dir(parent) else { return };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names.filter(|name| is_temporary(name)) {
        let path = parent.join(&name);
        let Ok(directory) = rustix::fs::open(&path, DIRECTORY, Mode::empty()) else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() || !is_at(&directory, &path) {
            continue;
        }
        if !is_own(&directory) || has_mounts(&path) {
            continue;
        }
        let is_kept = |keep: &str| {
            fs::read_dir(&path).map_or(true, |mut entries| {
                entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(keep)))
            })
        };
        if !keep.is_some_and(is_kept)
            && let Ok(parent) = rustix::fs::open(parent, DIRECTORY, Mode::empty())
        {
            let _ = remove_all(&parent, &name);
        }
    }
}

/// A temporary directory beside a target, which it replaces when it is [committed](Staging::commit). Dropped before, it is removed
/// with everything in it.
#[derive(Debug)]
pub struct Staging {
    directory: TemporaryDirectory,
    target: PathBuf,
}

impl Staging {
    /// Creates the temporary directory. The target must not exist, or be an empty directory; symlinks in its path are followed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) of the kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the target exists and is not an empty
    /// directory, and those of the file system.
    pub fn beside(target: &Path) -> Result<Staging> {
        let target = match fs::canonicalize(target) {
            Ok(found) => {
                if fs::read_dir(&found)?.next().is_some() {
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the directory is not empty").into());
                }
                found
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
                if fs::symlink_metadata(target).is_ok() {
                    return Err(
                        io::Error::new(io::ErrorKind::AlreadyExists, "it is a symlink to a missing file").into()
                    );
                }
                fs::canonicalize(parent)?.join(name)
            }
            Err(error) => return Err(error.into()),
        };
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root directory cannot be replaced").into());
        };
        let shown: String = name.to_string_lossy().chars().take(40).collect();
        let directory = TemporaryDirectory::create(parent, &format!(".{shown}."), None)?;
        Ok(Staging { directory, target })
    }

    /// Returns the path of the temporary directory.
    pub fn path(&self) -> PathBuf {
        self.directory.path()
    }

    /// Returns the path that the directory gets.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the directory its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the target was created in the meantime and is not empty, or is a mount point.
    pub fn commit(self) -> Result<()> {
        match fs::rename(self.path(), &self.target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let what = "the directory is a mount point or in use; name a new directory below it";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, what).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Removes a directory with everything in it. Symlinks are removed, not followed. At most two directories are open at a time, so
/// that a deep tree does not exhaust them.
fn remove_all(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let mut above: Vec<Vec<u8>> = Vec::new();
    let mut at = openat(parent, name, DIRECTORY, Mode::empty())?;
    loop {
        // A directory without permissions belongs to an image whose unpacking failed at the very end.
        let _ = fchmod(&at, Mode::from_raw_mode(0o700 as RawMode));
        match empty(&at)? {
            Some(child) => {
                let next = open_child(&at, &child)?;
                above.push(child);
                at = next;
            }
            None => {
                let Some(child) = above.pop() else { break };
                let up = openat(&at, "..", DIRECTORY, Mode::empty())?;
                unlinkat(&up, &*child, AtFlags::REMOVEDIR)?;
                at = up;
            }
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn open_child(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    match openat(at, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            openat(at, name, DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
}

/// Removes the files and empty directories of a directory. Returns the name of the first directory that is not empty.
fn empty(at: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let removed = match entry.file_type() {
            FileType::Directory => Err(Errno::ISDIR),
            _ => unlinkat(at, name, AtFlags::empty()),
        };
        match removed {
            Err(Errno::ISDIR | Errno::PERM) => match unlinkat(at, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_vec())),
                removed => removed?,
            },
            removed => removed?,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_when_it_is_committed() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("target");
        let staging = Staging::beside(&target).unwrap();
        fs::write(staging.path().join("x"), "x").unwrap();
        assert!(!target.exists());
        staging.commit().unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        let error = Staging::beside(&target).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        fs::remove_file(target.join("x")).unwrap();
        Staging::beside(&target).unwrap().commit().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        Staging::beside(&place.path().join("file")).unwrap_err();
        std::os::unix::fs::symlink("missing", place.path().join("link")).unwrap();
        Staging::beside(&place.path().join("link")).unwrap_err();
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let used = TemporaryDirectory::create(place.path(), ".x-", None).unwrap();
        let make = |name: &str, mode: u32| {
            fs::create_dir(path(name)).unwrap();
            fs::set_permissions(path(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        for name in [".x-1-0.tmp", ".x-2-0.tmp", ".x-1.tmp", ".x-a-0.tmp", ".y-1-0.tmp"] {
            make(name, 0o700);
        }
        // Others could change it while it is removed.
        make(".x-3-0.tmp", 0o777);
        fs::write(path(".x-1-0.tmp").join("half"), "").unwrap();
        fs::write(path(".x-2-0.tmp").join("old-1"), "").unwrap();
        let other = TemporaryDirectory::create(place.path(), ".x-", Some("old-")).unwrap();
        assert!(!path(".x-1-0.tmp").exists());
        for name in [".x-2-0.tmp", ".x-3-0.tmp", ".x-1.tmp", ".x-a-0.tmp", ".y-1-0.tmp"] {
            assert!(path(name).exists(), "{name}");
        }
        assert!(used.path().exists() && other.path().exists() && used.path() != other.path());
        drop((used, other));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 5);
        // Any of several prefixes.
        drop(TemporaryDirectory::create_among(place.path(), ".z-", &[".y-", ".z-"]).unwrap());
        assert!(!path(".y-1-0.tmp").exists() && path(".x-2-0.tmp").exists());
    }

    #[test]
    fn dropped_it_is_removed_without_following_links() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("kept")).unwrap();
        fs::write(place.path().join("kept/file"), "").unwrap();
        let staging = Staging::beside(&place.path().join("target")).unwrap();
        let deep = std::iter::repeat_n("directory", 300).fold(staging.path(), |path, name| path.join(name));
        fs::create_dir_all(&deep).unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir_all(staging.path().join(name).join("deep")).unwrap();
            fs::write(staging.path().join(name).join("deep/file"), "").unwrap();
        }
        std::os::unix::fs::symlink(place.path().join("kept"), staging.path().join("link")).unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(place.path().join("kept/file").exists());
    }
}
