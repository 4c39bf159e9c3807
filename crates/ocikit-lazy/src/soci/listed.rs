//! The fields of entries that a ztoc lists, in memory in as few bytes as possible.
//!
//! A flatbuffer is written from its last entry to its first one, so that all entries have to be known before.

use std::collections::BTreeMap;

use ocikit_archive::layer::{RawEntry, RawKind, Time};

use crate::reason::type_name;

/// The size of a block in bytes, unless it has a single larger entry.
const BLOCK_BYTES: usize = 1 << 20;

/// The types that a ztoc can have.
const KINDS: [RawKind; 7] = [
    RawKind::Regular,
    RawKind::HardLink,
    RawKind::Symlink,
    RawKind::CharacterDevice,
    RawKind::BlockDevice,
    RawKind::Directory,
    RawKind::Fifo,
];

/// The fields of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: &'static str,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) user: &'a [u8],
    pub(super) group: &'a [u8],
    pub(super) modified: Time,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// The records of the extended header, sorted by key; the last of several with one key.
    pub(super) records: Vec<(&'a [u8], &'a [u8])>,
}

/// Files in blocks that are freed when their files were taken: about 35 bytes each, and their names.
#[derive(Default)]
pub(super) struct Files {
    /// Each file is followed by its length.
    blocks: Vec<Vec<u8>>,
    /// The encoded form of the last file.
    encoded: Vec<u8>,
    /// About how many bytes of a flatbuffer the files need.
    table_bytes: usize,
}

impl Files {
    /// Returns about how many bytes of a flatbuffer the files need.
    pub(super) fn table_bytes(&self) -> usize {
        self.table_bytes
    }

    /// Adds a file behind the others.
    pub(super) fn push(&mut self, file: &File<'_>) {
        self.table_bytes += file.table_bytes();
        self.encoded.clear();
        file.encode(&mut self.encoded);
        let size = (self.encoded.len() as u64).to_le_bytes();
        let needed = self.encoded.len() + size.len();
        let block = match self.blocks.last_mut() {
            Some(block) if block.len() + needed <= block.capacity() => block,
            _ => {
                self.blocks.push(Vec::with_capacity(needed.max(BLOCK_BYTES)));
                let last = self.blocks.len() - 1;
                &mut self.blocks[last]
            }
        };
        block.extend_from_slice(&self.encoded);
        block.extend_from_slice(&size);
    }

    /// Removes the last file, and returns what the function makes of it; `None` if there is no file.
    pub(super) fn pop<T>(&mut self, make: impl FnOnce(&File<'_>) -> T) -> Option<T> {
        let block = self.blocks.last_mut()?;
        let (files, size) = block.split_last_chunk()?;
        let start = files.len().checked_sub(usize::try_from(u64::from_le_bytes(*size)).ok()?)?;
        let made = make(&File::decode(&mut Encoded(&files[start..]))?);
        block.truncate(start);
        if start == 0 {
            self.blocks.pop();
        }
        Some(made)
    }
}

impl<'a> File<'a> {
    pub(super) fn of(entry: &'a RawEntry) -> File<'a> {
        let records: BTreeMap<_, _> = entry.records.iter().map(|(key, value)| (&**key, &**value)).collect();
        File {
            name: &entry.name,
            kind: type_name(entry.kind),
            offset: entry.data.offset,
            size: entry.size,
            link: &entry.link,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            user: &entry.user,
            group: &entry.group,
            modified: entry.modified,
            major: entry.major,
            minor: entry.minor,
            records: records.into_iter().collect(),
        }
    }

    fn table_bytes(&self) -> usize {
        const FIXED_BYTES: usize = 160;
        let records = self.records.iter().map(|(key, value)| key.len() + value.len() + 32).sum::<usize>();
        FIXED_BYTES + self.name.len() + self.link.len() + self.user.len() + self.group.len() + records
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let kind = KINDS.iter().position(|kind| type_name(*kind) == self.kind).unwrap_or_default();
        // The first bit is the sign, so that times soon after 1970 are short.
        let seconds = self.modified.seconds;
        let seconds = ((seconds << 1) ^ (seconds >> 63)).cast_unsigned();
        let numbers = [
            kind as u64,
            self.offset,
            self.size,
            self.mode.into(),
            self.uid,
            self.gid,
            seconds,
            self.modified.nanoseconds.into(),
            self.major.into(),
            self.minor.into(),
        ];
        numbers.into_iter().for_each(|number| put_number(bytes, number));
        [self.name, self.link, self.user, self.group].into_iter().for_each(|text| put_bytes(bytes, text));
        put_number(bytes, self.records.len() as u64);
        for (key, value) in &self.records {
            put_bytes(bytes, key);
            put_bytes(bytes, value);
        }
    }

    fn decode(encoded: &mut Encoded<'a>) -> Option<File<'a>> {
        let kind = type_name(*KINDS.get(usize::try_from(encoded.number()?).ok()?)?);
        let (offset, size) = (encoded.number()?, encoded.number()?);
        let mode = encoded.u32()?;
        let (uid, gid) = (encoded.number()?, encoded.number()?);
        let seconds = encoded.number()?;
        let seconds = (seconds >> 1).cast_signed() ^ -(seconds & 1).cast_signed();
        let modified = Time { seconds, nanoseconds: encoded.u32()? };
        let (major, minor) = (encoded.u32()?, encoded.u32()?);
        let (name, link) = (encoded.bytes()?, encoded.bytes()?);
        let (user, group) = (encoded.bytes()?, encoded.bytes()?);
        let records =
            (0..encoded.number()?).map(|_| Some((encoded.bytes()?, encoded.bytes()?))).collect::<Option<_>>()?;
        Some(File { name, kind, offset, size, link, mode, uid, gid, user, group, modified, major, minor, records })
    }
}

/// Appends a number, seven bits in each byte.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_bytes(bytes: &mut Vec<u8>, text: &[u8]) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// The encoded fields that were not read yet.
struct Encoded<'a>(&'a [u8]);

impl<'a> Encoded<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_from_the_last_to_the_first() {
        let long = vec![b'x'; BLOCK_BYTES + 5];
        let file = |number: u64| File {
            name: if number % 40_000 == 7 { &long } else { b"usr/bin/env" },
            kind: type_name(KINDS[number as usize % KINDS.len()]),
            offset: number << (number % 50),
            size: u64::MAX - number,
            link: b"",
            mode: 0o755,
            uid: number,
            gid: u64::MAX,
            user: b"root",
            group: b"wheel",
            modified: Time { seconds: (number as i64 - 50_000) << (number % 40), nanoseconds: 999_999_999 },
            major: u32::MAX,
            minor: 0,
            records: vec![(&b"SCHILY.xattr.user.a"[..], &b"1"[..]); number as usize % 3],
        };
        let mut files = Files::default();
        (0..100_000).for_each(|number| files.push(&file(number)));
        for number in (0..100_000).rev() {
            assert_eq!(files.pop(|found| *found == file(number)), Some(true), "{number}");
        }
        assert_eq!(files.pop(|_| ()), None);
        for seconds in [i64::MIN, -1, 0, i64::MAX] {
            let file = File { modified: Time { seconds, nanoseconds: 0 }, ..file(0) };
            files.push(&file);
            assert_eq!(files.pop(|found| *found == file), Some(true));
        }
    }
}
