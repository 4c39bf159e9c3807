use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::folder::Folder;

/// A temporary file that gets its name when it is complete.
///
/// Where the system supports it, the file has no name until then, so that even a killed process leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Staged {
    folder: Arc<Folder>,
    name: OsString,
    file: File,
    /// The temporary name, if it has one.
    temporary: Option<Temporary>,
}

/// A temporary name, which is removed on drop.
#[derive(Debug)]
struct Temporary {
    folder: Arc<Folder>,
    name: OsString,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // Garbage collection removes it if this fails.
            let _ = self.folder.remove(&self.name);
        }
    }
}

impl Staged {
    /// Creates a file that replaces an existing one when it is complete. A symlink is followed: its target is replaced.
    pub(crate) fn create(path: &Path) -> io::Result<Staged> {
        Staged::with_mode(path, 0o666)
    }

    /// Creates a file with permissions other than the default.
    pub(crate) fn with_mode(path: &Path, mode: u32) -> io::Result<Staged> {
        let target = followed(path)?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        Staged::begin(Arc::new(Folder::open(parent)?), name, mode)
    }

    /// Creates a file in a directory. A symlink of that name is replaced, not followed.
    pub(crate) fn create_in(folder: Folder, name: &str) -> io::Result<Staged> {
        Staged::begin(Arc::new(folder), name.as_ref(), 0o666)
    }

    fn begin(folder: Arc<Folder>, name: &OsStr, mode: u32) -> io::Result<Staged> {
        #[cfg(target_os = "linux")]
        if let Some(file) = folder.nameless(mode) {
            return Ok(Staged { folder, name: name.to_owned(), file, temporary: None });
        }
        let (file, temporary) = temporary_name(&folder, |name| folder.create(name, mode))?;
        Ok(Staged { folder, name: name.to_owned(), file, temporary: Some(temporary) })
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name. An existing file is replaced atomically, after the new bytes are flushed to the disk.
    pub(crate) fn commit(self) -> io::Result<()> {
        let Staged { folder, name, file, temporary } = self;
        if folder.has(&name)? {
            file.sync_all()?;
        }
        #[cfg(target_os = "linux")]
        if temporary.is_none() {
            match folder.link(&file, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done,
            }
            // Linking cannot replace a file, so a temporary name is linked and then renamed.
            let ((), mut temporary) = temporary_name(&folder, |temporary| folder.link(&file, temporary))?;
            folder.rename(&temporary.name, &name)?;
            temporary.kept = true;
            return Ok(());
        }
        if let Some(mut temporary) = temporary {
            folder.rename(&temporary.name, &name)?;
            temporary.kept = true;
        }
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates or replaces a small file.
pub(crate) fn write_in(folder: Folder, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = Staged::create_in(folder, name)?;
    staged.file().write_all(bytes)?;
    staged.commit()
}

/// Returns the target of a symlink, whether it exists or not.
pub(crate) fn followed(path: &Path) -> io::Result<PathBuf> {
    /// The limit of Linux.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // Not a symlink, or not existing.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many levels of symlinks"))
}

/// Tries random names until one is free.
fn temporary_name<T>(folder: &Arc<Folder>, mut make: impl FnMut(&str) -> io::Result<T>) -> io::Result<(T, Temporary)> {
    const MAX_ATTEMPTS: usize = 100;
    let mut attempts = 0;
    loop {
        // Each `RandomState` has its own keys.
        let name = format!(".ocikit-{:016x}", RandomState::new().hash_one(attempts));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < MAX_ATTEMPTS => attempts += 1,
            made => return Ok((made?, Temporary { folder: folder.clone(), name: name.into(), kept: false })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn file_appears_complete_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        for text in ["one", "two"] {
            let staged = Staged::create(&target).unwrap();
            staged.file().write_all(text.as_bytes()).unwrap();
            staged.commit().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert_eq!(names(directory.path()), ["file"]);
        }
        let staged = Staged::create(&target).unwrap();
        staged.file().write_all(b"three").unwrap();
        drop(staged);
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn temporary_name_is_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(directory.path()).unwrap());
        let (file, temporary) = temporary_name(&folder, |name| folder.create(name, 0o666)).unwrap();
        assert_eq!(names(directory.path()).len(), 1);
        drop((file, temporary));
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("plain"), b"").unwrap();
        write_in(Folder::open(directory.path()).unwrap(), "staged", b"").unwrap();
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("staged"), mode("plain"));
    }

    /// docker/cli#1514: a symlink that the user named is kept, whatever its target.
    #[cfg(unix)]
    #[test]
    fn a_symlink_that_a_user_named_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        std::os::unix::fs::symlink("sub/file", path("link")).unwrap();
        for text in ["new", "replaced"] {
            let staged = Staged::create(&path("link")).unwrap();
            staged.file().write_all(text.as_bytes()).unwrap();
            staged.commit().unwrap();
            assert_eq!(fs::read_to_string(path("sub/file")).unwrap(), text);
            assert_eq!(fs::read_link(path("link")).unwrap(), Path::new("sub/file"));
        }
        std::os::unix::fs::symlink("circle", path("circle")).unwrap();
        assert!(Staged::create(&path("circle")).is_err());
    }

    /// A symlink in a layout is replaced.
    #[cfg(unix)]
    #[test]
    fn a_symlink_in_a_layout_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("outside"), "precious").unwrap();
        std::os::unix::fs::symlink("outside", path("index.json")).unwrap();
        write_in(Folder::open(directory.path()).unwrap(), "index.json", b"new").unwrap();
        assert_eq!(fs::read_to_string(path("outside")).unwrap(), "precious");
        assert_eq!(fs::read_to_string(path("index.json")).unwrap(), "new");
        assert!(fs::symlink_metadata(path("index.json")).unwrap().is_file());
    }
}
