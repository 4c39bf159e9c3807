//! Files and directories of this machine as entries of a layer.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata as Found};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path as FilePath, PathBuf};

use crate::compression::Decoder;
use crate::error::{Error, Result};
use crate::layer::entry::{Entry, FileKind, Kind, Metadata, Time};
use crate::layer::path::Path;
use crate::layer::reader::Reader;
use crate::layer::whiteout::Whiteout;
use crate::layer::writer::Writer;

/// Where files are put in a layer, and which of their metadata is changed.
///
/// ```
/// use ocikit_archive::layer::{FileOptions, ModifiedTime, Owner, Path, Time};
///
/// let mut options = FileOptions::from(Owner::ROOT);
/// options.destination = Path::confined(b"/opt/app");
/// options.modified = ModifiedTime::AtMost(Time { seconds: 1_700_000_000, nanoseconds: 0 });
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FileOptions {
    /// The directory of the layer that receives the contents of a directory or tar, or the path of a single file. Without
    /// an entry of its own it keeps the metadata that it has in lower layers; if it is new, it has mode 0755 and belongs
    /// to root.
    pub destination: Path,
    /// The owner of all entries.
    pub owner: Owner,
    /// The permissions of all regular files and directories; those of the files if `None`.
    pub mode: Option<u32>,
    /// The modification time of all entries.
    pub modified: ModifiedTime,
    /// Whether the directory itself gets an entry.
    pub top: TopDirectory,
}

ocikit_spec::setters! {
    FileOptions {
        destination: Path,
        owner: Owner,
        mode: Option<u32>,
        modified: ModifiedTime,
        top: TopDirectory,
    }
}

/// The owner of files in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// The numeric owner that the files have.
    Keep,
    /// This owner.
    Fixed {
        /// The user ID.
        uid: u64,
        /// The group ID.
        gid: u64,
    },
}

impl Owner {
    /// The user and group root.
    pub const ROOT: Owner = Owner::Fixed { uid: 0, gid: 0 };
}

/// Returns [`Owner::ROOT`], because the owner on a machine that builds an image is seldom that of the image.
impl Default for Owner {
    fn default() -> Owner {
        Owner::ROOT
    }
}

impl From<Owner> for FileOptions {
    fn from(owner: Owner) -> FileOptions {
        FileOptions { owner, ..FileOptions::default() }
    }
}

/// The modification time of files in a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModifiedTime {
    /// The time that the files have.
    #[default]
    Keep,
    /// The time that the files have, or this one if it is earlier, as `SOURCE_DATE_EPOCH` is meant.
    AtMost(Time),
    /// This time.
    Fixed(Time),
}

impl ModifiedTime {
    /// Returns the time of a file in the layer.
    pub fn of(self, found: Time) -> Time {
        match self {
            ModifiedTime::Keep => found,
            ModifiedTime::AtMost(latest) => found.min(latest),
            ModifiedTime::Fixed(time) => time,
        }
    }
}

/// Whether a directory that is added has an entry itself, besides those of its contents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TopDirectory {
    /// It has none: an existing destination keeps its owner, permissions and time.
    #[default]
    Omit,
    /// It has one: the destination gets the metadata of the directory.
    Include,
}

impl FileOptions {
    /// Changes an entry.
    fn apply(&self, entry: &mut Entry) {
        entry.path = self.place(&entry.path);
        match &mut entry.kind {
            Kind::File(FileKind::Regular { .. } | FileKind::Directory) => {
                entry.metadata.mode = self.mode.unwrap_or(entry.metadata.mode);
            }
            Kind::File(_) => {}
            Kind::HardLink { target } => *target = self.place(target),
            Kind::Whiteout(whiteout) => {
                let (Whiteout::Path(path) | Whiteout::Contents(path)) = &*whiteout;
                *whiteout = whiteout.at(self.place(path));
            }
        }
        if let Owner::Fixed { uid, gid } = self.owner {
            entry.metadata = Metadata { uid, gid, user: None, group: None, ..std::mem::take(&mut entry.metadata) };
        }
        entry.metadata.modified = self.modified.of(entry.metadata.modified);
    }

    fn place(&self, path: &Path) -> Path {
        if path.is_root() { self.destination.clone() } else { self.destination.join(path.as_bytes()) }
    }
}

impl<W: Write> Writer<W> {
    /// Appends a whiteout, which hides a path of lower layers and everything below it.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] for the root, which cannot be hidden; otherwise as [`Writer::append`].
    pub fn hide(&mut self, path: &Path) -> Result<()> {
        let refuse = || Error::Layer { path: path.to_string(), problem: "the root cannot be hidden" };
        let entry = Entry::whiteout(Whiteout::Path(path.clone())).ok_or_else(refuse)?;
        self.append(&entry, io::empty())
    }

    /// Appends the entries of a tar in their order, whiteouts included. Sparse files are written in full.
    ///
    /// # Errors
    ///
    /// Those of the reader and of [`Writer::append`].
    pub fn append_tar<R: Read>(&mut self, tar: &mut Reader<R>, options: &FileOptions) -> Result<()> {
        while let Some(mut entry) = tar.next_entry()? {
            options.apply(&mut entry);
            self.append(&entry, &mut *tar)?;
        }
        Ok(())
    }

    /// Appends the entries of an archive of any compression; see [`Writer::append_tar`]. Errors of reading have this
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`] if it is damaged, [`Error::File`] if it cannot be read or decompressed, and those of writing.
    pub fn append_archive(&mut self, name: &FilePath, archive: impl Read, options: &FileOptions) -> Result<()> {
        let mut archive = io::BufReader::new(archive);
        // A tar without entries has zeros at its end.
        if archive.fill_buf().map_err(|error| unreadable(name, error))?.is_empty() {
            return Err(crate::scan::invalid(0, "it has no bytes").named(name));
        }
        let decoder = Decoder::new(archive).map_err(|error| unreadable(name, error))?;
        let mut reader = Reader::new(Contents { path: name, file: decoder });
        self.append_tar(&mut reader, options).map_err(|error| error.named(name))
    }

    /// Appends one file, symlink or other object of this machine as [`FileOptions::destination`]. A directory is added
    /// without its contents.
    ///
    /// # Errors
    ///
    /// As [`Writer::append_tree`].
    pub fn append_file(&mut self, path: &FilePath, options: &FileOptions) -> Result<()> {
        let found = fs::symlink_metadata(path).map_err(|error| unreadable(path, error))?;
        if !self.append_object(path, Path::root(), &found, options, &mut Links::default())? {
            return Err(unreadable(path, io::Error::new(io::ErrorKind::Unsupported, "a socket cannot be in a layer")));
        }
        Ok(())
    }

    /// Appends the contents of a directory of this machine: files, directories, symlinks, hard links, devices, named
    /// pipes and extended attributes. Sockets are left out, as GNU tar and docker do it, and attributes that belong to
    /// the machine (SELinux labels, overlay). Sparse files are written in full.
    ///
    /// Entries are ordered by the bytes of their names, a directory before its contents, so that the same tree gives
    /// the same bytes. Names of owners are not written. Memory is bounded by the size of the directories on one path
    /// and the number of files with several hard links.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if something cannot be read; of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if a file
    /// became shorter. [`Error::Layer`] for a name that is reserved for whiteouts. Those of writing.
    pub fn append_tree(&mut self, directory: &FilePath, options: &FileOptions) -> Result<()> {
        let mut links = Links::default();
        if options.top == TopDirectory::Include {
            let found = fs::metadata(directory).map_err(|error| unreadable(directory, error))?;
            self.append_object(directory, Path::root(), &found, options, &mut links)?;
        }
        let mut open = vec![(directory.to_owned(), Path::root(), names(directory)?.into_iter())];
        while let Some((directory, inside, names)) = open.last_mut() {
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let path = directory.join(&name);
            let inside = inside.join(name.as_encoded_bytes());
            let found = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, error))?;
            self.append_object(&path, inside.clone(), &found, options, &mut links)?;
            if found.is_dir() {
                let names = crate::layer::disk::names(&path)?.into_iter();
                open.push((path, inside, names));
            }
        }
        Ok(())
    }

    /// Appends one object; returns false for a socket, which has no place in a tar.
    fn append_object(
        &mut self,
        path: &FilePath,
        inside: Path,
        found: &Found,
        options: &FileOptions,
        links: &mut Links,
    ) -> Result<bool> {
        let Some(kind) = kind(path, found)? else { return Ok(false) };
        let xattrs = xattrs(path).map_err(|error| unreadable(path, error))?;
        let metadata = Metadata { xattrs, ..metadata(found) };
        let kind = match links.first(found, &inside) {
            Some(target) => Kind::HardLink { target },
            None => Kind::File(kind),
        };
        let mut entry = Entry { path: inside, kind, metadata };
        options.apply(&mut entry);
        if !matches!(entry.kind, Kind::File(FileKind::Regular { .. })) {
            return self.append(&entry, io::empty()).map(|()| true);
        }
        let file = open(path).map_err(|error| unreadable(path, error))?;
        // The file may have been replaced since it was found.
        let size = file.metadata().map_err(|error| unreadable(path, error))?.len();
        entry.kind = Kind::File(FileKind::Regular { size });
        self.append(&entry, Contents { path, file: io::BufReader::with_capacity(READ_BYTES, file) })?;
        Ok(true)
    }
}

/// The size of the buffer for the contents of files in bytes.
const READ_BYTES: usize = 64 << 10;

/// The contents of a file, whose errors name it.
struct Contents<'a, R> {
    path: &'a FilePath,
    file: R,
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(io::Error::new(error.kind(), unreadable(self.path, error)))
            }
            read => read,
        }
    }
}

/// The first names of files with several names.
#[derive(Default)]
struct Links(HashMap<(u64, u64), Path>);

impl Links {
    /// Returns the first name of a file; `None` if this is the first one.
    #[cfg(unix)]
    fn first(&mut self, found: &Found, path: &Path) -> Option<Path> {
        use std::os::unix::fs::MetadataExt;
        if found.is_dir() || found.nlink() < 2 {
            return None;
        }
        let first = self.0.entry((found.dev(), found.ino())).or_insert_with(|| path.clone());
        (first != path).then(|| first.clone())
    }

    #[cfg(not(unix))]
    fn first(&mut self, _: &Found, _: &Path) -> Option<Path> {
        None
    }
}

/// Returns the names in a directory, in the order of their bytes.
fn names(directory: &FilePath) -> Result<Vec<OsString>> {
    let failed = |error| unreadable(directory, error);
    let mut names = Vec::new();
    for found in fs::read_dir(directory).map_err(failed)? {
        names.push(found.map_err(failed)?.file_name());
    }
    names.sort_unstable_by(|one, other| one.as_encoded_bytes().cmp(other.as_encoded_bytes()));
    Ok(names)
}

fn unreadable(path: &FilePath, source: io::Error) -> Error {
    Error::File { verb: "read", path: PathBuf::from(path), source }
}

/// Returns the type of an object; `None` for a socket.
fn kind(path: &FilePath, found: &Found) -> Result<Option<FileKind>> {
    let file_type = found.file_type();
    if file_type.is_file() {
        return Ok(Some(FileKind::Regular { size: found.len() }));
    }
    if file_type.is_dir() {
        return Ok(Some(FileKind::Directory));
    }
    if file_type.is_symlink() {
        let target = fs::read_link(path).map_err(|error| unreadable(path, error))?;
        return Ok(Some(FileKind::Symlink { target: target.into_os_string().into_encoded_bytes().into() }));
    }
    Ok(special(found))
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn special(found: &Found) -> Option<FileKind> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let file_type = found.file_type();
    let (major, minor) = (rustix::fs::major(found.rdev() as _), rustix::fs::minor(found.rdev() as _));
    match () {
        () if file_type.is_char_device() => Some(FileKind::CharacterDevice { major, minor }),
        () if file_type.is_block_device() => Some(FileKind::BlockDevice { major, minor }),
        () if file_type.is_fifo() => Some(FileKind::Fifo),
        () => None,
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn special(_: &Found) -> Option<FileKind> {
    None
}

#[cfg(unix)]
fn metadata(found: &Found) -> Metadata {
    use std::os::unix::fs::MetadataExt;
    Metadata {
        mode: found.mode() & 0o7777,
        uid: u64::from(found.uid()),
        gid: u64::from(found.gid()),
        modified: Time { seconds: found.mtime(), nanoseconds: u32::try_from(found.mtime_nsec()).unwrap_or(0) },
        ..Metadata::default()
    }
}

#[cfg(not(unix))]
fn metadata(found: &Found) -> Metadata {
    let mode = if found.is_dir() { 0o755 } else { 0o644 };
    let since = found.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = since.map_or(Time::default(), |since| Time {
        seconds: i64::try_from(since.as_secs()).unwrap_or(0),
        nanoseconds: since.subsec_nanos(),
    });
    Metadata { mode, modified, ..Metadata::default() }
}

/// Opens a regular file. A symlink or pipe in its place is not opened.
#[cfg(unix)]
fn open(path: &FilePath) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open(path: &FilePath) -> io::Result<File> {
    File::open(path)
}

/// Returns whether an attribute describes the machine rather than the file, so that it has no place in an image. umoci
/// has the same list.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn is_of_this_machine(name: &str) -> bool {
    const PREFIXES: [&str; 5] =
        ["security.selinux", "system.nfs4_acl", "trusted.overlay.", "user.overlay.", "com.apple."];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn xattrs(path: &FilePath) -> io::Result<BTreeMap<Box<str>, Box<[u8]>>> {
    use rustix::io::Errno;
    /// The limits of Linux for the list of names, and for a value.
    const MAX_BYTES: usize = 64 << 10;
    let length = match rustix::fs::llistxattr_query(path) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Ok(length) => length.min(MAX_BYTES),
        Err(error) => return Err(error.into()),
    };
    let mut list = vec![0; length];
    let length = rustix::fs::llistxattr(path, &mut list[..])?;
    let mut found = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name).map_err(io::Error::other)?;
        if is_of_this_machine(name) {
            continue;
        }
        let mut value = vec![0; MAX_BYTES];
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(length) => found.insert(name.into(), value[..length].into()),
            // It was removed in the meantime.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(found)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn xattrs(_: &FilePath) -> io::Result<BTreeMap<Box<str>, Box<[u8]>>> {
    Ok(BTreeMap::new())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::{Compression, END};

    /// Writes a layer and returns its entries with the contents of files.
    fn entries(write: impl FnOnce(&mut Writer<Vec<u8>>) -> Result<()>) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut layer = Writer::new(&Compression::None.into(), Vec::new())?;
        write(&mut layer)?;
        let tar = layer.finish()?.0;
        let mut reader = Reader::new(&tar[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            found.push((entry, bytes));
        }
        Ok(found)
    }

    fn shown(entries: &[(Entry, Vec<u8>)]) -> Vec<String> {
        entries.iter().map(|(entry, _)| entry.path.to_string()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("bin")).unwrap();
        fs::write(at("bin/tool"), "#!").unwrap();
        fs::set_permissions(at("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(at("bin/tool"), at("bin/alias")).unwrap();
        symlink("../bin/tool", at("link")).unwrap();
        fs::write(at("bin-extra"), "").unwrap();
        directory
    }

    #[test]
    fn a_tree_is_written_in_order_with_its_links() {
        let directory = tree();
        let found = entries(|layer| layer.append_tree(directory.path(), &FileOptions::default())).unwrap();
        assert_eq!(shown(&found), ["bin", "bin/alias", "bin/tool", "bin-extra", "link"]);
        let [_, alias, tool, _, link] = &found[..] else { panic!("{found:?}") };
        assert_eq!((alias.0.metadata.mode, &alias.1[..]), (0o4755, &b"#!"[..]));
        assert_eq!(tool.0.kind, Kind::HardLink { target: Path::confined(b"bin/alias") });
        assert_eq!(link.0.kind, Kind::File(FileKind::Symlink { target: b"../bin/tool".as_slice().into() }));
        assert!(found.iter().all(|(entry, _)| (entry.metadata.uid, entry.metadata.gid) == (0, 0)));
        assert!(found.iter().all(|(entry, _)| entry.metadata.modified.seconds > 1_000_000_000));
    }

    #[test]
    fn options_place_and_change_entries() {
        let directory = tree();
        let day = Time { seconds: 86_400, nanoseconds: 0 };
        let options = FileOptions {
            destination: Path::confined(b"/opt/app/"),
            owner: Owner::Fixed { uid: 1000, gid: 100 },
            mode: Some(0o500),
            modified: ModifiedTime::AtMost(day),
            top: TopDirectory::Include,
        };
        let found = entries(|layer| layer.append_tree(directory.path(), &options)).unwrap();
        assert_eq!(shown(&found)[..3], ["opt/app", "opt/app/bin", "opt/app/bin/alias"]);
        for (entry, _) in &found {
            assert_eq!((entry.metadata.uid, entry.metadata.gid, entry.metadata.modified), (1000, 100, day));
            let is_link = matches!(entry.kind, Kind::File(FileKind::Symlink { .. }));
            // A hard link has the mode of its file, which readers ignore.
            assert!(
                is_link || entry.metadata.mode == 0o500 || matches!(entry.kind, Kind::HardLink { .. }),
                "{entry:?}"
            );
        }
        assert_eq!(found[3].0.kind, Kind::HardLink { target: Path::confined(b"opt/app/bin/alias") });
        let single = FileOptions { destination: Path::confined(b"usr/bin/x"), ..FileOptions::from(Owner::Keep) };
        let found = entries(|layer| layer.append_file(&directory.path().join("bin/tool"), &single)).unwrap();
        assert_eq!((shown(&found), &found[0].1[..]), (vec!["usr/bin/x".to_owned()], &b"#!"[..]));
    }

    #[test]
    fn a_tar_and_whiteouts_are_placed() {
        let mut tar = crate::Header::file("etc/.wh.motd", 0).to_bytes();
        tar.extend(crate::Header::file("etc/.wh..wh..opq", 0).to_bytes());
        tar.extend(crate::Header::file("x", 3).to_bytes());
        tar.extend_from_slice(b"abc");
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar.extend_from_slice(&END);
        let options = FileOptions { destination: Path::confined(b"srv"), ..FileOptions::from(Owner::Keep) };
        let found = entries(|layer| {
            layer.hide(&Path::confined(b"old"))?;
            layer.append_tar(&mut Reader::new(&tar[..]), &options)
        });
        let found = found.unwrap();
        assert_eq!(shown(&found), [".wh.old", "srv/etc/.wh.motd", "srv/etc/.wh..wh..opq", "srv/x"]);
        assert_eq!(found[1].0.kind, Kind::Whiteout(Whiteout::Path(Path::confined(b"srv/etc/motd"))));
        assert_eq!(found[3].1, b"abc");
        assert!(entries(|layer| layer.hide(&Path::root())).is_err());
    }

    #[test]
    fn extended_attributes_are_kept() {
        let directory = tree();
        let file = directory.path().join("bin-extra");
        let flags = rustix::fs::XattrFlags::empty();
        // Some file systems have no attributes.
        if rustix::fs::setxattr(&file, "user.note", b"\0\xff", flags).is_err() {
            return;
        }
        let options = FileOptions { destination: Path::confined(b"x"), ..FileOptions::default() };
        let found = entries(|layer| layer.append_file(&file, &options)).unwrap();
        assert_eq!(found[0].0.metadata.xattrs.get("user.note").unwrap()[..], b"\0\xff"[..]);
    }

    #[test]
    fn reserved_names_and_missing_files_are_errors() {
        let directory = tree();
        fs::write(directory.path().join(".wh.x"), "").unwrap();
        let error = entries(|layer| layer.append_tree(directory.path(), &FileOptions::default())).unwrap_err();
        assert!(matches!(error, Error::Layer { .. }), "{error}");
        let gone = directory.path().join("gone");
        let error = entries(|layer| layer.append_tree(&gone, &FileOptions::default())).unwrap_err();
        assert!(matches!(&error, Error::File { path, .. } if *path == gone), "{error}");
    }

    #[test]
    fn sockets_are_left_out() {
        let directory = tree();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let found = entries(|layer| layer.append_tree(directory.path(), &FileOptions::default())).unwrap();
        assert!(!shown(&found).contains(&"socket".to_owned()));
        assert!(entries(|layer| layer.append_file(&socket, &FileOptions::default())).is_err());
    }
}
