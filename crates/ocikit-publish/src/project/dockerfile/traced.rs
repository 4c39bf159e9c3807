use std::borrow::Cow;
use std::ops::Range;

use crate::project::place::Span;

/// The offset of a byte that is not from the file.
const NOWHERE: u32 = u32::MAX;

/// Text that knows where in the file each of its bytes is from. Joining continued lines, removing quotes and expanding
/// variables keep the offsets, so a version can be replaced in the place where it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl Traced {
    /// Returns text that is not from the file: the value of a build argument.
    pub fn untraced(text: &str) -> Traced {
        Traced { bytes: text.as_bytes().to_vec(), offsets: vec![NOWHERE; text.len()] }
    }

    /// Returns a part of a file.
    pub(super) fn of(file: &[u8], range: Range<usize>) -> Traced {
        let mut text = Traced::default();
        text.push_file(file, range);
        text
    }

    /// Adds a part of a file. Files are smaller than 4 GiB: [`MAX_DOCKERFILE_BYTES`](super::super::MAX_DOCKERFILE_BYTES).
    pub(super) fn push_file(&mut self, file: &[u8], range: Range<usize>) {
        self.bytes.extend_from_slice(&file[range.clone()]);
        self.offsets.extend(range.map(|offset| u32::try_from(offset).unwrap_or(NOWHERE)));
    }

    /// Adds a part of another text.
    pub(super) fn push(&mut self, text: &Traced, range: Range<usize>) {
        self.bytes.extend_from_slice(&text.bytes[range.clone()]);
        self.offsets.extend_from_slice(&text.offsets[range]);
    }

    /// Adds another text.
    pub(super) fn append(&mut self, text: &Traced) {
        self.push(text, 0..text.len());
    }

    /// Returns a part.
    pub fn slice(&self, range: Range<usize>) -> Traced {
        Traced { bytes: self.bytes[range.clone()].to_vec(), offsets: self.offsets[range].to_vec() }
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the place of a part in the file; `None` if it is empty, or not one uninterrupted part of the file.
    pub fn span(&self, range: Range<usize>) -> Option<Span> {
        let offsets = self.offsets.get(range)?;
        let (first, last) = (*offsets.first()?, *offsets.last()?);
        let is_one = first != NOWHERE && offsets.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
        is_one.then(|| Span { start: first as usize, end: last as usize + 1 })
    }

    /// Returns the smallest part of the file that has all bytes of the text that are from the file.
    pub fn extent(&self) -> Option<Span> {
        let known = || self.offsets.iter().copied().filter(|offset| *offset != NOWHERE);
        Some(Span { start: known().min()? as usize, end: known().max()? as usize + 1 })
    }

    /// Returns the position of a byte.
    pub(super) fn find(&self, byte: u8) -> Option<usize> {
        self.bytes.iter().position(|other| *other == byte)
    }

    /// Returns the text without white space at both ends.
    pub(super) fn trimmed(&self) -> Traced {
        let start = indent(&self.bytes);
        let mut end = self.len();
        while end > start {
            // A letter has at most four bytes.
            let width = (1..=4.min(end - start)).find(|width| {
                letter(&self.bytes[end - width..end])
                    .is_some_and(|(found, size)| size == *width && found.is_whitespace())
            });
            let Some(width) = width else { break };
            end -= width;
        }
        self.slice(start..end)
    }
}

/// Returns the length of the white space at the beginning, in bytes.
pub(super) fn indent(bytes: &[u8]) -> usize {
    let mut length = 0;
    while let Some((letter, width)) = letter(&bytes[length..])
        && letter.is_whitespace()
    {
        length += width;
    }
    length
}

/// Returns the first letter and its length in bytes; a byte that is not UTF-8 is U+FFFD, as in Go.
pub(super) fn letter(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    let width = match first {
        0..=0x7f => return Some((char::from(first), 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((char::REPLACEMENT_CHARACTER, 1)),
    };
    let found = bytes.get(..width).and_then(|part| std::str::from_utf8(part).ok()).and_then(|part| part.chars().next());
    Some(found.map_or((char::REPLACEMENT_CHARACTER, 1), |found| (found, width)))
}
