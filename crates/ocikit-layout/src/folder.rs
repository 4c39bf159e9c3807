//! Open directories, through which the files below are accessed without following symlinks.
//!
//! A layout is untrusted input. Everything that is written to it or deleted from it goes through this module, so that a
//! `blobs` that is a symlink, or becomes one during the operation, cannot redirect it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A directory.
#[derive(Debug)]
pub(crate) struct Folder {
    #[cfg(unix)]
    handle: std::os::fd::OwnedFd,
    /// Its path when it was opened, for messages; the current path on systems without handles.
    path: PathBuf,
}

/// A regular file in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileStatus {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// The error for a symlink, or another file, in place of a directory of a layout.
fn no_directory(path: &Path) -> io::Error {
    let what = format!("`{}` is not a directory of the layout itself; symlinks are not followed", path.display());
    io::Error::new(io::ErrorKind::NotADirectory, what)
}

/// The error for a file of a layout that is not regular.
fn not_regular(path: &Path) -> io::Error {
    io::Error::other(format!(
        "`{}` is not a regular file of the layout itself; symlinks are not followed",
        path.display()
    ))
}

#[cfg(unix)]
mod handles {
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime};

    use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
    use rustix::io::Errno;

    use super::{File, FileStatus, Folder, OsStr, Path, io, no_directory, not_regular};

    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    impl Folder {
        /// Opens a directory that the user named; symlinks in its path are followed.
        pub(crate) fn open(path: &Path) -> io::Result<Folder> {
            let handle = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
            Ok(Folder { handle, path: path.to_owned() })
        }

        /// Opens a subdirectory; `None` if it does not exist.
        pub(crate) fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Folder>> {
            let path = self.path.join(name.as_ref());
            match openat(&self.handle, name.as_ref(), DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty()) {
                Ok(handle) => Ok(Some(Folder { handle, path })),
                Err(Errno::NOENT) => Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => Err(no_directory(&path)),
                Err(error) => Err(error.into()),
            }
        }

        /// Opens a subdirectory, which is created if it does not exist.
        pub(crate) fn made(&self, name: impl AsRef<OsStr>) -> io::Result<Folder> {
            match mkdirat(&self.handle, name.as_ref(), Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            self.folder(name.as_ref())?.ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        /// Lists the names in the directory, without those that are not UTF-8, which no layout has.
        pub(crate) fn names(&self) -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.handle)? {
                let entry = entry?;
                let name = entry.file_name().to_str().ok().filter(|name| ![".", ".."].contains(name));
                names.extend(name.map(str::to_owned));
            }
            names.sort_unstable();
            Ok(names)
        }

        /// Returns the regular file with a name; `None` for anything else.
        pub(crate) fn regular(&self, name: impl AsRef<OsStr>) -> io::Result<Option<FileStatus>> {
            match statat(&self.handle, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    // Sizes are never negative, and of times only the order matters.
                    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
                    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                    Ok(Some(FileStatus { size: u64::try_from(stat.st_size).unwrap_or_default(), modified }))
                }
                Ok(_) | Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        /// Returns whether the name exists.
        pub(crate) fn has(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
            match statat(&self.handle, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(true),
                Err(Errno::NOENT) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        /// Opens a regular file for reading.
        pub(crate) fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
            // Without `NONBLOCK`, opening a pipe would wait for its writer.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = match openat(&self.handle, name.as_ref(), flags, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(Errno::LOOP | Errno::MLINK) => return Err(not_regular(&self.path.join(name.as_ref()))),
                Err(error) => return Err(error.into()),
            };
            match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(not_regular(&self.path.join(name.as_ref()))),
            }
        }

        /// Creates a file; its name must not exist.
        pub(crate) fn create(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(openat(&self.handle, name.as_ref(), flags, Mode::from_raw_mode(mode as rustix::fs::RawMode))?.into())
        }

        /// Renames a file of this directory and replaces the target.
        pub(crate) fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
            Ok(renameat(&self.handle, from.as_ref(), &self.handle, to.as_ref())?)
        }

        /// Removes a file, or a symlink itself; a missing file is not an error.
        pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
            match unlinkat(&self.handle, name.as_ref(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }

        /// Gives a file of another directory the same name here, which must not exist.
        pub(crate) fn link_from(&self, other: &Folder, name: impl AsRef<OsStr>) -> io::Result<()> {
            let name = name.as_ref();
            Ok(rustix::fs::linkat(&other.handle, name, &self.handle, name, AtFlags::empty())?)
        }

        /// Returns the directory as a file that can be locked.
        pub(crate) fn lockable(&self) -> io::Result<File> {
            Ok(File::from(self.handle.try_clone()?))
        }

        /// Creates a file without a name (`O_TMPFILE`), if the file system supports it.
        #[cfg(target_os = "linux")]
        pub(crate) fn nameless(&self, mode: u32) -> Option<File> {
            // The name is later given through /proc, which must be mounted.
            if !Path::new("/proc/self/fd").exists() {
                return None;
            }
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            openat(&self.handle, ".", flags, Mode::from_raw_mode(mode as rustix::fs::RawMode)).ok().map(File::from)
        }

        /// Gives such a file a name, which must not exist.
        #[cfg(target_os = "linux")]
        pub(crate) fn link(&self, file: &File, name: impl AsRef<OsStr>) -> io::Result<()> {
            use std::os::fd::AsRawFd;
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = AtFlags::SYMLINK_FOLLOW;
            Ok(rustix::fs::linkat(rustix::fs::CWD, &from, self.handle.as_fd(), name.as_ref(), flags)?)
        }
    }
}

#[cfg(not(unix))]
mod paths {
    use std::fs;

    use super::{File, FileStatus, Folder, OsStr, Path, io, no_directory, not_regular};

    fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    impl Folder {
        /// Opens a directory that the user named; symlinks in its path are followed.
        pub(crate) fn open(path: &Path) -> io::Result<Folder> {
            match fs::metadata(path)?.is_dir() {
                true => Ok(Folder { path: path.to_owned() }),
                false => Err(io::ErrorKind::NotADirectory.into()),
            }
        }

        /// Opens a subdirectory; `None` if it does not exist.
        pub(crate) fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Folder>> {
            let path = self.path.join(name.as_ref());
            match absent(fs::symlink_metadata(&path))? {
                Some(found) if found.is_dir() => Ok(Some(Folder { path })),
                Some(_) => Err(no_directory(&path)),
                None => Ok(None),
            }
        }

        /// Opens a subdirectory, which is created if it does not exist.
        pub(crate) fn made(&self, name: impl AsRef<OsStr>) -> io::Result<Folder> {
            match fs::create_dir(self.path.join(name.as_ref())) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            self.folder(name.as_ref())?.ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        /// Lists the names in the directory, without those that are not Unicode, which no layout has.
        pub(crate) fn names(&self) -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort_unstable();
            Ok(names)
        }

        /// Returns the regular file with a name; `None` for anything else.
        pub(crate) fn regular(&self, name: impl AsRef<OsStr>) -> io::Result<Option<FileStatus>> {
            let found = absent(fs::symlink_metadata(self.path.join(name.as_ref())))?.filter(fs::Metadata::is_file);
            found.map(|found| Ok(FileStatus { size: found.len(), modified: found.modified()? })).transpose()
        }

        /// Gives a file of another directory the same name here, which must not exist.
        pub(crate) fn link_from(&self, other: &Folder, name: impl AsRef<OsStr>) -> io::Result<()> {
            fs::hard_link(other.path.join(name.as_ref()), self.path.join(name.as_ref()))
        }

        /// Returns whether the name exists.
        pub(crate) fn has(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
            Ok(absent(fs::symlink_metadata(self.path.join(name.as_ref())))?.is_some())
        }

        /// Opens a regular file for reading.
        pub(crate) fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
            let path = self.path.join(name.as_ref());
            match fs::symlink_metadata(&path)?.is_file() {
                true => File::open(path),
                false => Err(not_regular(&path)),
            }
        }

        /// Creates a file; its name must not exist.
        pub(crate) fn create(&self, name: impl AsRef<OsStr>, _: u32) -> io::Result<File> {
            File::options().read(true).write(true).create_new(true).open(self.path.join(name.as_ref()))
        }

        /// Renames a file of this directory and replaces the target.
        pub(crate) fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
            fs::rename(self.path.join(from.as_ref()), self.path.join(to.as_ref()))
        }

        /// Removes a file, or a symlink itself; a missing file is not an error.
        pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
            absent(fs::remove_file(self.path.join(name.as_ref()))).map(drop)
        }

        /// Returns the directory as a file that can be locked.
        pub(crate) fn lockable(&self) -> io::Result<File> {
            File::open(&self.path)
        }
    }
}
