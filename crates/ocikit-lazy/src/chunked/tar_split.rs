//! The stream of tar-split: everything of a tar but the contents of files, and the order of both.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::chunked::crc64::Crc64;

/// A line for the contents of an entry.
const FILE: u8 = 1;

/// A line for other bytes of the tar.
const SEGMENT: u8 = 2;

/// The maximum number of bytes in one line. Segments are joined by readers.
const MAX_SEGMENT_BYTES: usize = 1 << 20;

/// Writes the lines.
pub(super) struct TarSplit<W> {
    writer: W,
    position: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    payload: Option<String>,
    position: u64,
}

impl<W: Write> TarSplit<W> {
    pub(super) fn new(writer: W) -> TarSplit<W> {
        TarSplit { writer, position: 0 }
    }

    /// Adds bytes that are not the contents of a file.
    pub(super) fn segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(MAX_SEGMENT_BYTES) {
            let payload = Some(STANDARD.encode(part));
            self.line(Line { kind: SEGMENT, name: None, name_raw: None, size: None, payload, position: 0 })?;
        }
        Ok(())
    }

    /// Adds an entry behind its headers; without contents if the size is 0.
    pub(super) fn entry(&mut self, name: &[u8], size: u64, crc: Crc64) -> io::Result<()> {
        let text = std::str::from_utf8(name).ok();
        let has_contents = size > 0;
        self.line(Line {
            kind: FILE,
            name: text,
            name_raw: text.is_none().then(|| STANDARD.encode(name)),
            size: has_contents.then_some(size),
            payload: has_contents.then(|| STANDARD.encode(crc.bytes())),
            position: 0,
        })
    }

    pub(super) fn into_inner(self) -> W {
        self.writer
    }

    fn line(&mut self, line: Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, &Line { position: self.position, ..line })?;
        self.position += 1;
        self.writer.write_all(b"\n")
    }
}
