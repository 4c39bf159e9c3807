//! Cuts files into chunks at places that depend on the content only, so that a changed file shares most of its chunks.
//!
//! The rule is that of containers/storage, so that chunks of its layers and of these are the same: a rolling sum over 64
//! bytes, and runs of zeros as chunks of their own.

/// The number of bytes that the sum covers.
const WINDOW_BYTES: usize = 64;

/// A number that is added to each byte, so that zeros count.
const BYTE_OFFSET: u32 = 31;

/// A chunk ends when these bits of the sum are set: every 64 KiB on average.
const SPLIT_MASK: u32 = 0xffff;

/// The length from which a run of zeros is a chunk of its own.
const MIN_HOLE_BYTES: usize = 1 << 10;

/// The maximum size of a chunk in bytes. The rule itself has none, and content that never splits would be held in memory.
pub(super) const MAX_CHUNK_BYTES: usize = 4 << 20;

/// The content of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkKind {
    Data,
    Zeros,
}

/// Cuts the content of one file.
pub(super) struct Splitter {
    low: u32,
    high: u32,
    window: [u8; WINDOW_BYTES],
    next: usize,
    /// The bytes from the last cut. The run of zeros at their end is not in the sum yet.
    chunk: Vec<u8>,
    zeros: usize,
    /// Whether the chunk is a run of zeros that was cut at its maximum size and may continue.
    in_hole: bool,
}

impl Splitter {
    pub(super) fn new() -> Splitter {
        Splitter {
            low: WINDOW_BYTES as u32 * BYTE_OFFSET,
            high: (WINDOW_BYTES * (WINDOW_BYTES - 1)) as u32 * BYTE_OFFSET,
            window: [0; WINDOW_BYTES],
            next: 0,
            chunk: Vec::new(),
            zeros: 0,
            in_hole: false,
        }
    }

    /// Starts the next file.
    pub(super) fn reset(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        *self = Splitter { chunk, ..Splitter::new() };
        self.chunk.clear();
    }

    /// Passes on the chunks that end in these bytes.
    pub(super) fn feed<E>(
        &mut self,
        bytes: &[u8],
        chunk: &mut impl FnMut(&[u8], ChunkKind) -> Result<(), E>,
    ) -> Result<(), E> {
        for byte in bytes {
            if *byte == 0 {
                self.chunk.push(0);
                self.zeros += 1;
                if self.zeros >= MIN_HOLE_BYTES && self.zeros + 1 > MAX_CHUNK_BYTES {
                    self.end_hole(chunk)?;
                    self.in_hole = true;
                }
                continue;
            }
            if self.zeros > 0 || self.in_hole {
                self.end_zeros(chunk)?;
            }
            self.chunk.push(*byte);
            let is_end = self.roll(*byte);
            if is_end || self.chunk.len() >= MAX_CHUNK_BYTES {
                chunk(&self.chunk, ChunkKind::Data)?;
                self.chunk.clear();
            }
        }
        Ok(())
    }

    /// Passes on the last chunks.
    pub(super) fn finish<E>(&mut self, chunk: &mut impl FnMut(&[u8], ChunkKind) -> Result<(), E>) -> Result<(), E> {
        self.end_zeros(chunk)?;
        if !self.chunk.is_empty() {
            chunk(&self.chunk, ChunkKind::Data)?;
            self.chunk.clear();
        }
        Ok(())
    }

    /// Decides about the zeros before a byte or the end.
    fn end_zeros<E>(&mut self, chunk: &mut impl FnMut(&[u8], ChunkKind) -> Result<(), E>) -> Result<(), E> {
        if self.in_hole || self.zeros >= MIN_HOLE_BYTES {
            return self.end_hole(chunk);
        }
        let zeros = std::mem::take(&mut self.zeros);
        let known = self.chunk.len() - zeros;
        let mut start = 0;
        for at in 0..zeros {
            let end = known + at + 1;
            if self.roll(0) || end - start >= MAX_CHUNK_BYTES {
                chunk(&self.chunk[start..end], ChunkKind::Data)?;
                start = end;
            }
        }
        self.chunk.drain(..start);
        Ok(())
    }

    /// Passes on what is before a run of zeros, and the run.
    fn end_hole<E>(&mut self, chunk: &mut impl FnMut(&[u8], ChunkKind) -> Result<(), E>) -> Result<(), E> {
        let zeros = std::mem::take(&mut self.zeros);
        self.in_hole = false;
        let (before, hole) = self.chunk.split_at(self.chunk.len() - zeros);
        if !before.is_empty() {
            chunk(before, ChunkKind::Data)?;
        }
        if !hole.is_empty() {
            chunk(hole, ChunkKind::Zeros)?;
        }
        self.chunk.clear();
        // More zeros than the window holds change nothing.
        for _ in 0..zeros.min(WINDOW_BYTES) {
            self.roll(0);
        }
        Ok(())
    }

    /// Adds a byte to the sum, and returns whether a chunk ends behind it.
    #[inline]
    fn roll(&mut self, byte: u8) -> bool {
        let dropped = u32::from(std::mem::replace(&mut self.window[self.next], byte));
        self.next = (self.next + 1) % WINDOW_BYTES;
        self.low = self.low.wrapping_add(u32::from(byte)).wrapping_sub(dropped);
        let leaving = (WINDOW_BYTES as u32).wrapping_mul(dropped + BYTE_OFFSET);
        self.high = self.high.wrapping_add(self.low).wrapping_sub(leaving);
        self.high & SPLIT_MASK == SPLIT_MASK
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(bytes: &[u8], step: usize) -> Vec<(Vec<u8>, ChunkKind)> {
        let mut found = Vec::new();
        let mut keep = |chunk: &[u8], kind: ChunkKind| {
            found.push((chunk.to_vec(), kind));
            Ok::<_, ()>(())
        };
        let mut splitter = Splitter::new();
        for part in bytes.chunks(step) {
            splitter.feed(part, &mut keep).unwrap();
        }
        splitter.finish(&mut keep).unwrap();
        found
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn chunks_are_about_64_kib_and_follow_the_content() {
        let bytes = noise(4 << 20);
        let found = chunks(&bytes, 1000);
        assert!((30..130).contains(&found.len()), "{}", found.len());
        let shifted = chunks(&[&b"inserted"[..], &bytes].concat(), 777);
        assert_eq!(found[1..], shifted[1..]);
    }

    #[test]
    fn runs_of_zeros_are_chunks() {
        let kinds = |bytes: &[u8]| chunks(bytes, 100).iter().map(|(c, kind)| (c.len(), *kind)).collect::<Vec<_>>();
        use ChunkKind::{Data, Zeros};
        assert_eq!(kinds(&[0; 1023]), [(1023, Data)]);
        assert_eq!(kinds(&[0; 1024]), [(1024, Zeros)]);
        let mixed = [&b"abc"[..], &[0; 2000], b"def", &[0; 1000], b"g"].concat();
        assert_eq!(kinds(&mixed), [(3, Data), (2000, Zeros), (1004, Data)]);
        let long = vec![0; 2 * MAX_CHUNK_BYTES + 5];
        assert_eq!(kinds(&long), [(MAX_CHUNK_BYTES, Zeros), (MAX_CHUNK_BYTES, Zeros), (5, Zeros)]);
        // Content without a place to split.
        let same = vec![b'a'; 2 * MAX_CHUNK_BYTES + 1];
        assert!(kinds(&same).iter().all(|(length, _)| *length <= MAX_CHUNK_BYTES));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn chunks_are_the_content(parts in proptest::collection::vec((any::<u8>(), 0_usize..3000), 0..20), step in 1_usize..5000) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(byte, length)| {
                let byte = if byte % 2 == 0 { 0 } else { *byte };
                std::iter::repeat_n(byte, *length)
            }).collect();
            let found = chunks(&bytes, step);
            prop_assert_eq!(&found, &chunks(&bytes, usize::MAX));
            let is_zeros = |chunk: &[u8]| !chunk.is_empty() && chunk.iter().all(|byte| *byte == 0);
            let is_as_told = found.iter().all(|(chunk, kind)| *kind == ChunkKind::Data || is_zeros(chunk));
            prop_assert!(is_as_told);
            prop_assert_eq!(found.into_iter().flat_map(|(chunk, _)| chunk).collect::<Vec<_>>(), bytes);
        }
    }
}
