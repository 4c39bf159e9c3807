//! What the tables of all formats say of a file.

use std::collections::HashSet;

use ocikit_archive::layer::{Entry, FileKind, Kind, Path};

use crate::error::{Error, Result};

/// What a table says of the type of a file.
#[derive(Debug)]
pub(super) struct ListedType<'a> {
    /// What the table is called in errors.
    pub table: &'static str,
    pub name: &'a [u8],
    /// The type, such as `reg`.
    pub kind: &'a str,
    pub size: u64,
    /// The target of a link.
    pub target: &'a [u8],
    /// The major and the minor number of a device.
    pub device: (u64, u64),
}

impl ListedType<'_> {
    /// Returns the type of an entry of a layer.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a type that no entry has.
    pub(super) fn kind(&self) -> Result<Kind> {
        let is_link = matches!(self.kind, "symlink" | "hardlink");
        if is_link && (self.target.is_empty() || self.target.contains(&0)) {
            return Err(self.invalid("is a link without a target"));
        }
        let number = |number: u64| u32::try_from(number).map_err(|_| self.invalid("is an impossible device"));
        let (major, minor) = (number(self.device.0)?, number(self.device.1)?);
        Ok(match self.kind {
            "reg" if self.name.ends_with(b"/") => Kind::File(FileKind::Directory),
            "reg" => Kind::File(FileKind::Regular { size: self.size }),
            "dir" => Kind::File(FileKind::Directory),
            "symlink" => Kind::File(FileKind::Symlink { target: self.target.into() }),
            "hardlink" => Kind::HardLink { target: Path::confined(self.target) },
            "char" => Kind::File(FileKind::CharacterDevice { major, minor }),
            "block" => Kind::File(FileKind::BlockDevice { major, minor }),
            "fifo" => Kind::File(FileKind::Fifo),
            _ => return Err(self.invalid("is of an unknown type")),
        })
    }

    pub(super) fn invalid(&self, problem: &str) -> Error {
        let name = String::from_utf8_lossy(self.name);
        Error::invalid(self.table, format_args!("`{}` {problem}", name.escape_debug()))
    }
}

/// Returns whether a hard link is before its target. No tar of a layer has such links: one with a target in a lower layer has none
/// in its own.
pub(super) fn has_links_to_later_files(entries: &[Entry]) -> bool {
    let mut awaited = HashSet::new();
    entries.iter().any(|entry| {
        if let Kind::HardLink { target } = &entry.kind {
            awaited.insert(target);
        }
        matches!(entry.kind, Kind::File(_)) && awaited.contains(&entry.path)
    })
}

#[cfg(test)]
mod tests {
    use ocikit_archive::layer::{Metadata, Time};

    use super::*;

    /// A name, and the target if it is a hard link.
    type Name<'a> = (&'a str, Option<&'a str>);

    fn entries(names: &[Name<'_>]) -> Vec<Entry> {
        let metadata = Metadata {
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            modified: Time::default(),
            xattrs: Default::default(),
        };
        let kind = |target: Option<&str>| match target {
            Some(target) => Kind::HardLink { target: Path::confined(target.as_bytes()) },
            None => Kind::File(FileKind::Regular { size: 0 }),
        };
        let entry = |(name, target): &Name<'_>| {
            Entry::named(name.as_bytes(), kind(*target), metadata.clone()).unwrap().unwrap()
        };
        names.iter().map(entry).collect()
    }

    #[test]
    fn links_come_after_their_targets() {
        let cases: [(&[Name<'_>], bool); 5] = [
            (&[("a", None), ("b", Some("a")), ("c", Some("b"))], false),
            (&[("b", Some("a")), ("a", None)], true),
            (&[("c", Some("b")), ("b", Some("a")), ("a", None)], true),
            // The target is in a lower layer.
            (&[("b", Some("lower"))], false),
            (&[("a", None), ("b", Some("./a"))], false),
        ];
        for (names, expected) in cases {
            assert_eq!(has_links_to_later_files(&entries(names)), expected, "{names:?}");
        }
    }
}
