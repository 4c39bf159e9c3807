use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A path inside the root of an image: relative, without empty components, `.` and `..`. That of the root itself is
/// empty.
///
/// Paths are bytes, as in file systems; `Display` escapes unprintable characters. They are ordered by their bytes.
/// Clones share the bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<[u8]>);

/// The maximum length of a path in bytes, as in Linux.
pub(crate) const MAX_PATH_BYTES: usize = 4096;

impl Path {
    /// Returns the path of the root.
    pub fn root() -> Path {
        Path::default()
    }

    /// Normalizes a name without access to the files. A name that would lead out of the root is confined to it.
    ///
    /// ```
    /// # use ocikit_archive::layer::Path;
    /// assert_eq!(Path::confined(b"./usr//bin/").to_string(), "usr/bin");
    /// assert_eq!(Path::confined(b"/../etc/../passwd").to_string(), "passwd");
    /// ```
    pub fn confined(name: &[u8]) -> Path {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        Path(parts.join(&b'/').into())
    }

    /// Returns the parent directory; `None` for the root.
    pub fn parent(&self) -> Option<Path> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Path(self.0[..end].into()))
    }

    /// Returns the last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Returns the path of a name in this directory; a name with several components is normalized.
    ///
    /// ```
    /// # use ocikit_archive::layer::Path;
    /// assert_eq!(Path::confined(b"usr/bin").child(b"tool").to_string(), "usr/bin/tool");
    /// ```
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Path {
        Path::confined(&[&self.0, &b"/"[..], name].concat())
    }

    /// Returns the path of a plain name in this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Path {
        let slash: &[u8] = if self.is_root() { b"" } else { b"/" };
        Path([&self.0, slash, name].concat().into())
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the components, from the root on.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// Returns the parent directories, the root first, without the path itself.
    pub fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let root = (!self.is_root()).then_some(0);
        root.into_iter().chain(slashes).map(|end| &self.0[..end])
    }

    /// Returns whether this path is below another one, or equal.
    pub fn is_within(&self, directory: &Path) -> bool {
        let Some(rest) = self.0.strip_prefix(&*directory.0) else { return false };
        directory.is_root() || rest.is_empty() || rest[0] == b'/'
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the range of the paths below this one, in a map that is ordered by bytes.
    pub(crate) fn below(&self) -> (std::ops::Bound<Path>, std::ops::Bound<Path>) {
        use std::ops::Bound::{Excluded, Unbounded};
        if self.is_root() {
            return (Excluded(Path::root()), Unbounded);
        }
        let with = |byte: u8| Path([&self.0[..], &[byte]].concat().into());
        (Excluded(with(b'/')), Excluded(with(b'/' + 1)))
    }
}

impl Borrow<[u8]> for Path {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    character if character.is_control() => write!(f, "{}", character.escape_default())?,
                    character => write!(f, "{character}")?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_confined() {
        for (name, path) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            (".", ""),
            ("", ""),
            ("/", ""),
            ("/etc/passwd", "etc/passwd"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("a/b/..", "a"),
        ] {
            assert_eq!(Path::confined(name.as_bytes()).to_string(), path, "{name}");
        }
    }

    #[test]
    fn a_path_knows_its_parts() {
        let path = Path::confined(b"usr/lib/x");
        assert_eq!(path.name(), b"x");
        assert_eq!(path.parent().unwrap().to_string(), "usr/lib");
        assert_eq!(path.ancestors().collect::<Vec<_>>(), [&b""[..], b"usr", b"usr/lib"]);
        assert_eq!(Path::confined(b"usr").parent(), Some(Path::root()));
        assert_eq!((Path::root().parent(), Path::root().ancestors().count(), Path::root().name()), (None, 0, &b""[..]));
        for (directory, within) in
            [("", true), ("usr", true), ("usr/lib", true), ("usr/lib/x", true), ("us", false), ("usr/lib/x/y", false)]
        {
            assert_eq!(path.is_within(&Path::confined(directory.as_bytes())), within, "{directory}");
        }
    }

    #[test]
    fn paths_below_a_directory_are_a_range() {
        let names = ["", "a", "a-b", "a.b", "a/b", "a/b/c", "a0", "ab", "b"];
        let set: std::collections::BTreeSet<_> = names.iter().map(|name| Path::confined(name.as_bytes())).collect();
        let below = |name: &str| -> Vec<_> {
            set.range(Path::confined(name.as_bytes()).below()).map(ToString::to_string).collect()
        };
        assert_eq!(below("a"), ["a/b", "a/b/c"]);
        assert_eq!(below("b"), [""; 0]);
        assert_eq!(below("").len(), names.len() - 1);
    }

    #[test]
    fn unprintable_characters_are_escaped() {
        assert_eq!(Path::confined(b"a\n\x1b[0m\xff\\\xc3\xa4").to_string(), "a\\n\\u{1b}[0m\\xff\\\\ä");
    }
}
