use crate::layer::path::Path;

/// What an entry hides in the layers below its own, by the [layer
/// specification](https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whiteout {
    /// `.wh.NAME`: hides this path and everything below it.
    Path(Path),
    /// `.wh..wh..opq` (opaque directory): hides the contents of this directory, but not the directory itself.
    Contents(Path),
}

/// The prefix of whiteouts.
const PREFIX: &[u8] = b".wh.";

/// The prefix of names that are reserved for AUFS.
const RESERVED: &[u8] = b".wh..wh.";

/// The name of the opaque whiteout, the only reserved name in the specification.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The meaning of a path in a layer.
pub(crate) enum Meaning {
    File,
    Whiteout(Whiteout),
    /// An internal file of AUFS, which is ignored.
    Leftover,
    /// A whiteout without a valid name.
    Senseless,
}

impl Whiteout {
    /// Returns the whiteout with this name, if it is one.
    ///
    /// ```
    /// # use ocikit_archive::layer::{Path, Whiteout};
    /// let hidden = Whiteout::of(&Path::confined(b"etc/.wh.motd"));
    /// assert_eq!(hidden, Some(Whiteout::Path(Path::confined(b"etc/motd"))));
    /// assert_eq!(Whiteout::of(&Path::confined(b"etc/motd")), None);
    /// ```
    pub fn of(path: &Path) -> Option<Whiteout> {
        match meaning(path) {
            Meaning::Whiteout(whiteout) => Some(whiteout),
            _ => None,
        }
    }

    /// Returns the path that is hidden, or whose contents are.
    pub fn path(&self) -> &Path {
        match self {
            Whiteout::Path(path) | Whiteout::Contents(path) => path,
        }
    }

    /// Returns the path of the file that is the whiteout in a layer; `None` for the root itself.
    pub(crate) fn name(&self) -> Option<Path> {
        match self {
            Whiteout::Contents(directory) => Some(directory.join(OPAQUE)),
            Whiteout::Path(path) => Some(path.parent()?.join(&[PREFIX, path.name()].concat())),
        }
    }

    /// Returns a whiteout of the same type for another path.
    pub(crate) fn at(&self, path: Path) -> Whiteout {
        match self {
            Whiteout::Path(_) => Whiteout::Path(path),
            Whiteout::Contents(_) => Whiteout::Contents(path),
        }
    }
}

pub(crate) fn meaning(path: &Path) -> Meaning {
    let Some(directory) = path.parent() else { return Meaning::File };
    if directory.parts().any(|part| part.starts_with(RESERVED)) {
        return Meaning::Leftover;
    }
    match path.name() {
        OPAQUE => Meaning::Whiteout(Whiteout::Contents(directory)),
        name if name.starts_with(RESERVED) => Meaning::Leftover,
        name => match name.strip_prefix(PREFIX) {
            None => Meaning::File,
            // Joined to the directory, these would hide the directory itself or its parent.
            Some(b"" | b"." | b"..") => Meaning::Senseless,
            Some(name) => Meaning::Whiteout(Whiteout::Path(directory.join(name))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteout_names_are_parsed() {
        for (name, hidden) in [
            ("a/.wh.b", Some("a/b")),
            (".wh.b", Some("b")),
            (".wh..b", Some(".b")),
            ("a/.wh..wh..opq", Some("a/*")),
            (".wh..wh..opq", Some("*")),
            ("a/b", None),
            ("a/.what", None),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".wh..wh.plnk/1", None),
            (".wh..wh.aufs", None),
        ] {
            let found = Whiteout::of(&Path::confined(name.as_bytes())).map(|whiteout| match whiteout {
                Whiteout::Path(path) => path.to_string(),
                Whiteout::Contents(path) => path.join(b"*").to_string(),
            });
            assert_eq!(found.as_deref(), hidden, "{name}");
        }
    }
}
