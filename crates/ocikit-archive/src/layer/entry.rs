use std::collections::BTreeMap;
use std::fmt;

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

/// As RFC 3339 has it, in UTC.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 24 * 60 * 60;
        let (days, second) = (self.seconds.div_euclid(DAY), self.seconds.rem_euclid(DAY));
        // Days are counted from the first of March of a year that four hundred divides, so that leap days come last.
        let shifted = i128::from(days) + 719_468;
        let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanoseconds > 0 {
            write!(f, ".{}", format!("{:09}", self.nanoseconds).trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl Metadata {
    /// The memory that extended attributes take, in bytes.
    pub(crate) fn xattr_bytes(&self) -> usize {
        const MAP_BYTES: usize = 64;
        self.xattrs.iter().map(|(name, value)| MAP_BYTES + name.len() + value.len()).sum()
    }

    /// That of a directory which no entry describes.
    pub(crate) fn of_a_directory() -> Metadata {
        Metadata { mode: 0o755, ..Metadata::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_704_067_199, 500_000_000, "2023-12-31T23:59:59.5Z"),
            (-1, 1, "1969-12-31T23:59:59.000000001Z"),
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Time { seconds, nanoseconds }.to_string(), text);
        }
        // No number of seconds is too far away to be shown.
        for seconds in [i64::MIN, i64::MAX] {
            assert!(Time { seconds, nanoseconds: 0 }.to_string().ends_with('Z'));
        }
    }
}
