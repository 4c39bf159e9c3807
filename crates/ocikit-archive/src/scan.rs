//! From header blocks to entries: the rules that random and sequential reading share.

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions, SparseEntry};

use crate::entry::{Entry, Kind, Span, plain_name};
use crate::error::{Error, Result};
use crate::header::BLOCK;

/// Where headers are read: it shows the next bytes without passing them.
pub(crate) trait Window {
    /// At least this many bytes at the current position; fewer only where the archive ends.
    fn peek(&mut self, length: usize) -> Result<&[u8]>;

    /// The offset of the current position.
    fn position(&self) -> u64;

    /// Passes header bytes that were shown.
    fn pass(&mut self, length: usize);
}

/// What a header says, before anything was made of it.
pub(crate) struct Found<'a> {
    pub(crate) parsed: ParsedEntry<'a>,
    /// Which parts of a sparse file are stored, and how long it is.
    pub(crate) sparse: Option<(Vec<SparseEntry>, u64)>,
    /// Where the first header begins.
    pub(crate) start: u64,
}

/// How numbers in extended headers are taken that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// They make the archive invalid.
    Strict,
    /// They are left to whoever converts the entry: a time before 1970 is one of them.
    Left,
}

/// The most that headers of one entry may take. Extended headers are bounded below that by the parser, the maps of sparse
/// files are not.
const MOST_HEADERS: usize = 2 << 20;

/// The next entry, its headers passed; `None` at the end, with the zero blocks of the end still ahead.
pub(crate) fn next(window: &mut impl Window) -> Result<Option<Entry>> {
    Ok(next_with(window, Numbers::Strict, |_| Ok(()))?.map(|(entry, ())| entry))
}

/// The same, and what this function makes of the header beside the entry.
pub(crate) fn next_with<T>(
    window: &mut impl Window,
    numbers: Numbers,
    convert: impl Fn(&Found<'_>) -> Result<T>,
) -> Result<Option<(Entry, T)>> {
    loop {
        let start = window.position();
        let (consumed, entry) = match header(window, start, numbers, &convert)? {
            Header::End => return Ok(None),
            Header::Global { consumed } => (consumed, None),
            Header::Entry { consumed, entry, converted } => (consumed, Some((entry, converted))),
        };
        window.pass(consumed);
        if entry.is_some() {
            return Ok(entry);
        }
    }
}

enum Header<T> {
    Entry {
        consumed: usize,
        entry: Entry,
        converted: T,
    },
    Global {
        consumed: usize,
    },
    /// Two zero blocks, or nothing at all where the writer forgot them.
    End,
}

fn header<T>(
    window: &mut impl Window,
    start: u64,
    numbers: Numbers,
    convert: &impl Fn(&Found<'_>) -> Result<T>,
) -> Result<Header<T>> {
    let mut parser = Parser::new(Limits { max_path_len: Some(4096), ..Limits::default() });
    parser.set_ignore_pax_errors(numbers == Numbers::Left);
    let mut want = BLOCK as usize;
    loop {
        let bytes = window.peek(want)?;
        if bytes.is_empty() {
            return Ok(Header::End);
        }
        if bytes.len() < want {
            return Err(Error::Truncated {
                what: "a header".to_owned(),
                offset: start,
                missing: (want - bytes.len()) as u64,
            });
        }
        if bytes[..BLOCK as usize].iter().all(|byte| *byte == 0) {
            return end(window, start);
        }
        let event = parser.parse(bytes).map_err(|error| invalid(start, error))?;
        let (consumed, parsed, sparse) = match event {
            ParseEvent::NeedData { min_bytes } if min_bytes > MOST_HEADERS => {
                return Err(invalid(start, "the headers of an entry do not end"));
            }
            ParseEvent::NeedData { min_bytes } => {
                want = min_bytes.max(want + 1);
                continue;
            }
            ParseEvent::Entry { consumed, entry } => (consumed, entry, None),
            ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                (consumed, entry, Some((sparse_map, real_size)))
            }
            ParseEvent::GlobalExtensions { consumed, pax_data } => {
                refuse_renaming_globals(pax_data, start)?;
                return Ok(Header::Global { consumed });
            }
            ParseEvent::End { .. } => return Err(invalid(start, "an extended header has no entry behind it")),
        };
        let entry = to_entry(&parsed, sparse.is_some(), start, start + consumed as u64)?;
        let converted = convert(&Found { parsed, sparse, start })?;
        return Ok(Header::Entry { consumed, entry, converted });
    }
}

/// GNU tar ends at a lone zero block, Go's readers refuse it, others pass over it: refused, because an archive must
/// not hold different images for different readers. At the very end of the file all agree.
fn end<T>(window: &mut impl Window, start: u64) -> Result<Header<T>> {
    let two = window.peek(2 * BLOCK as usize)?;
    if two.iter().all(|byte| *byte == 0) {
        return Ok(Header::End);
    }
    Err(invalid(start, "a lone block of zeros"))
}

fn to_entry(parsed: &ParsedEntry<'_>, sparse: bool, start: u64, data: u64) -> Result<Entry> {
    let name = plain_name("", &parsed.path).filter(|_| !leads_up(&parsed.path));
    let directory = name.as_deref().and_then(|name| name.rsplit_once('/')).map_or("", |(directory, _)| directory);
    let target = parsed.link_target.as_deref().unwrap_or_default();
    // Only files have bytes. Go reads no others whatever their header claims, so that is the rule here too.
    let (kind, size) = match parsed.entry_type {
        EntryType::Regular | EntryType::Continuous if parsed.path.ends_with(b"/") => (Kind::Directory, 0),
        EntryType::Regular | EntryType::Continuous if !sparse => (Kind::File, parsed.size),
        EntryType::Link => (Kind::Link(plain_name("", target)), 0),
        EntryType::Symlink => (Kind::Link(plain_name(directory, target)), 0),
        EntryType::Directory => (Kind::Directory, 0),
        EntryType::Char | EntryType::Block | EntryType::Fifo => (Kind::Other, 0),
        _ => (Kind::Other, parsed.size),
    };
    let entry = Entry { name, kind, start, data: Span { offset: data, size } };
    let fits = data.checked_add(size).and_then(|end| end.checked_add(BLOCK)).is_some_and(|end| end < i64::MAX as u64);
    if fits { Ok(entry) } else { Err(invalid(start, format!("an entry claims {size} bytes"))) }
}

fn leads_up(name: &[u8]) -> bool {
    name.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// Some readers apply global headers to every entry that follows and some do not; one that would rename or resize
/// entries is refused.
fn refuse_renaming_globals(data: &[u8], start: u64) -> Result<()> {
    for record in PaxExtensions::new(data) {
        let record = record.map_err(|error| invalid(start, error))?;
        if matches!(record.key(), Ok("path" | "linkpath" | "size")) {
            return Err(invalid(start, "a global header names or sizes every entry"));
        }
    }
    Ok(())
}

pub(crate) fn invalid(offset: u64, problem: impl std::fmt::Display) -> Error {
    Error::Invalid { offset, problem: problem.to_string() }
}

/// The name of an entry for a message.
pub(crate) fn shown(entry: &Entry) -> String {
    entry.name.clone().unwrap_or_else(|| "an entry".to_owned())
}
