use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The offset of the first byte.
    pub start: usize,
    /// The offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// Returns the offsets as a range.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Span {
        Span { start: range.start, end: range.end }
    }
}

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct FilePlace {
    /// The file, relative to the project.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl FilePlace {
    /// Returns the place of an offset in a file.
    pub fn of(file: impl Into<PathBuf>, bytes: &[u8], offset: usize) -> FilePlace {
        let (line, column) = line_and_column(bytes, offset);
        FilePlace { file: file.into(), line, column }
    }
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Returns bytes with other text in some places, which are in order and do not overlap.
pub(super) fn replaced<'a>(bytes: &[u8], edits: impl IntoIterator<Item = (Span, &'a [u8])>) -> Vec<u8> {
    let (mut replaced, mut at) = (Vec::with_capacity(bytes.len() + 16), 0);
    for (span, text) in edits {
        replaced.extend_from_slice(&bytes[at..span.start]);
        replaced.extend_from_slice(text);
        at = span.end;
    }
    replaced.extend_from_slice(&bytes[at..]);
    replaced
}

/// Returns the line and the column of an offset, both from 1.
pub(super) fn line_and_column(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = &bytes[..offset.min(bytes.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}
