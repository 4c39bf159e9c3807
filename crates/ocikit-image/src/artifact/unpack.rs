//! The directory of an artifact is unpacked into a new directory, where nothing else is.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use ocikit_archive::layer::{Budget, Entry, FileKind, Kind, Reader, Time};
use ocikit_archive::{Error, Result};

/// Unpacks a tar whose names begin with a prefix. Symlinks are created last, so that nothing is written through them, and
/// have to lead to a place below the directory.
pub(super) fn unpack(tar: impl Read, budget: &Budget, prefix: &Path, into: &Path) -> Result<()> {
    let mut reader = Reader::within(budget, tar);
    let (mut files, mut links, mut directories) = (HashSet::new(), Vec::new(), Vec::new());
    fs::create_dir(into)?;
    while let Some(entry) = reader.next_entry()? {
        let relative = below(entry.path.as_bytes(), prefix).ok_or_else(|| refuse(&entry, OUTSIDE))?;
        let path = into.join(&relative);
        if let Some(parent) = path.parent().filter(|_| !relative.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        match &entry.kind {
            Kind::File(FileKind::Directory) => {
                fs::create_dir_all(&path)?;
                directories.push((path, entry.metadata.mode, entry.metadata.modified));
            }
            _ if relative.as_os_str().is_empty() => {
                return Err(refuse(&entry, "the artifact says that it is a directory"));
            }
            Kind::File(FileKind::Regular { .. }) => {
                let mut file = File::create_new(&path)?;
                io::copy(&mut reader, &mut file)?;
                set_times(&file, entry.metadata.modified)?;
                set_mode(&path, entry.metadata.mode)?;
                files.insert(relative);
            }
            Kind::File(FileKind::Symlink { target }) => {
                let target = path_of(target).filter(|target| stays_below(&relative, target));
                links.push((path, target.ok_or_else(|| refuse(&entry, "the symlink leads out of the directory"))?));
            }
            Kind::HardLink { target } => {
                let target = below(target.as_bytes(), prefix).filter(|target| files.contains(target));
                let target = target.ok_or_else(|| refuse(&entry, "the hard link is to no earlier file"))?;
                fs::hard_link(into.join(&target), &path)?;
                files.insert(relative);
            }
            Kind::File(FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. } | FileKind::Fifo) => {
                return Err(refuse(&entry, "it is a device or a pipe"));
            }
            Kind::Whiteout(_) => return Err(refuse(&entry, "it is a whiteout, which only images have")),
        }
    }
    for (path, target) in links {
        symlink(&target, &path)?;
    }
    // From the innermost, so that a directory without write permission is complete.
    for (path, mode, modified) in directories.into_iter().rev() {
        if let Ok(directory) = File::open(&path) {
            // Windows does not open directories.
            let _ = set_times(&directory, modified);
        }
        // The owner must be able to rename and remove it.
        set_mode(&path, mode | 0o700)?;
    }
    Ok(())
}

const OUTSIDE: &str = "it is not below the directory that the title names";

fn refuse(entry: &Entry, problem: &'static str) -> Error {
    Error::Layer { path: entry.path.to_string(), problem }
}

/// Returns the path below a prefix; `None` for a path elsewhere.
fn below(name: &[u8], prefix: &Path) -> Option<PathBuf> {
    let path = path_of(name)?;
    let path = path.strip_prefix(prefix).ok()?;
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| path.to_owned())
}

/// Returns whether a symlink leads to a place below the directory: as many `..` as it is deep, and then names only. With
/// `..` behind a name, another symlink could lead out.
fn stays_below(link: &Path, target: &Path) -> bool {
    let depth = link.components().count().saturating_sub(1);
    let ups = target.components().take_while(|part| matches!(part, Component::ParentDir | Component::CurDir));
    let ups: Vec<_> = ups.collect();
    let rest = target.components().skip(ups.len());
    let up = ups.iter().filter(|part| matches!(part, Component::ParentDir)).count();
    up <= depth && rest.into_iter().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(unix)]
fn path_of(name: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    (!name.contains(&0)).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(not(unix))]
fn path_of(name: &[u8]) -> Option<PathBuf> {
    // A backslash separates names on Windows.
    std::str::from_utf8(name).ok().filter(|name| !name.contains(['\0', '\\', ':'])).map(PathBuf::from)
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "symlinks are not supported on this system"))
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

fn set_times(file: &File, modified: Time) -> io::Result<()> {
    let Ok(seconds) = u64::try_from(modified.seconds) else { return Ok(()) };
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, modified.nanoseconds));
    time.map_or(Ok(()), |time| file.set_times(FileTimes::new().set_modified(time)))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use ocikit_archive::Compression;
    use ocikit_archive::layer::{Metadata, Path as LayerPath, Writer};

    use super::*;

    fn entry(path: &str, kind: Kind) -> (Entry, Vec<u8>) {
        let contents =
            if let Kind::File(FileKind::Regular { size }) = kind { vec![b'x'; size as usize] } else { Vec::new() };
        let metadata = Metadata { mode: 0o4755, ..Metadata::default() };
        (Entry { path: LayerPath::confined(path.as_bytes()), kind, metadata }, contents)
    }

    fn file(path: &str) -> (Entry, Vec<u8>) {
        entry(path, Kind::File(FileKind::Regular { size: 3 }))
    }

    fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
        entry(path, Kind::File(FileKind::Symlink { target: target.as_bytes().into() }))
    }

    fn unpacked(entries: &[(Entry, Vec<u8>)]) -> (tempfile::TempDir, Result<()>) {
        let mut layer = Writer::new(&Compression::None.into(), Vec::new()).unwrap();
        for (entry, contents) in entries {
            layer.append(entry, &contents[..]).unwrap();
        }
        let tar = layer.finish().unwrap().0;
        let directory = tempfile::tempdir().unwrap();
        let into = directory.path().join("0");
        let outcome = unpack(&tar[..], &Budget::new(), Path::new("d"), &into);
        (directory, outcome)
    }

    #[test]
    fn a_directory_is_unpacked() {
        let hard = entry("d/sub/hard", Kind::HardLink { target: LayerPath::confined(b"d/sub/a") });
        let (directory, outcome) = unpacked(&[
            entry("d", Kind::File(FileKind::Directory)),
            file("d/sub/a"),
            hard,
            link("d/sub/up", "../b"),
            link("d/to-sub", "sub"),
            file("d/b"),
        ]);
        outcome.unwrap();
        let at = |name: &str| directory.path().join("0").join(name);
        for name in ["sub/a", "sub/hard", "sub/up", "to-sub/a", "b"] {
            assert_eq!(fs::read(at(name)).unwrap(), b"xxx", "{name}");
        }
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(at("b")).unwrap().permissions().mode() & 0o7777, 0o755, "no set-user-ID bit");
    }

    #[test]
    fn nothing_leads_out() {
        let fifo = entry("d/p", Kind::File(FileKind::Fifo));
        let hard = entry("d/h", Kind::HardLink { target: LayerPath::confined(b"etc/passwd") });
        for (name, entries) in [
            ("outside", vec![file("e/a")]),
            ("root", vec![file("a")]),
            ("upwards", vec![file("d/../../a")]),
            ("absolute link", vec![link("d/l", "/etc")]),
            ("link upwards", vec![link("d/l", "..")]),
            ("link behind a name", vec![link("d/x/l", ".."), link("d/m", "x/l/../..")]),
            ("through a link", vec![link("d/l", "sub"), file("d/l/a")]),
            ("file twice", vec![file("d/a"), file("d/a")]),
            ("hard link", vec![hard]),
            ("pipe", vec![fifo]),
            ("file instead of directory", vec![file("d")]),
        ] {
            let (directory, outcome) = unpacked(&entries);
            assert!(outcome.is_err(), "{name}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{name}: nothing outside");
        }
    }
}
