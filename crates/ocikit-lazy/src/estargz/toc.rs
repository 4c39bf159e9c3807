//! The table of contents of eStargz.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};

use ocikit_archive::layer::{RawEntry, RawKind, Time};
use ocikit_spec::Digest;

use crate::estargz::format::NO_PREFETCH_LANDMARK;
use crate::toc::{Entry, TocWriter};
use crate::waiting::{Chunk, Listed};

/// The size of a chunk in bytes.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// The maximum number of owners and groups whose names are left out after the first entry. Further ones are repeated.
const MAX_KNOWN_NAMES: usize = 1 << 16;

/// Writes the table entry by entry.
pub(super) struct Toc<W> {
    writer: TocWriter<W>,
    users: HashMap<u64, Box<[u8]>>,
    groups: HashMap<u64, Box<[u8]>>,
}

impl<W: Write> Toc<W> {
    pub(super) fn new(writer: W) -> io::Result<Toc<W>> {
        Ok(Toc { writer: TocWriter::new(writer)?, users: HashMap::new(), groups: HashMap::new() })
    }

    /// Adds an entry, or the landmark if the source has none.
    pub(super) fn add(&mut self, listed: &Listed) -> io::Result<()> {
        let Listed { entry, chunks, digest, .. } = listed;
        let first = match entry {
            Some(entry) => self.entry(entry, *digest),
            None => {
                let size = chunks.iter().map(|chunk| chunk.size).sum();
                Entry {
                    kind: "reg",
                    name: NO_PREFETCH_LANDMARK,
                    size,
                    mode: 0o644,
                    digest: *digest,
                    ..Entry::default()
                }
            }
        };
        self.writer.add(first, chunks, |listed, chunk: &Chunk| {
            listed.chunk_size = if chunk.size == CHUNK_BYTES as u64 { chunk.size } else { 0 };
            listed.chunk_digest = chunk.digest;
        })
    }

    fn entry<'a>(&mut self, entry: &'a RawEntry, digest: Option<Digest>) -> Entry<'a> {
        let is_regular = entry.kind == RawKind::Regular;
        Entry {
            size: if is_regular { entry.size } else { 0 },
            modtime: rounded(entry.modified),
            mode: (entry.mode & 0o7777).into(),
            user_name: changed(&mut self.users, entry.uid, &entry.user),
            group_name: changed(&mut self.groups, entry.gid, &entry.group),
            digest: digest.filter(|_| is_regular),
            ..Entry::of(entry)
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.writer.finish(None)
    }
}

/// Returns the name of an owner or group if it is not the last one that was listed for the ID.
fn changed<'a>(known: &mut HashMap<u64, Box<[u8]>>, id: u64, name: &'a [u8]) -> Option<Cow<'a, str>> {
    if known.get(&id).map_or(name.is_empty(), |known| **known == *name) {
        return None;
    }
    if known.len() < MAX_KNOWN_NAMES || known.contains_key(&id) {
        known.insert(id, name.into());
    }
    Some(String::from_utf8_lossy(name))
}

/// Returns a time in seconds, as the reference rounds it; `None` for 1970, which readers take for a missing time.
fn rounded(time: Time) -> Option<String> {
    let half = u32::from(time.nanoseconds >= 500_000_000);
    let time = Time { seconds: time.seconds + i64::from(half), nanoseconds: 0 };
    (time.seconds != 0).then(|| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_to_seconds() {
        let at = |seconds, nanoseconds| rounded(Time { seconds, nanoseconds });
        assert_eq!(at(0, 0), None);
        assert_eq!(at(0, 499_999_999), None);
        assert_eq!(at(0, 500_000_000).as_deref(), Some("1970-01-01T00:00:01Z"));
        assert_eq!(at(-2, 0).as_deref(), Some("1969-12-31T23:59:58Z"));
    }

    #[test]
    fn names_are_listed_when_they_change() {
        let mut known = HashMap::new();
        let names: Vec<_> = ["", "root", "root", "toor", ""].map(|name| changed(&mut known, 0, name.as_bytes())).into();
        assert_eq!(names, [None, Some("root".into()), None, Some("toor".into()), Some("".into())]);
    }
}
