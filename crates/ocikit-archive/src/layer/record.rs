//! Converts a header to an entry of a layer.

use std::fmt;

use tar_core::{EntryType, PaxExtensions};

use crate::error::Result;
use crate::layer::entry::{Entry, FileKind, Kind, Metadata, Time};
use crate::layer::path::Path;
use crate::layer::sparse::Sparse;
use crate::layer::whiteout::{Meaning, meaning};
use crate::scan::{Found, invalid};

/// An entry, and the stored parts of its contents if it is sparse.
pub(crate) struct Record {
    /// `None` for an entry that is ignored in layers.
    pub(crate) entry: Option<Entry>,
    pub(crate) sparse: Option<Sparse>,
}

pub(crate) fn record(found: &Found<'_>) -> Result<Record> {
    let parsed = &found.parsed;
    if parsed.path.contains(&0) {
        return Err(invalid(found.start, "a name has a zero byte in it"));
    }
    let path = Path::confined(&parsed.path);
    let kind = match meaning(&path) {
        Meaning::File => None,
        Meaning::Whiteout(whiteout) => Some(Kind::Whiteout(whiteout)),
        Meaning::Leftover => return Ok(Record { entry: None, sparse: None }),
        Meaning::Senseless => {
            return Err(invalid(found.start, format_args!("`{path}` is a whiteout without a valid name")));
        }
    };
    let modified = modified(found)?;
    let sparse = match &found.sparse {
        None => None,
        Some((map, size)) => Some(Sparse::new(map, *size, parsed.size, found.start)?),
    };
    let kind = match kind {
        Some(kind) => kind,
        None => kind_of(found, sparse.as_ref())?,
    };
    let text = |name: &Option<std::borrow::Cow<'_, [u8]>>| {
        name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned().into_boxed_str())
    };
    let metadata = Metadata {
        mode: parsed.mode & 0o7777,
        uid: parsed.uid,
        gid: parsed.gid,
        user: text(&parsed.uname),
        group: text(&parsed.gname),
        modified,
        xattrs: parsed
            .xattrs
            .iter()
            .map(|(name, value)| (String::from_utf8_lossy(name).into(), Box::from(&**value)))
            .collect(),
    };
    Ok(Record { entry: Some(Entry { path, kind, metadata }), sparse })
}

fn kind_of(found: &Found<'_>, sparse: Option<&Sparse>) -> Result<Kind> {
    let parsed = &found.parsed;
    let target = parsed.link_target.as_deref().unwrap_or_default();
    let (major, minor) = (parsed.dev_major.unwrap_or_default(), parsed.dev_minor.unwrap_or_default());
    Ok(Kind::File(match parsed.entry_type {
        EntryType::Link | EntryType::Symlink if target.is_empty() || target.contains(&0) => {
            return Err(invalid(found.start, "a link has no target"));
        }
        EntryType::Link => return Ok(Kind::HardLink { target: Path::confined(target) }),
        EntryType::Regular | EntryType::Continuous if parsed.path.ends_with(b"/") => FileKind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => {
            FileKind::Regular { size: sparse.map_or(parsed.size, Sparse::size) }
        }
        EntryType::Directory => FileKind::Directory,
        EntryType::Symlink => FileKind::Symlink { target: target.into() },
        EntryType::Char => FileKind::CharacterDevice { major, minor },
        EntryType::Block => FileKind::BlockDevice { major, minor },
        EntryType::Fifo => FileKind::Fifo,
        other => {
            let other = char::from(other.to_byte()).escape_default();
            return Err(invalid(found.start, format_args!("unknown entry type `{other}`")));
        }
    }))
}

/// Returns the modification time, and parses the other numbers of an extended header again: the parser ignores invalid ones,
/// which is acceptable only for times that are out of its range.
pub(crate) fn modified(found: &Found<'_>) -> Result<Time> {
    let refuse = |problem: &dyn fmt::Display| invalid(found.start, problem);
    // Times before 1970 are written in two's complement.
    let mut modified = Time { seconds: found.parsed.mtime.cast_signed(), nanoseconds: 0 };
    let mut sized = false;
    let mut mapped_inside = false;
    for item in PaxExtensions::new(found.parsed.pax.unwrap_or_default()) {
        let item = item.map_err(|error| refuse(&error))?;
        let Ok(key) = item.key() else { continue };
        let value = || item.value().map_err(|_| refuse(&format_args!("`{key}` is not text")));
        let number = || value()?.parse::<u64>().map_err(|_| refuse(&format_args!("`{key}` is not a number")));
        match key {
            "mtime" => modified = time(value()?).ok_or_else(|| refuse(&format_args!("`{key}` is not a time")))?,
            "size" => {
                number()?;
                sized = true;
            }
            "uid" | "gid" | "GNU.sparse.offset" | "GNU.sparse.numbytes" | "GNU.sparse.size" | "GNU.sparse.realsize" => {
                number()?;
            }
            "GNU.sparse.major" => mapped_inside = number()? > 0,
            "GNU.sparse.minor" | "GNU.sparse.numblocks" => drop(number()?),
            "GNU.sparse.map" => drop(value()?),
            _ => {}
        }
        if key.starts_with("GNU.sparse.") && found.sparse.is_none() {
            return Err(refuse(&"a sparse file whose map cannot be read"));
        }
    }
    if sized && mapped_inside {
        // Readers disagree whether the size includes the map.
        return Err(refuse(&"a sparse file whose size is in its extended header"));
    }
    Ok(modified)
}

/// Parses a decimal number of seconds, by POSIX.
pub(crate) fn time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.", Some((1, 0))),
            ("1.0000000019", Some((1, 1))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("-62135596800", Some((-62_135_596_800, 0))),
            ("", None),
            ("x", None),
            ("1.x", None),
            ("-9223372036854775808.5", None),
        ] {
            assert_eq!(time(text).map(|time| (time.seconds, time.nanoseconds)), expected, "{text}");
        }
    }
}
