//! Directories below a root, opened without following a symlink.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::layer::Path;

/// The maximum number of open directories: with those of the queue, below the usual limit of 1024 open files.
const MAX_OPEN: usize = 256;

/// The mode of directories until everything in them is written.
const WORKING_MODE: Mode = Mode::RWXU;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// How a path of several components is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// With `openat2`, which resolves the path beneath the root in one call. Linux 5.6 and later.
    #[cfg(target_os = "linux")]
    Beneath,
    /// One component after the other, none of which may be a symlink.
    Stepwise,
}

impl Opening {
    /// Returns the best one of this machine. `openat2` is missing in old kernels, and filtered in some sandboxes.
    pub(crate) fn detect(root: &OwnedFd) -> Opening {
        #[cfg(target_os = "linux")]
        if open_beneath(root, b".").is_ok() {
            return Opening::Beneath;
        }
        let _ = root;
        Opening::Stepwise
    }
}

#[cfg(target_os = "linux")]
fn open_beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, DIRECTORY, Mode::empty(), resolve)
}

/// The directories below a root. Recently used ones stay open.
#[derive(Debug)]
pub(crate) struct Directories {
    root: Arc<OwnedFd>,
    opening: Opening,
    open: HashMap<Path, Arc<OwnedFd>>,
}

impl Directories {
    /// Opens a root. Symlinks in its own path are followed.
    pub(crate) fn below(path: &std::path::Path) -> io::Result<Directories> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        let opening = Opening::detect(&root);
        Ok(Directories::with(root, opening))
    }

    pub(crate) fn with(root: OwnedFd, opening: Opening) -> Directories {
        Directories { root: Arc::new(root), opening, open: HashMap::new() }
    }

    pub(crate) fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// Opens an existing directory.
    pub(crate) fn open(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        self.get(path).map_err(|error| failed("open directory", path, error))
    }

    fn get(&mut self, path: &Path) -> rustix::io::Result<Arc<OwnedFd>> {
        if path.is_root() {
            return Ok(self.root.clone());
        }
        if let Some(open) = self.open.get(path) {
            return Ok(open.clone());
        }
        let open = Arc::new(self.open_anew(path)?);
        self.keep(path, &open);
        Ok(open)
    }

    fn open_anew(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        // Siblings are often opened after each other, and their directory is open then.
        if let Some(parent) = path.parent().and_then(|parent| self.open.get(&parent)) {
            return openat(parent, path.name(), DIRECTORY, Mode::empty());
        }
        #[cfg(target_os = "linux")]
        if self.opening == Opening::Beneath {
            match open_beneath(&self.root, path.as_bytes()) {
                // Another process renamed a directory, or the path is longer than a system call accepts.
                Err(Errno::AGAIN | Errno::NAMETOOLONG) => {}
                opened => return opened,
            }
        }
        let mut at = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for part in path.parts() {
            at = openat(&at, part, DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    fn keep(&mut self, path: &Path, open: &Arc<OwnedFd>) {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(path.clone(), open.clone());
    }

    /// Opens a directory, which is created with the directories above it if it does not exist.
    pub(crate) fn ensure(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        if path.is_root() || self.open.contains_key(path) {
            return self.open(path);
        }
        // From the deepest open or existing directory down, so that a path of two thousand components takes no recursion,
        // and layers that alternate between two such paths do not open two thousand directories for each entry.
        let mut missing = Vec::new();
        let mut at = path.clone();
        let mut open = loop {
            if at.is_root() {
                break self.root.clone();
            }
            if let Some(open) = self.open.get(&at) {
                break open.clone();
            }
            let parent = at.parent().unwrap_or_default();
            // Below an open directory, creating is the cheaper question.
            if !parent.is_root() && !self.open.contains_key(&parent) {
                match self.get(&at) {
                    Ok(open) => break open,
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed("open directory", &at, error)),
                }
            }
            missing.push(std::mem::replace(&mut at, parent));
        };
        for path in missing.iter().rev() {
            match mkdirat(&open, path.name(), WORKING_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("create directory", path, error)),
            }
            let next = openat(&open, path.name(), DIRECTORY, Mode::empty());
            open = Arc::new(next.map_err(|error| failed("open directory", path, error))?);
            self.keep(path, &open);
        }
        Ok(open)
    }

    /// Removes a file or an empty directory, if it exists.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<()> {
        self.open.remove(path);
        let parent = match self.get(&path.parent().unwrap_or_default()) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed("open directory", path, error)),
        };
        let removed = match unlinkat(&parent, path.name(), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(&parent, path.name(), AtFlags::REMOVEDIR),
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", path, error)),
        }
    }
}

/// Returns the error of a failed system call for a path below the root.
pub(crate) fn failed(verb: &'static str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::File { verb, path: shown(path).into(), source: error.into() }
}

/// Returns a path as it is shown in messages.
pub(crate) fn shown(path: &Path) -> String {
    if path.is_root() { ".".to_owned() } else { path.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(test: impl Fn(&std::path::Path, Directories)) {
        #[cfg(target_os = "linux")]
        let ways = [Opening::Beneath, Opening::Stepwise];
        #[cfg(not(target_os = "linux"))]
        let ways = [Opening::Stepwise];
        for way in ways {
            let place = tempfile::tempdir().unwrap();
            let root = place.path().join("root");
            std::fs::create_dir(&root).unwrap();
            let handle = rustix::fs::open(&root, DIRECTORY, Mode::empty()).unwrap();
            test(&root, Directories::with(handle, way));
        }
    }

    fn path(name: &str) -> Path {
        Path::confined(name.as_bytes())
    }

    #[test]
    fn directories_are_created_and_opened_again() {
        both(|root, mut directories| {
            directories.ensure(&path("a/b/c")).unwrap();
            assert!(root.join("a/b/c").is_dir());
            directories.open.clear();
            directories.open(&path("a/b/c")).unwrap();
            directories.open.clear();
            directories.ensure(&path("a/b/c/d")).unwrap();
            assert!(directories.open(&path("a/x")).is_err());
            directories.remove(&path("a/b/c/d")).unwrap();
            directories.remove(&path("no/such/file")).unwrap();
            assert!(!root.join("a/b/c/d").exists());
        });
    }

    #[test]
    fn symlinks_are_never_followed() {
        both(|root, mut directories| {
            std::fs::create_dir_all(root.join("real/deep")).unwrap();
            std::fs::create_dir_all(root.join("../outside/deep")).unwrap();
            for (name, target) in [("inside", "real"), ("out", "../outside"), ("absolute", "/"), ("loop", "loop")] {
                std::os::unix::fs::symlink(target, root.join(name)).unwrap();
                for deep in ["", "/deep", "/deep/new"] {
                    let path = path(&format!("{name}{deep}"));
                    directories.open.clear();
                    assert!(directories.open(&path).is_err(), "{path}");
                    assert!(directories.ensure(&path).is_err(), "{path}");
                }
            }
            assert!(!root.join("../outside/deep/new").exists());
            assert!(!root.join("real/deep/new").exists());
        });
    }

    #[test]
    fn a_directory_that_becomes_a_symlink_is_not_followed() {
        both(|root, mut directories| {
            std::fs::create_dir(root.join("../outside")).unwrap();
            let open = directories.ensure(&path("a")).unwrap();
            std::fs::rename(root.join("a"), root.join("moved")).unwrap();
            std::os::unix::fs::symlink("../outside", root.join("a")).unwrap();
            // The handle is still that of the directory, wherever it is now.
            mkdirat(&open, "x", WORKING_MODE).unwrap();
            assert!(root.join("moved/x").exists());
            directories.open.clear();
            assert!(directories.ensure(&path("a/y")).is_err());
            assert_eq!(std::fs::read_dir(root.join("../outside")).unwrap().count(), 0);
        });
    }

    #[test]
    fn long_paths_are_opened() {
        both(|_, mut directories| {
            let long = path(&vec!["abcdefg"; 511].join("/"));
            directories.ensure(&long).unwrap();
            directories.open.clear();
            directories.open(&long).unwrap();
            let longest = path(&vec!["abcdefg"; 530].join("/"));
            directories.ensure(&longest).unwrap();
            directories.open.clear();
            directories.open(&longest).unwrap();
        });
    }
}
