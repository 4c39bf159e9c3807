use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};
use crate::layer::path::Path;
use crate::layer::whiteout::{Meaning, Whiteout, meaning};

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, confined to the root.
    pub path: Path,
    /// Its type.
    pub kind: Kind,
    /// Its metadata.
    pub metadata: Metadata,
}

impl Entry {
    /// Returns the entry of a layer with this name, which may be that of a whiteout, whose type is ignored; `None` for an
    /// internal file of AUFS.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`](crate::Error::Layer) for a whiteout without a valid name, and a name with a zero byte.
    pub fn named(name: &[u8], kind: Kind, metadata: Metadata) -> Result<Option<Entry>> {
        let path = Path::confined(name);
        let refuse = |problem| Err(Error::Layer { path: path.to_string(), problem });
        if name.contains(&0) {
            return refuse("a name has a zero byte in it");
        }
        let kind = match meaning(&path) {
            Meaning::File => kind,
            Meaning::Whiteout(whiteout) => Kind::Whiteout(whiteout),
            Meaning::Leftover => return Ok(None),
            Meaning::Senseless => return refuse("it is a whiteout without a valid name"),
        };
        Ok(Some(Entry { path, kind, metadata }))
    }

    /// Returns the entry of a whiteout, which is a file with a reserved name; `None` if it would hide the root itself.
    ///
    /// ```
    /// # use ocikit_archive::layer::{Entry, Path, Whiteout};
    /// let entry = Entry::whiteout(Whiteout::Path(Path::confined(b"etc/motd"))).unwrap();
    /// assert_eq!(entry.path, Path::confined(b"etc/.wh.motd"));
    /// ```
    pub fn whiteout(whiteout: Whiteout) -> Option<Entry> {
        let path = whiteout.name()?;
        Some(Entry { path, kind: Kind::Whiteout(whiteout), metadata: Metadata::default() })
    }
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File(FileKind),
    /// Another name of a file.
    HardLink {
        /// An existing name of the file, confined to the root.
        target: Path,
    },
    /// A whiteout, which hides files of lower layers.
    Whiteout(Whiteout),
}

/// The type of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular {
        /// The size in bytes, including holes of sparse files.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symlink.
    Symlink {
        /// The target, byte for byte. It is not confined to the root until it is followed.
        target: Box<[u8]>,
    },
    /// A character device.
    CharacterDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// The metadata of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions, with the set-user-ID, set-group-ID and sticky bits.
    pub mode: u32,
    /// The user ID of the owner.
    pub uid: u64,
    /// The group ID.
    pub gid: u64,
    /// The name of the owner, which container engines ignore.
    pub user: Option<Box<str>>,
    /// The name of the group, which container engines ignore.
    pub group: Option<Box<str>>,
    /// The modification time.
    pub modified: Time,
    /// Extended attributes.
    pub xattrs: BTreeMap<Box<str>, Box<[u8]>>,
}

/// A time, as seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanoseconds: u32,
}

/// Formats the time by RFC 3339, in UTC.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 24 * 60 * 60;
        let (days, second) = (self.seconds.div_euclid(DAY), self.seconds.rem_euclid(DAY));
        // Days are counted from the first of March of a year that is divisible by 400, so that leap days come last.
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

impl Time {
    /// Parses a time by RFC 3339, such as `2024-02-29T12:00:00.5Z` or with an offset; `None` if it is not one. Leap
    /// seconds are the second after them.
    ///
    /// ```
    /// use ocikit_archive::layer::Time;
    ///
    /// let time = Time::parse("1970-01-01T01:00:00+01:00").unwrap();
    /// assert_eq!(time, Time::default());
    /// ```
    pub fn parse(text: &str) -> Option<Time> {
        let number = |from: usize, to: usize| {
            let digits = text.get(from..to)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
        };
        let is_at = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|byte| allowed.contains(byte));
        if !(is_at(4, b"-") && is_at(7, b"-") && is_at(10, b"Tt ") && is_at(13, b":") && is_at(16, b":")) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let rest = text.get(19..)?;
        let digits = rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let fraction: String = rest.chars().skip(1).take(digits).chain(std::iter::repeat('0')).take(9).collect();
        let zone = if digits > 0 { rest.get(digits + 1..)? } else { rest };
        let offset = match zone.as_bytes() {
            [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let at = text.len() - 5;
                let (hours, minutes) = (number(at, at + 2)?, number(at + 3, at + 5)?);
                let seconds = hours * 3600 + minutes * 60;
                if *sign == b'-' { -seconds } else { seconds }
            }
            _ => return None,
        };
        // Days are counted as in `Display`.
        let (shifted_year, shifted_month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
        let (era, year) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
        let days =
            era * 146_097 + year * 365 + year / 4 - year / 100 + (153 * shifted_month + 2) / 5 + day - 1 - 719_468;
        let seconds = days * 24 * 60 * 60 + hour * 3600 + minute * 60 + second - offset;
        Some(Time { seconds, nanoseconds: fraction.parse().ok()? })
    }
}

impl Metadata {
    /// Returns the memory of the extended attributes in bytes.
    pub(crate) fn xattr_bytes(&self) -> usize {
        const MAP_BYTES: usize = 64;
        self.xattrs.iter().map(|(name, value)| MAP_BYTES + name.len() + value.len()).sum()
    }

    /// Returns the metadata of a directory without an entry.
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
            assert_eq!(Time::parse(text), Some(Time { seconds, nanoseconds }));
        }
        let east = Time::parse("2000-02-29T02:30:00+02:30").unwrap();
        assert_eq!(east, Time { seconds: 951_782_400, nanoseconds: 0 });
        assert_eq!(Time::parse("2000-02-28T22:00:00-02:00"), Some(east));
        for text in ["", "2000-02-29", "2000-02-29T00:00:00", "2000-13-01T00:00:00Z", "2000-02-29T00:00:00.Z", "ä"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
        // Any number of seconds can be formatted.
        for seconds in [i64::MIN, i64::MAX] {
            assert!(Time { seconds, nanoseconds: 0 }.to_string().ends_with('Z'));
        }
    }
}
