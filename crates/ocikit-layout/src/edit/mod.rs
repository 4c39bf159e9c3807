//! Changing an archive where it lies: which bytes to write where, decided purely.
//!
//! No layer is moved, no byte that a reader can see is overwritten before the new state is complete, and what makes it
//! visible is the write of one block. The trick is an entry whose only purpose is its size, the *switch*: whatever lies
//! behind it for that many bytes is its content, so nobody looks for entries there.
//!
//! ```text
//! before      layers… | index.json | oci-layout | 00
//! written     layers… | index.json | oci-layout | 00 | manifest | index.json | oci-layout | 00      nobody looks behind 00
//! committed   layers… | switch(…………………………………………)    | manifest | index.json | oci-layout | 00      one block was written
//! ```
//!
//! The next edit writes behind that end again and commits by making the switch longer; the one after it finds room
//! enough *inside* the switch, writes there, ends with a padding entry that covers what came after, and commits by
//! making the switch shorter. So an archive that is edited for ever stays as long as three editions of its documents.
//!
//! Where `index.json` is not among the last entries, the switch is made of the first zero block of the end instead, as
//! every reader tried stops there; then the old `index.json`, which some readers prefer because it comes first and some
//! ignore because another follows, is made a padding entry as well, one block more. Between the two writes either kind
//! of reader finds a whole archive.
//!
//! An archive without a proper end offers no place where nobody looks: [`splice`] says so, and the caller copies it.

use std::ops::Range;

use bytes::Bytes;
use ocikit_archive::{BLOCK, END, Entry, Header, Kind, TarIndex, padding};

use crate::docker::MANIFEST_JSON;
use crate::roots::{INDEX_JSON, OCI_LAYOUT_FILE};

/// The entry behind which the documents of the current edition lie.
const SWITCH: &str = ".ocikit/switch";
/// An entry whose content is of no use to anybody.
const PADDING: &str = ".ocikit/padding";

/// Files of a layout that are not blobs: all are written anew by an edit.
pub(crate) const METADATA: [&str; 4] = [INDEX_JSON, MANIFEST_JSON, OCI_LAYOUT_FILE, "repositories"];

/// One thing to do to the file. They are done in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write {
        at: u64,
        bytes: Bytes,
    },
    /// What was written is on the disk before anything else is.
    Sync,
    /// The file ends here.
    Cut {
        at: u64,
    },
}

/// Where the tail of an archive begins: everything in front of it stays as it is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The block that makes a new edition visible when it is written.
    switch: u64,
    kind: TailKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TailKind {
    /// It is a switch already.
    Switch,
    /// It is the first of the last entries, which are metadata and nothing else.
    Metadata,
    /// It is the first block of the end.
    End,
}

impl Tail {
    /// Finds the tail, `None` for an archive without a proper end.
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
            // Two of them would be two for whoever takes the first; that is what the kills of the other kind are for.
            Some(first) if last.iter().any(|entry| is_named(entry, &[INDEX_JSON])) => {
                Some(Tail { switch: first.start, kind: TailKind::Metadata })
            }
            _ => Some(Tail::at_end(index)),
        }
    }

    /// The tail that leaves everything where it is.
    pub(crate) fn at_end(index: &TarIndex) -> Tail {
        Tail { switch: index.end().start, kind: TailKind::End }
    }

    /// Whether an offset lies in the tail, so that what is there has to be written anew by every edit.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        offset >= self.switch
    }
}

/// Where entries that stay for ever, layers of an image that is added, are written before [`splice`]: behind the end,
/// where nobody looks yet.
pub(crate) fn growth(index: &TarIndex) -> u64 {
    index.end().zeros.next_multiple_of(BLOCK)
}

/// The steps that make these files the tail of the archive.
///
/// `grown` are entries that were written from [`growth`] on, headers and padding included; they stay in front of the new
/// tail.
pub(crate) fn splice(index: &TarIndex, tail: Tail, files: &[(String, Bytes)], grown: Option<Range<u64>>) -> Vec<Step> {
    let region = lay_out(files);
    let length = region.len() as u64;
    let end = index.end();
    let hidden = tail.switch + BLOCK;
    let mut steps = Vec::new();
    // What the switch covers from now on, and the name that it has.
    let (resume, name) = if let Some(grown) = grown {
        let switch = padding_named(SWITCH, grown.end, grown.end + BLOCK);
        write(&mut steps, grown.end, [&switch[..], &region, &END].concat());
        steps.push(Step::Cut { at: grown.end + BLOCK + length + END.len() as u64 });
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
        // Junk behind the end, of an edit that was interrupted, must not reach beyond what is written over it.
        if end.file > at {
            steps.push(Step::Cut { at });
        }
        write(&mut steps, at, [&region[..], &END].concat());
        (at, SWITCH)
    };
    steps.push(Step::Sync);
    write(&mut steps, tail.switch, padding_named(name, tail.switch, resume));
    steps.push(Step::Sync);
    for stale in stale_metadata(index, tail) {
        write(&mut steps, stale.start, padding_header(stale.start, stale.end()));
    }
    if steps.last() != Some(&Step::Sync) {
        steps.push(Step::Sync);
    }
    debug_assert!(resume >= hidden);
    steps
}

/// A range behind the switch that readers pass over today, in which a region of this length fits together with what
/// covers the rest; its end is where a reader that came through it goes on: at the end of the archive.
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
        // Before what is seen now there has to be a padding entry that covers it.
        rest.is_some_and(|rest| rest >= BLOCK || (rest == 0 && room.end == end))
    };
    [before, after].into_iter().find(fits).map(|room| room.start..end)
}

/// Metadata in front of the tail, which the metadata in the tail replaces for most readers but not for all.
fn stale_metadata(index: &TarIndex, tail: Tail) -> impl Iterator<Item = &Entry> {
    let replaced = [INDEX_JSON, MANIFEST_JSON];
    index.entries().iter().filter(move |entry| !tail.holds(entry.start) && is_named(entry, &replaced))
}

/// Files as entries, one after the other.
fn lay_out(files: &[(String, Bytes)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        let size = content.len() as u64;
        bytes.extend(Header::file(name, size).to_bytes());
        bytes.extend_from_slice(content);
        bytes.extend(&END[..padding(size) as usize]);
    }
    bytes
}

/// The header of an entry that makes readers pass over everything between it and `end`.
pub(crate) fn padding_header(start: u64, end: u64) -> Vec<u8> {
    padding_named(PADDING, start, end)
}

fn padding_named(name: &str, start: u64, end: u64) -> Vec<u8> {
    Header::file(name, end - start - BLOCK).to_bytes()
}

fn write(steps: &mut Vec<Step>, at: u64, bytes: Vec<u8>) {
    steps.push(Step::Write { at, bytes: bytes.into() });
}

/// Whether an entry is there for its size only.
pub(crate) fn is_filler(entry: &Entry) -> bool {
    is_named(entry, &[SWITCH, PADDING])
}

fn is_named(entry: &Entry, names: &[&str]) -> bool {
    entry.name.as_deref().is_some_and(|name| names.contains(&name))
}

#[cfg(test)]
mod tests;
