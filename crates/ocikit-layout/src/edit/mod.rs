//! Edits of an archive in place. This module computes, without IO, which bytes to write where.
//!
//! No layer is moved, no byte that a reader can see is overwritten before the new state is complete, and the write of a
//! single block commits the edit. This works by an entry that exists only for its size, the *switch*: the bytes after
//! its header count as its contents, so readers find no entries there.
//!
//! ```text
//! before      layers… | index.json | oci-layout | 00
//! written     layers… | index.json | oci-layout | 00 | manifest | index.json | oci-layout | 00      readers stop at the first 00
//! committed   layers… | switch(…………………………………………)    | manifest | index.json | oci-layout | 00      one block was written
//! ```
//!
//! The next edit writes after that end again and commits by enlarging the switch. The one after it finds enough room
//! *inside* the switch, writes there, adds a padding entry over the bytes that follow, and commits by shrinking the
//! switch. An archive that is edited repeatedly therefore holds at most three editions of its documents.
//!
//! If `index.json` is not among the last entries, the first zero block of the end becomes the switch, because every
//! tested reader stops there. The old `index.json`, which some readers prefer because it comes first and others ignore
//! because another follows, is then turned into a padding entry as well, by a second block. Between the two writes both
//! kinds of readers find a complete archive.
//!
//! An archive without a proper end has no such place: [`splice`] reports that, and the caller copies it.

use std::ops::Range;

use bytes::Bytes;
use ocikit_archive::{BLOCK, END, Entry, Header, Kind, TarIndex, padding};

use crate::docker::MANIFEST_JSON;
use crate::roots::{INDEX_JSON, OCI_LAYOUT_FILE};

/// The entry before the documents of the current edition.
const SWITCH: &str = ".ocikit/switch";
/// An entry without meaningful contents.
const PADDING: &str = ".ocikit/padding";

/// The files of a layout that are not blobs. An edit writes all of them.
pub(crate) const METADATA: [&str; 4] = [INDEX_JSON, MANIFEST_JSON, OCI_LAYOUT_FILE, REPOSITORIES];

/// The list of names in the first format of `docker save`.
pub(crate) const REPOSITORIES: &str = "repositories";

/// An operation on the file. The steps are executed in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EditStep {
    Write {
        at: u64,
        bytes: Bytes,
    },
    /// Flushes everything that was written to the disk.
    Sync,
    /// Truncates the file here.
    Cut {
        at: u64,
    },
}

/// The start of the tail of an archive. Everything before it is never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The block whose write makes a new edition visible.
    switch: u64,
    kind: TailKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TailKind {
    /// It is a switch already.
    Switch,
    /// It is the first of the last entries, all of which are metadata.
    Metadata,
    /// It is the first block of the end.
    End,
}

impl Tail {
    /// Finds the tail; `None` for an archive without a proper end.
    pub(crate) fn find(index: &TarIndex) -> Option<Tail> {
        let end = index.end();
        if end.zeros - end.start < END.len() as u64 || !end.start.is_multiple_of(BLOCK) {
            return None;
        }
        let entries = index.entries();
        if let Some(switch) = entries.iter().rfind(|entry| is_named(entry, &[SWITCH])) {
            return Some(Tail { switch: switch.start, kind: TailKind::Switch });
        }
        let is_metadata = |entry: &&Entry| entry.kind == Kind::File && is_named(entry, &METADATA);
        let last = entries.iter().rev().take_while(is_metadata).collect::<Vec<_>>();
        match last.last() {
            // An `index.json` before these entries, which readers that use the first would find, is padded as stale
            // metadata.
            Some(first) if last.iter().any(|entry| is_named(entry, &[INDEX_JSON])) => {
                Some(Tail { switch: first.start, kind: TailKind::Metadata })
            }
            _ => Some(Tail::at_end(index)),
        }
    }

    /// Returns the tail that keeps all entries.
    pub(crate) fn at_end(index: &TarIndex) -> Tail {
        Tail { switch: index.end().start, kind: TailKind::End }
    }

    /// Returns whether an offset is in the tail, so that every edit has to write its contents again.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        offset >= self.switch
    }
}

/// Returns the offset for entries that are kept, such as the layers of an added image, and are written before
/// [`splice`]: after the end, where no reader looks yet.
pub(crate) fn growth(index: &TarIndex) -> u64 {
    index.end().zeros.next_multiple_of(BLOCK)
}

/// Returns the steps that make these files the tail of the archive.
///
/// `grown` is the range of entries that were written from [`growth`] on, with headers and padding; they stay before the
/// new tail.
pub(crate) fn splice(
    index: &TarIndex,
    tail: Tail,
    files: &[(String, Bytes)],
    grown: Option<Range<u64>>,
) -> Vec<EditStep> {
    let region = lay_out(files, 0);
    let length = region.len() as u64;
    let end = index.end();
    let hidden = tail.switch + BLOCK;
    let mut steps = Vec::new();
    // The range that the switch covers from now on, and its name.
    let (resume, name) = if let Some(grown) = grown {
        let switch = padding_named(SWITCH, grown.end, grown.end + BLOCK);
        write(&mut steps, grown.end, [&switch[..], &region, &END].concat());
        steps.push(EditStep::Cut { at: grown.end + BLOCK + length + END.len() as u64 });
        (grown.start, PADDING)
    } else if let Some(room) = room_inside(index, tail, length) {
        let mut bytes = region;
        let written = room.start + length;
        if written < room.end {
            bytes.extend(padding_header(written, room.end));
        }
        write(&mut steps, room.start, bytes);
        (room.start, SWITCH)
    } else {
        let at = growth(index);
        // The remains of an interrupted edit after the end must not follow the bytes that overwrite them.
        if end.file > at {
            steps.push(EditStep::Cut { at });
        }
        write(&mut steps, at, [&region[..], &END].concat());
        (at, SWITCH)
    };
    steps.push(EditStep::Sync);
    write(&mut steps, tail.switch, padding_named(name, tail.switch, resume));
    steps.push(EditStep::Sync);
    for stale in stale_metadata(index, tail) {
        write(&mut steps, stale.start, padding_header(stale.start, stale.end()));
    }
    if steps.last() != Some(&EditStep::Sync) {
        steps.push(EditStep::Sync);
    }
    debug_assert!(resume >= hidden);
    steps
}

/// Returns a range inside the switch with room for `length` bytes and a padding entry over the rest. The range ends
/// where a reader continues after it: at the end of the archive.
fn room_inside(index: &TarIndex, tail: Tail, length: u64) -> Option<Range<u64>> {
    if tail.kind != TailKind::Switch {
        return None;
    }
    let end = index.end().start;
    let entries = index.entries();
    let switch = entries.iter().rposition(|entry| entry.start == tail.switch)?;
    let seen = &entries[switch + 1..];
    let before = entries[switch].data.offset..seen.first().map_or(end, |first| first.start);
    let after = match seen.last() {
        Some(last) if is_named(last, &[PADDING]) => last.data.offset..end,
        _ => end..end,
    };
    let fits = |room: &Range<u64>| {
        let rest = (room.end - room.start).checked_sub(length);
        // Before the entries that are visible now, a padding entry must cover the rest.
        rest.is_some_and(|rest| rest >= BLOCK || (rest == 0 && room.end == end))
    };
    [before, after].into_iter().find(fits).map(|room| room.start..end)
}

/// Returns the metadata before the tail, which most readers, but not all, take from the tail.
fn stale_metadata(index: &TarIndex, tail: Tail) -> impl Iterator<Item = &Entry> {
    let replaced = [INDEX_JSON, MANIFEST_JSON];
    index.entries().iter().filter(move |entry| !tail.holds(entry.start) && is_named(entry, &replaced))
}

/// Returns files as consecutive entries.
pub(crate) fn lay_out(files: &[(impl AsRef<str>, Bytes)], modified: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        let size = content.len() as u64;
        bytes.extend(Header { modified, ..Header::file(name.as_ref(), size) }.to_bytes());
        bytes.extend_from_slice(content);
        bytes.extend(&END[..padding(size) as usize]);
    }
    bytes
}

/// Returns the header of an entry that makes readers skip everything between it and `end`.
pub(crate) fn padding_header(start: u64, end: u64) -> Vec<u8> {
    padding_named(PADDING, start, end)
}

fn padding_named(name: &str, start: u64, end: u64) -> Vec<u8> {
    Header::file(name, end - start - BLOCK).to_bytes()
}

fn write(steps: &mut Vec<EditStep>, at: u64, bytes: Vec<u8>) {
    steps.push(EditStep::Write { at, bytes: bytes.into() });
}

/// Returns whether an entry is a switch or padding.
pub(crate) fn is_filler(entry: &Entry) -> bool {
    is_named(entry, &[SWITCH, PADDING])
}

fn is_named(entry: &Entry, names: &[&str]) -> bool {
    entry.name.as_deref().is_some_and(|name| names.contains(&name))
}

#[cfg(test)]
mod tests;
