use std::io::{self, Read};

use tar_core::SparseEntry;

use crate::error::Result;
use crate::scan::invalid;

/// The stored parts of a sparse file; the rest is zeros.
#[derive(Debug, Clone)]
pub(crate) struct Sparse {
    parts: Vec<SparseEntry>,
    size: u64,
    /// The position of the next byte, and the part that it is in or before.
    position: u64,
    part: usize,
}

/// The maximum size of a sparse file in bytes: a few bytes may claim any size, and producing zeros takes time.
const MAX_SPARSE_FILE_BYTES: u64 = 1 << 40;

impl Sparse {
    /// Checks a map against the size of the file and the number of stored bytes. `offset` is that of the entry.
    pub(crate) fn new(map: &[SparseEntry], size: u64, stored: u64, offset: u64) -> Result<Sparse> {
        if size > MAX_SPARSE_FILE_BYTES {
            return Err(invalid(offset, format_args!("a sparse file claims {size} bytes")));
        }
        let mut end = 0;
        let mut sum = 0;
        for part in map {
            let next = part.offset.checked_add(part.length).filter(|next| *next <= size && part.offset >= end);
            end = next.ok_or_else(|| invalid(offset, "the map of a sparse file is out of order"))?;
            sum += part.length;
        }
        if sum != stored {
            let problem = format_args!("the map of a sparse file has {sum} bytes, but {stored} are stored");
            return Err(invalid(offset, problem));
        }
        let parts = map.iter().filter(|part| part.length > 0).copied().collect();
        Ok(Sparse { parts, size, position: 0, part: 0 })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of zeros before the next stored byte, or before the end, and passes over them.
    pub(crate) fn pass_hole(&mut self) -> u64 {
        let end = self.parts.get(self.part).map_or(self.size, |part| part.offset);
        let hole = end.saturating_sub(self.position);
        self.position += hole;
        hole
    }

    /// Reads bytes of the file, the stored ones from `stored`.
    pub(crate) fn read(&mut self, stored: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.parts.get(self.part);
        let hole = part.map_or(self.size, |part| part.offset).saturating_sub(self.position);
        let read = if hole > 0 {
            let length = at_most(hole, buffer.len());
            buffer[..length].fill(0);
            length
        } else if let Some(part) = part {
            let length = at_most(part.offset + part.length - self.position, buffer.len());
            stored.read(&mut buffer[..length])?
        } else {
            0
        };
        self.position += read as u64;
        if part.is_some_and(|part| self.position >= part.offset + part.length) {
            self.part += 1;
        }
        Ok(read)
    }
}

fn at_most(length: u64, limit: usize) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(offset: u64, length: u64) -> SparseEntry {
        SparseEntry { offset, length }
    }

    fn read(map: &[SparseEntry], size: u64, mut stored: &[u8], step: usize) -> Vec<u8> {
        let mut sparse = Sparse::new(map, size, stored.len() as u64, 0).unwrap();
        let mut found = Vec::new();
        let mut buffer = vec![1; step];
        loop {
            match sparse.read(&mut stored, &mut buffer).unwrap() {
                0 => return found,
                read => found.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn holes_are_zeros() {
        for step in [1, 2, 3, 100] {
            assert_eq!(read(&[part(0, 2), part(5, 1), part(8, 0)], 8, b"abc", step), b"ab\0\0\0c\0\0");
            assert_eq!(read(&[part(2, 1), part(3, 1)], 4, b"ab", step), b"\0\0ab");
            assert_eq!(read(&[], 3, b"", step), b"\0\0\0");
            assert_eq!(read(&[], 0, b"", step), b"");
        }
    }

    #[test]
    fn rejects_invalid_sparse_maps() {
        for (map, size, stored) in [
            (&[part(0, 2)][..], 1, 2),
            (&[part(2, 1), part(0, 1)], 3, 2),
            (&[part(0, 2), part(1, 1)], 3, 3),
            (&[part(u64::MAX, 2)], 3, 2),
            (&[part(0, 2)], 3, 3),
            (&[], u64::MAX, 0),
        ] {
            assert!(Sparse::new(map, size, stored, 0).is_err(), "{map:?}");
        }
    }
}
