//! Hashes of the source of a build.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ocikit_spec::{Algorithm, Digest, Hasher};

use super::limits::MAX_SOURCE_ENTRIES;
use crate::error::{Error, Result};

/// The lock files whose hashes a result has.
const LOCK_FILES: [&str; 11] = [
    "package-lock.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "requirements.txt",
    "poetry.lock",
    "Pipfile.lock",
    "go.sum",
    "Cargo.lock",
    "Gemfile.lock",
    "composer.lock",
    "gradle.lockfile",
];

/// What precedes everything in the hash of a source, so that no other hash is equal to one.
const SOURCE_DOMAIN: &[u8] = b"ocikit source 1\0";

/// What precedes everything in the hash of the inputs.
const INPUTS_DOMAIN: &[u8] = b"ocikit inputs 1\0";

/// The hashes of a source directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceHash {
    /// The hash of everything in the directory, and of the Dockerfile if that is not in it.
    ///
    /// It covers the path, kind, permission bits and content of every file, the target of every symlink, and every directory.
    /// Lengths precede what varies in length, so two different directories never give the same bytes to hash. Owners and
    /// times do not count: equal trees have equal hashes on two machines.
    pub digest: Digest,
    /// The SHA-256 of each lock file in the directory itself, in hexadecimal digits.
    pub lock_files: BTreeMap<String, String>,
}

impl SourceHash {
    /// Reads a directory. `is_wanted` is called for each entry; if it returns false, reading ends with an error.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] for what cannot be read, or changes while it is read.
    pub fn of(directory: &Path, dockerfile: Option<&[u8]>, is_wanted: &dyn Fn() -> bool) -> Result<SourceHash> {
        let mut hash = Record::new(SOURCE_DOMAIN);
        let mut entries = 0;
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let full = directory.join(&path);
            let failed = |source| Error::Source { path: full.display().to_string(), source };
            entries += 1;
            if entries > MAX_SOURCE_ENTRIES {
                let reason = format!("the source has more than {MAX_SOURCE_ENTRIES} files and directories");
                return Err(failed(io::Error::other(reason)));
            }
            if !is_wanted() {
                return Err(failed(io::Error::from(io::ErrorKind::Interrupted)));
            }
            // The directory itself may be a symlink.
            let is_top = path.as_os_str().is_empty();
            let found = if is_top { fs::metadata(&full) } else { fs::symlink_metadata(&full) };
            let found = found.map_err(failed)?;
            if !is_top {
                hash.entry(&path, &full, &found).map_err(failed)?;
            }
            if found.is_dir() {
                let names = fs::read_dir(&full).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
                let mut below: Vec<_> = names.iter().map(|entry| path.join(entry.file_name())).collect();
                // The last one is taken first.
                below.sort_unstable_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
                waiting.extend(below);
            }
        }
        if let Some(text) = dockerfile {
            hash.field(b"D");
            hash.field(text);
        }
        let mut lock_files = BTreeMap::new();
        for name in LOCK_FILES {
            let path = directory.join(name);
            if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
                let failed = |source| Error::Source { path: path.display().to_string(), source };
                let mut hasher = Hasher::new(Algorithm::Sha256);
                read_into(&path, &mut hasher).map_err(failed)?;
                lock_files.insert(name.to_owned(), hasher.finish().hex());
            }
        }
        Ok(SourceHash { digest: hash.finish(), lock_files })
    }
}

/// Returns the hash of everything that decides the image: the source, the build arguments, and the images that were used.
pub(super) fn inputs_hash(source: &Digest, arguments: &BTreeMap<String, String>, images: &[Digest]) -> Digest {
    let mut hash = Record::new(INPUTS_DOMAIN);
    hash.field(source.to_string().as_bytes());
    hash.number(arguments.len() as u64);
    for (name, value) in arguments {
        hash.field(name.as_bytes());
        hash.field(value.as_bytes());
    }
    for image in images {
        hash.field(image.to_string().as_bytes());
    }
    hash.finish()
}

/// A hash of fields with their lengths.
struct Record(Hasher);

impl Record {
    fn new(domain: &[u8]) -> Record {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(domain);
        Record(hasher)
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn entry(&mut self, path: &Path, full: &Path, found: &Metadata) -> io::Result<()> {
        const PERMISSIONS: u32 = 0o7777;
        let kind = found.file_type();
        let letter: &[u8] = match () {
            () if kind.is_dir() => b"d",
            () if kind.is_file() => b"f",
            () if kind.is_symlink() => b"l",
            () => b"o",
        };
        self.field(letter);
        self.field(path.as_os_str().as_bytes());
        // The permissions of a symlink differ between systems and mean nothing.
        self.number(if kind.is_symlink() { 0 } else { u64::from(found.mode() & PERMISSIONS) });
        if kind.is_symlink() {
            self.field(fs::read_link(full)?.as_os_str().as_bytes());
        }
        if kind.is_file() {
            self.number(found.len());
            if read_into(full, &mut self.0)? != found.len() {
                return Err(io::Error::other("it changed while it was read"));
            }
        }
        Ok(())
    }

    fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// Adds a file to a hash and returns its size.
fn read_into(path: &Path, hasher: &mut Hasher) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A name, and what changes a source.
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));

    fn hash(directory: &Path) -> Digest {
        SourceHash::of(directory, None, &|| true).unwrap().digest
    }

    /// Writes a source with every kind of entry.
    fn source() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::create_dir_all(path("a/empty")).unwrap();
        for (name, text) in [("Dockerfile", "FROM scratch"), ("a/b", "one"), (".hidden", ""), ("go.sum", "x")] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        symlink("a/b", path("link")).unwrap();
        place
    }

    #[test]
    fn hyp_13_equal_trees_have_equal_hashes() {
        let (one, two) = (source(), source());
        assert_eq!(hash(one.path()), hash(two.path()));
        assert_eq!(
            SourceHash::of(one.path(), None, &|| true).unwrap().lock_files["go.sum"],
            Digest::sha256_of(b"x").hex()
        );
    }

    #[test]
    fn hyp_13_every_change_changes_the_hash() {
        let first = hash(source().path());
        let changes: [Change<'_>; 10] = [
            ("a byte", &|path| fs::write(path.join("a/b"), "onf").unwrap()),
            ("a name", &|path| fs::rename(path.join("a/b"), path.join("a/c")).unwrap()),
            ("a mode", &|path| fs::set_permissions(path.join("a/b"), PermissionsExt::from_mode(0o755)).unwrap()),
            ("the Dockerfile", &|path| fs::write(path.join("Dockerfile"), "FROM scratch ").unwrap()),
            ("a hidden file", &|path| fs::remove_file(path.join(".hidden")).unwrap()),
            ("an empty directory", &|path| fs::remove_dir(path.join("a/empty")).unwrap()),
            ("a link", &|path| {
                fs::remove_file(path.join("link")).unwrap();
                symlink("a/c", path.join("link")).unwrap();
            }),
            ("a file instead of a link", &|path| {
                fs::remove_file(path.join("link")).unwrap();
                fs::write(path.join("link"), "a/b").unwrap();
            }),
            // Path and content in a row are equal to those before.
            ("a letter moved from the content to the name", &|path| {
                fs::remove_file(path.join("a/b")).unwrap();
                fs::write(path.join("a/bo"), "ne").unwrap();
            }),
            ("a Dockerfile in a directory", &|path| fs::write(path.join("a/Dockerfile"), "").unwrap()),
        ];
        for (what, change) in changes {
            let place = source();
            change(place.path());
            assert_ne!(hash(place.path()), first, "{what}");
        }
        let place = source();
        let with = |text: &[u8]| SourceHash::of(place.path(), Some(text), &|| true).unwrap().digest;
        assert!(with(b"a") != with(b"b") && with(b"a") != first);
    }

    #[test]
    fn unreadable_sources_are_named() {
        let error = SourceHash::of(Path::new("/no/such/source"), None, &|| true).unwrap_err();
        assert!(error.to_string().contains("/no/such/source"), "{error}");
        assert!(SourceHash::of(source().path(), None, &|| false).is_err());
    }

    #[test]
    fn inputs_are_separated() {
        let source = Digest::sha256_of(b"");
        let hash = |name: &str, value: &str| inputs_hash(&source, &[(name.to_owned(), value.to_owned())].into(), &[]);
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
        assert_ne!(inputs_hash(&source, &BTreeMap::new(), &[source]), inputs_hash(&source, &BTreeMap::new(), &[]));
    }
}
