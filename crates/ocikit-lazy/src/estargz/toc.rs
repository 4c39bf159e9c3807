//! The table of contents of eStargz.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_archive::layer::{RawEntry, RawKind, Time};
use ocikit_spec::Digest;
use serde::Serialize;

use crate::reason::type_name;

/// The size of a chunk in bytes.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// The maximum number of owners and groups whose names are left out after the first entry. Further ones are repeated.
const MAX_KNOWN_NAMES: usize = 1 << 16;

/// A chunk of a file in the layer.
pub(super) struct Chunk {
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) digest: Option<Digest>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_name: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes the table entry by entry.
pub(super) struct Toc<W> {
    writer: W,
    is_first: bool,
    users: HashMap<u64, Box<[u8]>>,
    groups: HashMap<u64, Box<[u8]>>,
}

impl<W: Write> Toc<W> {
    pub(super) fn new(mut writer: W) -> io::Result<Toc<W>> {
        writer.write_all(br#"{"version":1,"entries":["#)?;
        Ok(Toc { writer, is_first: true, users: HashMap::new(), groups: HashMap::new() })
    }

    /// Adds a file that the source does not have.
    pub(super) fn add_landmark(&mut self, name: &str, chunk: &Chunk) -> io::Result<()> {
        let digest = chunk.digest;
        let (kind, size, offset, mode) = ("reg", chunk.size, chunk.offset, 0o644);
        self.push(&Entry { name, kind, size, offset, mode, digest, chunk_digest: digest, ..Entry::default() })
    }

    /// Adds an entry with the chunks of its contents. The digest is that of the whole contents of a regular file.
    pub(super) fn add(&mut self, entry: &RawEntry, chunks: &[Chunk], digest: Option<Digest>) -> io::Result<()> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let xattrs = entry.xattrs().into_iter().map(|(name, value)| (text(name), STANDARD.encode(value))).collect();
        let is_regular = entry.kind == RawKind::Regular;
        let mut listed = Entry {
            name: text(&entry.name),
            kind: type_name(entry.kind),
            size: if is_regular { entry.size } else { 0 },
            modtime: rounded(entry.modified),
            link_name: text(&entry.link),
            mode: (entry.mode & 0o7777).into(),
            uid: entry.uid,
            gid: entry.gid,
            user_name: changed(&mut self.users, entry.uid, &entry.user),
            group_name: changed(&mut self.groups, entry.gid, &entry.group),
            dev_major: entry.major.into(),
            dev_minor: entry.minor.into(),
            xattrs,
            digest: digest.filter(|_| is_regular),
            ..Entry::default()
        };
        let mut chunk_offset = 0;
        for (position, chunk) in chunks.iter().enumerate() {
            if position > 0 {
                self.push(&listed)?;
                listed = Entry { name: text(&entry.name), kind: "chunk", ..Entry::default() };
            }
            listed.offset = chunk.offset;
            listed.chunk_offset = chunk_offset;
            listed.chunk_size = if chunk.size == CHUNK_BYTES as u64 { chunk.size } else { 0 };
            listed.chunk_digest = chunk.digest;
            chunk_offset += chunk.size;
        }
        self.push(&listed)
    }

    fn push(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut self.writer, entry)?)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(b"]}")?;
        Ok(self.writer)
    }
}

/// Returns the name of an owner or group if it is not the last one that was listed for the ID.
fn changed(known: &mut HashMap<u64, Box<[u8]>>, id: u64, name: &[u8]) -> Option<String> {
    if known.get(&id).map_or(name.is_empty(), |known| **known == *name) {
        return None;
    }
    if known.len() < MAX_KNOWN_NAMES || known.contains_key(&id) {
        known.insert(id, name.into());
    }
    Some(String::from_utf8_lossy(name).into_owned())
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
        assert_eq!(names, [None, Some("root".to_owned()), None, Some("toor".to_owned()), Some(String::new())]);
    }
}
