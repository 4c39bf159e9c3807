use std::collections::BTreeMap;
use std::io::{self, Read};

use tar_core::{EntryType, PaxExtensions};

use crate::entry::Span;
use crate::error::Result;
use crate::layer::budget::Budget;
use crate::layer::entry::Time;
use crate::layer::path::Path;
use crate::layer::record::{modified, time};
use crate::scan::{Found, Numbers, invalid};
use crate::stream::TarStream;

/// An entry with the fields of its headers as they stand in the tar, for formats that list them beside the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawEntry {
    /// The name, from the extended header if it has one.
    pub name: Box<[u8]>,
    /// The name, confined to the root of the image.
    pub path: Path,
    /// The type.
    pub kind: RawKind,
    /// The target of a link, byte for byte; empty for other types.
    pub link: Box<[u8]>,
    /// All bits of the mode.
    pub mode: u32,
    /// The user ID of the owner.
    pub uid: u64,
    /// The group ID.
    pub gid: u64,
    /// The name of the owner; empty if there is none.
    pub user: Box<[u8]>,
    /// The name of the group; empty if there is none.
    pub group: Box<[u8]>,
    /// The modification time.
    pub modified: Time,
    /// The access time, if the headers have one.
    pub accessed: Option<Time>,
    /// The time of the last change of the metadata, if the headers have one.
    pub changed: Option<Time>,
    /// The major number of a device.
    pub major: u32,
    /// The minor number of a device.
    pub minor: u32,
    /// The size in the headers, also of types without contents.
    pub size: u64,
    /// The records of the extended header, in their order.
    pub records: Vec<PaxRecord>,
    /// The offset of the first header in the tar. A global header is before it.
    pub start: u64,
    /// The position of the contents in the tar.
    pub data: Span,
}

/// The key and the value of a record of an extended header.
pub type PaxRecord = (Box<[u8]>, Box<[u8]>);

/// The type of an entry in a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawKind {
    /// A regular file.
    Regular,
    /// Another name of a file.
    HardLink,
    /// A symlink.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A sparse file, in any of the formats of GNU tar.
    Sparse,
    /// A type that not all readers know, by its byte in the header.
    Other(u8),
}

impl RawEntry {
    /// Returns the extended attributes: the records with the prefix `SCHILY.xattr.`. The last of several with one name
    /// counts.
    pub fn xattrs(&self) -> BTreeMap<&[u8], &[u8]> {
        let records = self.records.iter();
        records.filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, &**value))).collect()
    }
}

/// Reads the entries of a layer and passes on every byte of the tar that is not part of the contents of a file.
///
/// ```
/// use std::io::Read;
/// use ocikit_archive::{END, Header, layer::{Budget, RawReader}};
///
/// let mut tar = Header::file("hello.txt", 5).to_bytes();
/// tar.extend_from_slice(b"hello");
/// tar.resize(1024, 0);
/// tar.extend_from_slice(&END);
///
/// let mut reader = RawReader::within(&Budget::new(), &tar[..]);
/// let mut copy = Vec::new();
/// while let Some(entry) = reader.next_entry(&mut copy)? {
///     assert_eq!(&*entry.name, b"hello.txt");
///     reader.read_to_end(&mut copy)?;
/// }
/// assert_eq!(copy, tar);
/// # Ok::<(), ocikit_archive::Error>(())
/// ```
#[derive(Debug)]
pub struct RawReader<R> {
    tar: TarStream<Recorder<R>>,
    budget: Budget,
}

impl<R: Read> RawReader<R> {
    /// Creates a reader within the budget of an operation. The bytes of the tar are counted by the decompression, not
    /// here.
    pub fn within(budget: &Budget, tar: R) -> RawReader<R> {
        RawReader { tar: TarStream::new(Recorder { reader: tar, recorded: None }), budget: budget.clone() }
    }

    /// Returns the next entry; `None` at the end. Appends the bytes from the end of the contents that were read to the
    /// start of the next contents: what was not read, padding, headers. At the end, these are all remaining bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`](crate::Error::Truncated) and [`Error::Invalid`](crate::Error::Invalid) for an invalid tar,
    /// [`Error::Limit`](crate::Error::Limit) after too many entries, [`Error::Io`](crate::Error::Io) if reading fails.
    pub fn next_entry(&mut self, between: &mut Vec<u8>) -> Result<Option<RawEntry>> {
        self.tar.reader_mut().0.recorded = Some(std::mem::take(between));
        let found = self.tar.next_with(Numbers::Left, raw);
        let (recorder, ahead) = self.tar.reader_mut();
        *between = recorder.recorded.take().unwrap_or_default();
        let Some((position, mut entry)) = found? else { return Ok(None) };
        // Bytes that the parser looked at and did not use are the first ones of the contents.
        between.truncate(between.len().saturating_sub(ahead));
        self.budget.entry()?;
        entry.data = position.data;
        Ok(Some(entry))
    }
}

/// Reads the contents of the last entry, as they are stored.
impl<R: Read> Read for RawReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.tar.read(buffer)?)
    }
}

/// A reader that keeps a copy of what is read, while it is asked to.
#[derive(Debug)]
struct Recorder<R> {
    reader: R,
    recorded: Option<Vec<u8>>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if let Some(recorded) = &mut self.recorded {
            recorded.extend_from_slice(&buffer[..read]);
        }
        Ok(read)
    }
}

fn raw(found: &Found<'_>) -> Result<RawEntry> {
    let parsed = &found.parsed;
    let link = parsed.link_target.as_deref().unwrap_or_default();
    if parsed.path.contains(&0) || link.contains(&0) {
        return Err(invalid(found.start, "a name has a zero byte in it"));
    }
    let modified = modified(found)?;
    let (mut accessed, mut changed) = old_times(parsed.header.as_bytes());
    let mut records = Vec::new();
    for record in PaxExtensions::new(parsed.pax.unwrap_or_default()) {
        let record = record.map_err(|error| invalid(found.start, error))?;
        let as_time = || record.value().ok().and_then(time);
        match record.key_bytes() {
            b"atime" => accessed = as_time(),
            b"ctime" => changed = as_time(),
            _ => {}
        }
        records.push((record.key_bytes().into(), record.value_bytes().into()));
    }
    let is_link = matches!(parsed.entry_type, EntryType::Link | EntryType::Symlink);
    Ok(RawEntry {
        name: parsed.path.as_ref().into(),
        path: Path::confined(&parsed.path),
        kind: kind(found),
        link: if is_link { link.into() } else { Box::default() },
        mode: parsed.mode,
        uid: parsed.uid,
        gid: parsed.gid,
        user: parsed.uname.as_deref().unwrap_or_default().into(),
        group: parsed.gname.as_deref().unwrap_or_default().into(),
        modified,
        accessed,
        changed,
        major: parsed.dev_major.unwrap_or_default(),
        minor: parsed.dev_minor.unwrap_or_default(),
        size: parsed.size,
        records,
        start: found.start,
        data: Span { offset: 0, size: 0 },
    })
}

fn kind(found: &Found<'_>) -> RawKind {
    let parsed = &found.parsed;
    if found.sparse.is_some() {
        return RawKind::Sparse;
    }
    match parsed.entry_type {
        EntryType::Regular if parsed.path.ends_with(b"/") => RawKind::Directory,
        EntryType::Regular => RawKind::Regular,
        EntryType::Link => RawKind::HardLink,
        EntryType::Symlink => RawKind::Symlink,
        EntryType::Char => RawKind::CharacterDevice,
        EntryType::Block => RawKind::BlockDevice,
        EntryType::Directory => RawKind::Directory,
        EntryType::Fifo => RawKind::Fifo,
        EntryType::GnuSparse => RawKind::Sparse,
        other => RawKind::Other(other.to_byte()),
    }
}

/// Returns access and change time of a header in the old format of GNU tar, which has them in place of a prefix.
fn old_times(header: &[u8; 512]) -> (Option<Time>, Option<Time>) {
    if &header[257..265] != b"ustar  \0" {
        return (None, None);
    }
    let octal = |field: &[u8]| {
        let digits = field.trim_ascii_start().split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
        let seconds = std::str::from_utf8(digits).ok().and_then(|digits| i64::from_str_radix(digits, 8).ok())?;
        Some(Time { seconds, nanoseconds: 0 })
    };
    (octal(&header[345..357]), octal(&header[357..369]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{END, Header};

    #[test]
    fn every_byte_is_passed_on() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/x", "d".repeat(200));
        for (name, contents) in [("a", &b"12345"[..]), ("b", b""), (&long, &[7; 600]), ("c", b"x")] {
            builder.append_pax_extensions([("SCHILY.xattr.user.k", &b"v"[..]), ("atime", b"5.5")]).unwrap();
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, contents).unwrap();
        }
        let mut tar = builder.into_inner().unwrap();
        tar.extend_from_slice(&[0; 8192]);
        for reads_contents in [true, false] {
            let mut reader = RawReader::within(&Budget::new(), &tar[..]);
            let (mut copy, mut names) = (Vec::new(), Vec::new());
            while let Some(entry) = reader.next_entry(&mut copy).unwrap() {
                assert_eq!(entry.data.offset, copy.len() as u64);
                assert_eq!(entry.xattrs(), [(&b"user.k"[..], &b"v"[..])].into());
                assert_eq!(entry.accessed, Some(Time { seconds: 5, nanoseconds: 500_000_000 }));
                names.push(String::from_utf8_lossy(&entry.name).into_owned());
                if reads_contents {
                    reader.read_to_end(&mut copy).unwrap();
                }
            }
            assert!(copy == tar);
            assert_eq!(names, ["a", "b", &long, "c"]);
        }
    }

    #[test]
    fn a_global_header_lies_before_the_start() {
        let record = b"14 comment=ab\n";
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XGlobalHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.extend_from_slice(record);
        tar.resize(1024, 0);
        tar.extend_from_slice(&Header::file("a", 0).to_bytes());
        tar.extend_from_slice(&END);
        let entry = RawReader::within(&Budget::new(), &tar[..]).next_entry(&mut Vec::new()).unwrap().unwrap();
        assert_eq!((entry.start, &*entry.name), (1024, &b"a"[..]));
    }
}
