use std::collections::BTreeMap;

use crate::layer::path::Path;
use crate::layer::whiteout::Whiteout;

/// One entry of a layer, as its header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, confined to the root.
    pub path: Path,
    /// What it is.
    pub kind: Kind,
    /// What there is to know about it.
    pub metadata: Metadata,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Something that will be there.
    File(FileKind),
    /// One more name of a file.
    HardLink {
        /// Another name of it, confined to the root.
        target: Path,
    },
    /// Nothing that will be there: it hides what lower layers have.
    Whiteout(Whiteout),
}

/// What a file is, as file systems know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A file of this many bytes; the holes of sparse files count.
    Regular {
        /// How many bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link, whose target is not confined to anything until somebody follows it.
    Symlink {
        /// Where it leads, byte for byte.
        target: Box<[u8]>,
    },
    /// A character device.
    CharacterDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// What there is to know about a file beside its name and its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions, with the bits for set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// The number of the owner.
    pub uid: u64,
    /// The number of the group.
    pub gid: u64,
    /// The name of the owner, which engines pass over.
    pub user: Option<Box<str>>,
    /// The name of the group, which engines pass over.
    pub group: Option<Box<str>>,
    /// When it was changed.
    pub modified: Time,
    /// Extended attributes.
    pub xattrs: BTreeMap<Box<str>, Box<[u8]>>,
}

/// A moment, as seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanoseconds: u32,
}

impl Metadata {
    /// That of a directory which no entry describes.
    pub(crate) fn of_a_directory() -> Metadata {
        Metadata { mode: 0o755, ..Metadata::default() }
    }
}
