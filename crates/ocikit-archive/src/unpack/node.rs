//! Creates single files with their metadata.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use ocikit_spec::{Algorithm, Digest, Hasher};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, lsetxattr, makedev, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::Result;
use crate::layer::{FileKind, Metadata, Path};
use crate::unpack::directories::failed;
use crate::unpack::owners::{Owner, Owners, ROOTLESS_XATTR, rootless_record};

/// What all files of an operation share.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) owners: Owners,
    /// The current user and group.
    pub(super) user: (u32, u32),
    /// The permissions that the process takes from new files.
    pub(super) umask: u32,
    pub(super) digests: bool,
    pub(super) holes: bool,
}

/// The contents of a regular file.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Vec<u8>),
    Parts(std::sync::mpsc::Receiver<Part>),
}

/// A part of the contents of a large or sparse file.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    /// Zeros that take no space.
    Hole(u64),
    /// The end; a file whose parts end without it is incomplete.
    End,
}

/// What was created.
#[derive(Debug, Default)]
pub(super) struct Created {
    pub(super) digest: Option<Digest>,
    /// The number of attributes that the file system or the user may not set.
    pub(super) skipped_xattrs: u64,
    pub(super) bytes: u64,
}

/// The attribute of access control lists, which changes the permissions.
const ACCESS_ACL: &str = "system.posix_acl_access";

/// The size of the blocks whose zeros become holes.
const HOLE_BYTES: usize = 4096;

impl Settings {
    /// Creates a file that is not a directory, whose name must not exist.
    pub(super) fn create(
        &self,
        directory: &OwnedFd,
        path: &Path,
        kind: &FileKind,
        metadata: &Metadata,
        content: Content,
    ) -> Result<Created> {
        let owner = self.owners.of(path, metadata)?;
        let (node, device) = match kind {
            FileKind::Regular { .. } => return self.regular(directory, path, metadata, owner, content),
            FileKind::Symlink { target } => {
                symlinkat(&**target, directory, path.name()).map_err(|error| failed("create symlink", path, error))?;
                return self.finish(directory, path, metadata, owner, true);
            }
            FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. }
                if matches!(self.owners, Owners::Rootless | Owners::Current) =>
            {
                return self.regular(directory, path, metadata, owner, Content::Whole(Vec::new()));
            }
            FileKind::Fifo => (FileType::Fifo, 0),
            FileKind::CharacterDevice { major, minor } => (FileType::CharacterDevice, makedev(*major, *minor)),
            FileKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(*major, *minor)),
            // Directories are created where they are needed, and get their metadata at the end.
            FileKind::Directory => return Ok(Created::default()),
        };
        self.node(directory, path, node, metadata.mode, device)?;
        self.finish(directory, path, metadata, owner, false)
    }

    fn regular(
        &self,
        directory: &OwnedFd,
        path: &Path,
        metadata: &Metadata,
        owner: Owner,
        content: Content,
    ) -> Result<Created> {
        let xattrs = !metadata.xattrs.is_empty() || matches!(owner, Owner::Recorded(Some(_)));
        // Attributes of users need write permission.
        let first = if xattrs { metadata.mode & 0o777 | 0o600 } else { metadata.mode & 0o777 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, path.name(), flags, Mode::from_raw_mode(first as RawMode));
        let mut file = File::from(file.map_err(|error| failed("create", path, error))?);
        let mut writer = Writer::new(self, &mut file);
        let written = match content {
            Content::Whole(bytes) => writer.write(&bytes),
            Content::Parts(parts) => writer.parts(&parts),
        };
        let written = written.and_then(|()| writer.finish());
        let (digest, bytes) = written.map_err(|error| failed("write", path, error))?;
        let is_right = first & self.umask & 0o777 == 0 && first == metadata.mode;
        let skipped_xattrs = self.finish_open(&file, path, metadata, owner, is_right)?;
        Ok(Created { digest, bytes, skipped_xattrs })
    }

    #[cfg(not(any(target_vendor = "apple", target_os = "windows")))]
    fn node(&self, directory: &OwnedFd, path: &Path, kind: FileType, mode: u32, device: u64) -> Result<()> {
        let mode = Mode::from_raw_mode((mode & 0o777) as RawMode);
        rustix::fs::mknodat(directory, path.name(), kind, mode, device).map_err(|error| {
            let verb = if kind == FileType::Fifo { "create pipe" } else { "create device" };
            failed(verb, path, error)
        })
    }

    #[cfg(target_vendor = "apple")]
    fn node(&self, _: &OwnedFd, path: &Path, _: FileType, _: u32, _: u64) -> Result<()> {
        Err(failed("create device or pipe", path, io::Error::from(io::ErrorKind::Unsupported)))
    }

    /// Sets the metadata of a file that cannot be opened.
    fn finish(
        &self,
        directory: &OwnedFd,
        path: &Path,
        metadata: &Metadata,
        owner: Owner,
        link: bool,
    ) -> Result<Created> {
        let name = path.name();
        let at = |verb: &'static str| move |error: Errno| failed(verb, path, error);
        if let Owner::Set(user, group) = owner
            && (user, group) != self.user
        {
            chownat(directory, name, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(at("change the owner of"))?;
        }
        let mut created = Created::default();
        // These have no attributes of users, so that there is no record of their owner either.
        if !metadata.xattrs.is_empty() {
            let whole = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
            let set = |name: &str, value: &[u8]| lsetxattr(&whole[..], name, value, XattrFlags::empty());
            created.skipped_xattrs = self.xattrs(path, metadata, Owner::Set(0, 0), set)?;
        }
        if !link {
            rustix::fs::chmodat(directory, name, mode(metadata), AtFlags::empty())
                .map_err(at("change the permissions of"))?;
        }
        utimensat(directory, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW).map_err(at("set the time of"))?;
        Ok(created)
    }

    /// Sets the metadata of an open directory.
    pub(super) fn finish_directory(&self, directory: &OwnedFd, path: &Path, metadata: &Metadata) -> Result<u64> {
        self.finish_open(directory, path, metadata, self.owners.of(path, metadata)?, false)
    }

    /// Sets the metadata of an open file, whose permissions may be the right ones already. Returns the number of skipped attributes.
    fn finish_open(
        &self,
        file: &impl AsFd,
        path: &Path,
        metadata: &Metadata,
        owner: Owner,
        has_mode: bool,
    ) -> Result<u64> {
        let at = |verb: &'static str| move |error: Errno| failed(verb, path, error);
        let chowned = self.give(file, owner).map_err(at("change the owner of"))?;
        let set = |name: &str, value: &[u8]| fsetxattr(file, name, value, XattrFlags::empty());
        let mut skipped = self.xattrs(path, metadata, owner, set)?;
        if !has_mode || chowned && metadata.mode & 0o6000 != 0 {
            fchmod(file, mode(metadata)).map_err(at("change the permissions of"))?;
        }
        if let Some(list) = metadata.xattrs.get(ACCESS_ACL) {
            skipped += self.xattr(path, ACCESS_ACL, set(ACCESS_ACL, list))?;
        }
        futimens(file, &times(metadata)).map_err(at("set the time of"))?;
        Ok(skipped)
    }

    /// Changes the owner, if it is another one. Returns whether it did.
    fn give(&self, file: impl AsFd, owner: Owner) -> rustix::io::Result<bool> {
        match owner {
            Owner::Set(user, group) if (user, group) != self.user => {
                fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))).map(|()| true)
            }
            Owner::Set(..) | Owner::Recorded(_) => Ok(false),
        }
    }

    /// Sets attributes except access control lists. Returns how many were skipped.
    fn xattrs(
        &self,
        path: &Path,
        metadata: &Metadata,
        owner: Owner,
        set: impl Fn(&str, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<u64> {
        let mut skipped = 0;
        for (name, value) in &metadata.xattrs {
            if **name == *ACCESS_ACL || matches!(owner, Owner::Recorded(_)) && **name == *ROOTLESS_XATTR {
                continue;
            }
            skipped += self.xattr(path, name, set(name, value))?;
        }
        if let Owner::Recorded(Some((user, group))) = owner {
            skipped += self.xattr(path, ROOTLESS_XATTR, set(ROOTLESS_XATTR, &rootless_record(user, group)))?;
        }
        Ok(skipped)
    }

    /// Returns 1 for an attribute that the file system does not have, or that only root may set.
    fn xattr(&self, path: &Path, name: &str, set: rustix::io::Result<()>) -> Result<u64> {
        match set {
            Ok(()) => Ok(0),
            Err(Errno::NOTSUP) => Ok(1),
            Err(Errno::PERM | Errno::ACCESS) if self.user.0 != 0 || name.starts_with("user.") => Ok(1),
            // An access control list or capability for IDs that the user namespace does not have.
            Err(Errno::INVAL) if self.owners != Owners::Keep => Ok(1),
            Err(error) => Err(failed("set an extended attribute of", path, error)),
        }
    }
}

/// Writes the contents of a regular file.
struct Writer<'a> {
    file: &'a mut File,
    hasher: Option<Hasher>,
    holes: bool,
    position: u64,
    /// Whether the file ends with a hole, so that its length has to be set.
    ends_with_hole: bool,
}

impl<'a> Writer<'a> {
    fn new(settings: &Settings, file: &'a mut File) -> Writer<'a> {
        let hasher = settings.digests.then(|| Hasher::new(Algorithm::Sha256));
        Writer { file, hasher, holes: settings.holes, position: 0, ends_with_hole: false }
    }

    fn parts(&mut self, parts: &std::sync::mpsc::Receiver<Part>) -> io::Result<()> {
        loop {
            match parts.recv() {
                Ok(Part::Bytes(bytes)) => self.write(&bytes)?,
                Ok(Part::Hole(length)) => self.hole(length),
                Ok(Part::End) => return Ok(()),
                // The reader failed, and its error is the one that is reported.
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if !self.holes {
            return self.put(bytes);
        }
        let is_zero = |block: &[u8]| block.len() == HOLE_BYTES && block.iter().all(|byte| *byte == 0);
        let blocks: Vec<_> = bytes.chunks(HOLE_BYTES).collect();
        for run in blocks.chunk_by(|left, right| is_zero(left) == is_zero(right)) {
            let length = run.iter().map(|block| block.len()).sum::<usize>();
            let start = (run[0].as_ptr() as usize) - (bytes.as_ptr() as usize);
            match is_zero(run[0]) {
                true => self.skip(length as u64),
                false => self.put(&bytes[start..start + length])?,
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.position == 0 {
            self.file.write_all(bytes)?;
        } else {
            self.file.write_all_at(bytes, self.position)?;
        }
        self.position += bytes.len() as u64;
        self.ends_with_hole = false;
        Ok(())
    }

    fn skip(&mut self, length: u64) {
        self.position += length;
        self.ends_with_hole = length > 0 || self.ends_with_hole;
    }

    fn hole(&mut self, length: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        if let Some(hasher) = &mut self.hasher {
            let mut rest = length;
            while rest > 0 {
                let part = rest.min(ZEROS.len() as u64);
                hasher.update(&ZEROS[..part as usize]);
                rest -= part;
            }
        }
        self.skip(length);
    }

    fn finish(self) -> io::Result<(Option<Digest>, u64)> {
        if self.ends_with_hole {
            self.file.set_len(self.position)?;
        }
        Ok((self.hasher.map(Hasher::finish), self.position))
    }
}

fn mode(metadata: &Metadata) -> Mode {
    Mode::from_raw_mode((metadata.mode & 0o7777) as RawMode)
}

/// Returns the times of a file; the layer has no time of the last access.
fn times(metadata: &Metadata) -> Timestamps {
    let time = Timespec { tv_sec: metadata.modified.seconds, tv_nsec: metadata.modified.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
