//! Writing of records with little-endian numbers at fixed positions.

use std::io::{self, Write};

/// A record of a fixed size; what is not set is zero.
#[derive(Debug, Clone)]
pub(super) struct Record<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> Record<SIZE> {
    pub(super) fn new() -> Record<SIZE> {
        Record([0; SIZE])
    }

    pub(super) fn bytes(mut self, at: usize, bytes: &[u8]) -> Record<SIZE> {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, at: usize, value: u8) -> Record<SIZE> {
        self.bytes(at, &[value])
    }

    pub(super) fn u16(self, at: usize, value: u16) -> Record<SIZE> {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u32(self, at: usize, value: u32) -> Record<SIZE> {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u64(self, at: usize, value: u64) -> Record<SIZE> {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn done(self) -> [u8; SIZE] {
        self.0
    }
}

/// A writer that knows its position.
#[derive(Debug)]
pub(super) struct Positioned<W> {
    writer: W,
    position: u64,
}

impl<W: Write> Positioned<W> {
    pub(super) fn new(writer: W) -> Positioned<W> {
        Positioned { writer, position: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros up to a position.
    pub(super) fn zeros_to(&mut self, position: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut rest = position.checked_sub(self.position).ok_or_else(|| io::Error::other("the layout is wrong"))?;
        while rest > 0 {
            let length = rest.min(ZEROS.len() as u64);
            self.put(&ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())])?;
            rest -= length;
        }
        Ok(())
    }

    /// Writes zeros up to a multiple of a number.
    pub(super) fn align(&mut self, to: u64) -> io::Result<()> {
        self.zeros_to(self.position.next_multiple_of(to))
    }
}

/// Returns a number that is known to fit, because the planner of the format has checked it.
pub(super) fn word(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// As [`word`], for 16 bits.
pub(super) fn small(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
