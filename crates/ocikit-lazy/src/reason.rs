//! What the tables of contents of eStargz and zstd:chunked cannot express.

use std::collections::HashMap;

use ocikit_archive::layer::{Path, RawEntry, RawKind, Time};
use ocikit_spec::Digest;

use crate::lost_xattr::LostXattr;

/// A part of an image that was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A layer.
    #[error("layer {layer} was not converted: {reason}")]
    Layer {
        /// The layer.
        layer: Digest,
        /// The reason.
        reason: Reason,
    },
    /// An image without a layer that SOCI can index and that is large enough.
    #[error("image {image} has no SOCI index: no gzip or uncompressed layer has {min_layer_size} bytes")]
    NoLayers {
        /// The manifest of the image.
        image: Digest,
        /// The size in bytes from which layers are indexed.
        min_layer_size: u64,
    },
    /// An extended attribute that Nydus cannot hold.
    #[error("image {image} loses the extended attribute {:?} of `{}`, which Nydus cannot hold", lost.name, lost.path)]
    LostXattr {
        /// The manifest of the image.
        image: Digest,
        /// The attribute.
        lost: LostXattr,
    },
}

impl Warning {
    /// Returns the layer or image.
    pub fn digest(&self) -> Digest {
        match self {
            Warning::Layer { layer: digest, .. }
            | Warning::NoLayers { image: digest, .. }
            | Warning::LostXattr { image: digest, .. } => *digest,
        }
    }

    /// Returns whether a layer or image was kept, and not only a part of its metadata lost.
    pub fn is_kept(&self) -> bool {
        match self {
            Warning::Layer { .. } | Warning::NoLayers { .. } => true,
            Warning::LostXattr { .. } => false,
        }
    }
}

/// Why a layer was left as it is: its readers would fail, or show other files than those of the layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A hard link whose target is not before it in the same layer.
    #[error("`{path}` is a hard link to `{target}`, which is not before it in the layer")]
    HardLink {
        /// The link.
        path: Path,
        /// Its target.
        target: String,
    },
    /// Two entries with one path.
    #[error("`{path}` is in it twice")]
    DuplicatePath {
        /// The path.
        path: Path,
    },
    /// An entry without an entry for its directory before it. zstd:chunked only.
    #[error("the directory of `{path}` has no entry before it")]
    MissingParent {
        /// The path.
        path: Path,
    },
    /// A name, a target or the name of an extended attribute that is not UTF-8, which JSON needs.
    #[error("`{path}` has a name, link or attribute that is not UTF-8")]
    NotUtf8 {
        /// The path of the entry.
        path: Path,
    },
    /// A sparse file in a format of GNU tar.
    #[error("`{path}` is a sparse file")]
    Sparse {
        /// The path of the file.
        path: Path,
    },
    /// A type of entry that readers do not know.
    #[error("`{path}` has the unknown type `{}`", char::from(*entry_type).escape_default())]
    UnknownType {
        /// The path of the entry.
        path: Path,
        /// The byte of the type in the header.
        entry_type: u8,
    },
    /// A time before the year 0 or after 9999, which RFC 3339 cannot express.
    #[error("`{path}` has a time before the year 0 or after 9999")]
    Time {
        /// The path of the entry.
        path: Path,
    },
    /// A global extended header, which readers take for an entry of an unknown type.
    #[error("it has a global extended header")]
    GlobalHeader,
    /// A file at the path of one that eStargz adds to each layer. eStargz only.
    #[error("`{path}` is at the path of a file that the format adds")]
    OwnFile {
        /// The path.
        path: Path,
    },
    /// The table of contents would be larger than readers accept.
    #[error("its table of contents would have {bytes} bytes, more than readers accept")]
    TableSize {
        /// Its size in bytes.
        bytes: u64,
    },
    /// The layer is compressed with zstd, xz or bzip2, which SOCI cannot index.
    #[error("its compression is neither gzip nor none")]
    Compression,
    /// The layer is distributed from elsewhere.
    #[error("it is distributed from elsewhere")]
    Foreign,
}

/// The first and the last second that RFC 3339 can express.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// The paths of a layer, as hashes: 20 to 40 bytes each.
#[derive(Default)]
pub(crate) struct Paths {
    /// The value tells whether it is a directory, which no hard link may name.
    known: HashMap<[u8; 16], bool>,
    needs_parents: bool,
}

impl Paths {
    /// Refuses entries without an entry for their directory: containers/storage gives such a directory mode 0000.
    pub(crate) fn with_parents() -> Paths {
        Paths { needs_parents: true, ..Paths::default() }
    }

    /// Adds an entry of a layer, unless a table of contents cannot express it.
    pub(crate) fn add(&mut self, entry: &RawEntry) -> Result<(), Reason> {
        let path = || entry.path.clone();
        match entry.kind {
            RawKind::Sparse => return Err(Reason::Sparse { path: path() }),
            RawKind::Other(entry_type) => return Err(Reason::UnknownType { path: path(), entry_type }),
            RawKind::HardLink => {
                let target = Path::confined(&entry.link);
                if self.known.get(&key(&target)) != Some(&false) {
                    return Err(Reason::HardLink { path: path(), target: target.to_string() });
                }
            }
            RawKind::Regular
            | RawKind::Symlink
            | RawKind::CharacterDevice
            | RawKind::BlockDevice
            | RawKind::Directory
            | RawKind::Fifo => {}
        }
        let texts = [&entry.name, &entry.link].into_iter().map(|text| &**text).chain(entry.xattrs().into_keys());
        if texts.into_iter().any(|text| std::str::from_utf8(text).is_err()) {
            return Err(Reason::NotUtf8 { path: path() });
        }
        let times = [Some(entry.modified), entry.accessed, entry.changed];
        // One second less, because times are rounded.
        let is_out = |time: &Time| !SECONDS.contains(&time.seconds) || time.seconds == *SECONDS.end();
        if times.iter().flatten().any(is_out) {
            return Err(Reason::Time { path: path() });
        }
        if let Some(parent) = entry.path.parent().filter(|parent| self.needs_parents && !parent.is_root())
            && self.known.get(&key(&parent)) != Some(&true)
        {
            return Err(Reason::MissingParent { path: path() });
        }
        match self.known.insert(key(&entry.path), entry.kind == RawKind::Directory) {
            None => Ok(()),
            Some(_) => Err(Reason::DuplicatePath { path: path() }),
        }
    }
}

/// Returns the first half of a digest, for which no collision can be made.
pub(crate) fn key(path: &Path) -> [u8; 16] {
    let digest = Digest::sha256_of(path.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&digest.as_bytes()[..16]);
    key
}

/// Returns the name of a type in a table of contents.
pub(crate) fn type_name(kind: RawKind) -> &'static str {
    match kind {
        RawKind::Regular | RawKind::Sparse | RawKind::Other(_) => "reg",
        RawKind::HardLink => "hardlink",
        RawKind::Symlink => "symlink",
        RawKind::CharacterDevice => "char",
        RawKind::BlockDevice => "block",
        RawKind::Directory => "dir",
        RawKind::Fifo => "fifo",
    }
}
