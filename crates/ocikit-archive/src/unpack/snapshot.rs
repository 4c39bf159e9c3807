//! The state of the files below a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use ocikit_spec::{Algorithm, Digest, Hasher};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, chmodat, flistxattr, lgetxattr, llistxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::{FileKind, Last, Metadata, Path, Resolver, Time};
use crate::unpack::directories::{Directories, failed};
use crate::unpack::owners::{IdRange, Owners, ROOTLESS_XATTR, current_user, parse_rootless_record};

/// The state of all files below a directory, by path; the root has the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) files: BTreeMap<Path, State>,
}

/// The state of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its type. A record may not have the numbers of a device, which are 0 then.
    pub kind: FileKind,
    /// Its metadata, with the owner on this machine.
    pub metadata: Metadata,
    /// The number of its names; of directories, that of subdirectories and 2.
    pub links: u64,
    /// The SHA-256 digest of its contents, if it is known.
    pub digest: Option<Digest>,
    /// Device and inode, which are the same for all names of a file.
    pub(crate) inode: (u64, u64),
    /// The size that the file system reports.
    pub(crate) size: u64,
}

/// An attribute that security modules and not images decide about.
const HOST_XATTRS: [&str; 2] = ["security.selinux", "security.apparmor"];

/// The maximum size of an attribute in bytes, as in Linux.
const MAX_XATTR_BYTES: usize = 64 << 10;

const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// An open directory tree whose files are read without following symlinks.
#[derive(Debug)]
pub struct OpenTree {
    directories: Directories,
}

impl OpenTree {
    /// Opens a directory. Symlinks in its own path are followed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be opened.
    pub fn open(path: &std::path::Path) -> Result<OpenTree> {
        Ok(OpenTree { directories: Directories::below(path)? })
    }

    /// Returns the state of all files, without their digests.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if a file cannot be read.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let mut files = BTreeMap::new();
        let root = Path::root();
        let handle = self.directories.open(&root)?;
        files.insert(root.clone(), state(&handle, b".", &root)?);
        let mut waiting = vec![root];
        while let Some(directory) = waiting.pop() {
            let handle = self.readable(&directory)?;
            for name in names(&handle).map_err(|error| failed("list", &directory, error))? {
                let path = directory.join(&name);
                let state = state(&handle, &name, &path)?;
                if state.kind == FileKind::Directory {
                    waiting.push(path.clone());
                }
                files.insert(path, state);
            }
        }
        Ok(Snapshot { files })
    }

    /// Opens a directory. Its owner may not have the permission to list it, and gets it for this moment.
    fn readable(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        match self.directories.open(path) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                let parent = self.directories.open(&path.parent().unwrap_or_default())?;
                with_permission(&parent, path, 0o500, || self.directories.open(path))
            }
            opened => opened,
        }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if it cannot be opened.
    pub fn file(&mut self, path: &Path) -> Result<File> {
        let parent = self.directories.open(&path.parent().unwrap_or_default())?;
        let open = || openat(&parent, path.name(), FILE, Mode::empty()).map_err(|error| failed("open", path, error));
        match open() {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                with_permission(&parent, path, 0o400, open).map(File::from)
            }
            opened => opened.map(File::from),
        }
    }

    /// Reads a regular file of the tree, whose symlinks are followed as if the tree were the root; `None` if it does not exist or is
    /// something else.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if it cannot be read; of the kind [`FileTooLarge`](io::ErrorKind::FileTooLarge) if it has more than `limit`
    /// bytes.
    pub fn read_inside(&mut self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        let mut resolver = Resolver::new(path, Last::Follow);
        let mut kind = FileKind::Directory;
        while let Some(asked) = resolver.question().cloned() {
            let parent = self.directories.open(&asked.parent().unwrap_or_default())?;
            match statat(&parent, asked.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => kind = state(&parent, asked.name(), &asked)?.kind,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(error) => return Err(failed("read", &asked, error)),
            }
            // Too many symlinks, or a path that goes on after a file.
            if resolver.answer(&kind).is_err() {
                return Ok(None);
            }
        }
        let path = resolver.path().clone();
        if !matches!(kind, FileKind::Regular { .. }) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = self.file(&path)?.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed("read", &path, error))?;
        match bytes.len() as u64 > limit {
            true => Err(failed("read", &path, io::Error::from(io::ErrorKind::FileTooLarge))),
            false => Ok(Some(bytes)),
        }
    }

    /// Computes the digest of a regular file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if it cannot be read.
    pub fn digest(&mut self, path: &Path) -> Result<Digest> {
        digest(self.file(path)?, path)
    }

    /// Computes the digests of regular files, several in parallel.
    ///
    /// # Errors
    ///
    /// As [`OpenTree::digest`].
    pub fn digests(&mut self, paths: impl IntoIterator<Item = Path>) -> Result<BTreeMap<Path, Digest>> {
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_HASHING_THREADS);
        let (sender, receiver) = mpsc::sync_channel::<(Path, File)>(workers);
        let receiver = Mutex::new(receiver);
        let work = || {
            let mut found = Ok(Vec::new());
            loop {
                let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((path, file)) = next else { return found };
                // After a failure the rest is taken without being read, so that the sender does not wait forever.
                if let Ok(digests) = &mut found {
                    match digest(file, &path) {
                        Ok(digest) => digests.push((path, digest)),
                        Err(error) => found = Err(error),
                    }
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let opened = paths.into_iter().try_for_each(|path| {
                let file = self.file(&path)?;
                // The receiver exists as long as the workers.
                let _ = sender.send((path, file));
                Ok(())
            });
            drop(sender);
            let mut digests = BTreeMap::new();
            for thread in threads {
                let found: Result<Vec<_>> = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                digests.extend(found?);
            }
            opened.map(|()| digests)
        })
    }
}

/// The maximum number of files that are hashed in parallel.
const MAX_HASHING_THREADS: usize = 8;

fn digest(mut file: File, path: &Path) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path, error)),
        }
    }
}

impl Snapshot {
    /// Returns the states, ordered by path.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &State)> {
        self.files.iter()
    }

    /// Returns the state of a path.
    pub fn get(&self, path: &Path) -> Option<&State> {
        self.files.get(path)
    }

    /// Sets the digests of files.
    pub fn set_digests(&mut self, digests: &BTreeMap<Path, Digest>) {
        for (path, digest) in digests {
            if let Some(state) = self.files.get_mut(path) {
                state.digest = Some(*digest);
            }
        }
    }

    /// Changes the owners to those in the image.
    ///
    /// # Errors
    ///
    /// [`Error::Unmapped`] if an owner is in no range of a map.
    pub(crate) fn set_container_owners(&mut self, owners: &Owners) -> Result<()> {
        let me = current_user();
        let plain = |id: u32, me: u32| if id == me { 0 } else { id };
        for (path, state) in &mut self.files {
            let (user, group) = (state.metadata.uid as u32, state.metadata.gid as u32);
            let unmapped = |kind, id| Error::Unmapped { kind, id, path: super::directories::shown(path) };
            let (user, group) = match owners {
                Owners::Keep => (user, group),
                Owners::Mapped { users, groups } => (
                    IdRange::to_container(users, user).ok_or_else(|| unmapped("user", user))?,
                    IdRange::to_container(groups, group).ok_or_else(|| unmapped("group", group))?,
                ),
                Owners::Current => (plain(user, me.0), plain(group, me.1)),
                Owners::Rootless => {
                    let record = state.metadata.xattrs.remove(ROOTLESS_XATTR);
                    let record = record.and_then(|record| parse_rootless_record(&record));
                    // The highest ID means that the file itself has the owner.
                    let (recorded_user, recorded_group) = record.unwrap_or((u32::MAX, u32::MAX));
                    let or = |recorded: u32, own: u32| if recorded == u32::MAX { own } else { recorded };
                    (or(recorded_user, plain(user, me.0)), or(recorded_group, plain(group, me.1)))
                }
            };
            (state.metadata.uid, state.metadata.gid) = (user.into(), group.into());
        }
        Ok(())
    }
}

/// Runs an operation on a file to which its owner has no permission, which is added for this moment.
fn with_permission<T>(parent: &OwnedFd, path: &Path, add: u32, operation: impl FnOnce() -> Result<T>) -> Result<T> {
    let at = |error: Errno| failed("open", path, error);
    let before = statat(parent, path.name(), AtFlags::SYMLINK_NOFOLLOW).map_err(at)?;
    let mode = |mode: u32| Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode);
    let before = before.st_mode as u32;
    // There is no call that changes the permissions of a symlink, and none is needed.
    if FileType::from_raw_mode(before as rustix::fs::RawMode) == FileType::Symlink {
        return operation();
    }
    chmodat(parent, path.name(), mode(before | add), AtFlags::empty()).map_err(at)?;
    let done = operation();
    chmodat(parent, path.name(), mode(before), AtFlags::empty()).map_err(at)?;
    done
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn state(directory: &OwnedFd, name: &[u8], path: &Path) -> Result<State> {
    let at = |error: Errno| failed("read", path, error);
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at)?;
    let device = |make: fn(u32, u32) -> FileKind| {
        make(rustix::fs::major(stat.st_rdev as u64), rustix::fs::minor(stat.st_rdev as u64))
    };
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular { size },
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => {
            let target = readlinkat(directory, name, Vec::new()).map_err(at)?;
            FileKind::Symlink { target: target.into_bytes().into() }
        }
        FileType::CharacterDevice => device(|major, minor| FileKind::CharacterDevice { major, minor }),
        FileType::BlockDevice => device(|major, minor| FileKind::BlockDevice { major, minor }),
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket | FileType::Unknown => {
            let what = io::Error::new(io::ErrorKind::Unsupported, "a socket cannot be part of a layer; remove it");
            return Err(failed("read", path, what));
        }
    };
    let modified =
        Time { seconds: stat.st_mtime as i64, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() };
    let metadata = Metadata {
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        modified,
        xattrs: xattrs(directory, name).map_err(at)?,
        ..Metadata::default()
    };
    let inode = (stat.st_dev as u64, stat.st_ino as u64);
    Ok(State { kind, metadata, links: stat.st_nlink as u64, digest: None, inode, size })
}

fn xattrs(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<BTreeMap<Box<str>, Box<[u8]>>> {
    let mut found = BTreeMap::new();
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    let mut list = vec![0; 256];
    let length = loop {
        let listed =
            if name == b"." { flistxattr(directory, &mut list[..]) } else { llistxattr(&path[..], &mut list[..]) };
        match listed {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < MAX_XATTR_BYTES => list.resize(MAX_XATTR_BYTES, 0),
            // A file system without attributes, or a machine without `/proc`.
            Err(Errno::NOTSUP | Errno::NOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
    };
    let mut value = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        if HOST_XATTRS.contains(&text) {
            continue;
        }
        value.resize(MAX_XATTR_BYTES, 0);
        match lgetxattr(&path[..], name, &mut value[..]) {
            Ok(length) => drop(found.insert(text.into(), value[..length].into())),
            // Removed in the meantime, or one that only root may read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
