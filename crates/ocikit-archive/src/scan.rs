//! Converts header blocks to entries, by the common rules of random and sequential reading.

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions, SparseEntry};

use crate::entry::{Entry, Kind, Span, plain_name};
use crate::error::{Error, Result};
use crate::header::BLOCK;

/// The input of headers: shows the next bytes without consuming them.
pub(crate) trait Window {
    /// Returns at least this many bytes from the current position, fewer only at the end of the archive.
    fn peek(&mut self, length: usize) -> Result<&[u8]>;

    /// Returns the offset of the current position.
    fn position(&self) -> u64;

    /// Consumes header bytes that were shown.
    fn pass(&mut self, length: usize);
}

/// The fields of a header.
pub(crate) struct Found<'a> {
    pub(crate) parsed: ParsedEntry<'a>,
    /// The stored parts of a sparse file, and its size.
    pub(crate) sparse: Option<(Vec<SparseEntry>, u64)>,
    /// The position of the first header.
    pub(crate) start: u64,
}

/// How invalid numbers in extended headers are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// They make the archive invalid.
    Strict,
    /// They are ignored here and handled by the conversion of the entry, which accepts times before 1970.
    Left,
}

/// The maximum size of the headers of one entry in bytes. The parser bounds extended headers below that, but not the
/// maps of sparse files.
const MAX_HEADER_BYTES: usize = 2 << 20;

/// Returns the next entry and consumes its headers; `None` at the end, before the zero blocks.
pub(crate) fn next(window: &mut impl Window) -> Result<Option<Entry>> {
    Ok(next_with(window, Numbers::Strict, |_| Ok(()))?.map(|(entry, ())| entry))
}

/// Returns the next entry, with the result of a function for its header.
pub(crate) fn next_with<T>(
    window: &mut impl Window,
    numbers: Numbers,
    convert: impl Fn(&Found<'_>) -> Result<T>,
) -> Result<Option<(Entry, T)>> {
    let new_parser = || {
        let mut parser = Parser::new(Limits { max_path_len: Some(4096), ..Limits::default() });
        parser.set_ignore_pax_errors(numbers == Numbers::Left);
        parser
    };
    let (mut parser, mut start, mut want) = (new_parser(), window.position(), BLOCK as usize);
    loop {
        let bytes = window.peek(want)?;
        // The end of the file, if the writer omitted the zero blocks.
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() < want {
            return Err(Error::Truncated {
                what: "a header".to_owned(),
                offset: start,
                missing: (want - bytes.len()) as u64,
            });
        }
        if bytes[..BLOCK as usize].iter().all(|byte| *byte == 0) {
            return end(window, start).map(|()| None);
        }
        let event = parser.parse(bytes).map_err(|error| invalid(start, error))?;
        let (consumed, parsed, sparse) = match event {
            ParseEvent::NeedData { min_bytes } if min_bytes > MAX_HEADER_BYTES => {
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
                window.pass(consumed);
                (parser, start, want) = (new_parser(), window.position(), BLOCK as usize);
                continue;
            }
            ParseEvent::End { .. } => return Err(invalid(start, "an extended header has no entry behind it")),
        };
        let entry = to_entry(&parsed, sparse.is_some(), start, start + consumed as u64)?;
        let converted = convert(&Found { parsed, sparse, start })?;
        window.pass(consumed);
        return Ok(Some((entry, converted)));
    }
}

/// GNU tar ends at a single zero block, Go's readers reject it, and others skip it. It is rejected here, because an
/// archive must not hold different images for different readers. At the very end of the file all agree.
fn end(window: &mut impl Window, start: u64) -> Result<()> {
    let two = window.peek(2 * BLOCK as usize)?;
    if two.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(invalid(start, "a single zero block")) }
}

fn to_entry(parsed: &ParsedEntry<'_>, sparse: bool, start: u64, data: u64) -> Result<Entry> {
    let name = plain_name("", &parsed.path).filter(|_| !leads_up(&parsed.path));
    let directory = name.as_deref().and_then(|name| name.rsplit_once('/')).map_or("", |(directory, _)| directory);
    let target = parsed.link_target.as_deref().unwrap_or_default();
    // Only files have contents. Go ignores the size in the headers of other types, so that is the rule here too.
    let (kind, size) = match parsed.entry_type {
        EntryType::Regular | EntryType::Continuous if parsed.path.ends_with(b"/") => (Kind::Directory, 0),
        EntryType::Regular | EntryType::Continuous if !sparse => (Kind::File, parsed.size),
        EntryType::Link => (Kind::Link(plain_name("", target)), 0),
        EntryType::Symlink => (Kind::Link(plain_name(directory, target)), 0),
        EntryType::Directory => (Kind::Directory, 0),
        EntryType::Char | EntryType::Block | EntryType::Fifo => (Kind::Other, 0),
        _ => (Kind::Other, parsed.size),
    };
    let written = String::from_utf8_lossy(&parsed.path);
    let is_plain = kind == Kind::Directory || name.as_deref() == Some(&*written);
    let spelling = (!is_plain).then(|| written.into());
    let entry = Entry { name, spelling, kind, start, data: Span { offset: data, size } };
    let fits = data.checked_add(size).and_then(|end| end.checked_add(BLOCK)).is_some_and(|end| end < i64::MAX as u64);
    if fits { Ok(entry) } else { Err(invalid(start, format!("an entry claims {size} bytes"))) }
}

fn leads_up(name: &[u8]) -> bool {
    name.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// Some readers apply global headers to every following entry and some do not, so one that would rename or resize
/// entries is rejected.
fn refuse_renaming_globals(data: &[u8], start: u64) -> Result<()> {
    for record in PaxExtensions::new(data) {
        let record = record.map_err(|error| invalid(start, error))?;
        if matches!(record.key(), Ok("path" | "linkpath" | "size")) {
            return Err(invalid(start, "a global header renames or resizes entries"));
        }
    }
    Ok(())
}

pub(crate) fn invalid(offset: u64, problem: impl std::fmt::Display) -> Error {
    Error::Invalid { offset, problem: problem.to_string(), after: None }
}

/// Returns the name of an entry for a message.
pub(crate) fn shown(entry: &Entry) -> String {
    entry.name.clone().unwrap_or_else(|| "an entry".to_owned())
}
