use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// The maximum size of a file that is read, in bytes. Lock files are larger only in very large projects.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The maximum number of entries of a directory that is listed.
const MAX_ENTRIES: usize = 10_000;

/// The files of a project. Symlinks count as missing, because they could lead to files outside of it.
#[derive(Debug)]
pub(super) struct Project<'a> {
    directory: &'a Path,
}

impl Project<'_> {
    pub(super) fn at(directory: &Path) -> Project<'_> {
        Project { directory }
    }

    /// Returns whether a regular file exists.
    pub(super) fn has(&self, path: &str) -> bool {
        // A symlink in place of a directory is one, too.
        let parts: Vec<_> = path.split('/').collect();
        let is_real = |count: usize| {
            let found = self.directory.join(parts[..count].join("/")).symlink_metadata();
            found.is_ok_and(|found| if count == parts.len() { found.is_file() } else { found.is_dir() })
        };
        (1..=parts.len()).all(is_real)
    }

    /// Returns whether a directory exists.
    pub(super) fn has_directory(&self, name: &str) -> bool {
        self.directory.join(name).symlink_metadata().is_ok_and(|found| found.is_dir())
    }

    /// Reads a text file; `None` if it does not exist, is too large or is not UTF-8.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        if !self.has(path) {
            return None;
        }
        let mut text = String::new();
        let file = File::open(self.directory.join(path)).ok()?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).ok()?;
        (text.len() as u64 <= MAX_FILE_BYTES).then_some(text)
    }

    /// Returns the sorted names in a directory that consist of letters, digits, `.`, `_` and `-`.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.directory.join(directory)).into_iter().flatten().take(MAX_ENTRIES);
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| is_plain(name)).collect();
        names.sort();
        names
    }

    /// Returns the first of several files that exists.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// Returns the files that exist.
    pub(super) fn existing<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        names.iter().copied().filter(|name| self.has(name)).collect()
    }
}

/// Returns whether a name can stand in an instruction without quotes.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['.', '-'])
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
}
