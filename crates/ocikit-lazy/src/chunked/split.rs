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

/// Cuts the content of one file. It passes on the size of each chunk when the chunk ends.
pub(super) struct Splitter {
    sum: Sum,
    /// The number of bytes from the last cut to the run of zeros at the end.
    length: usize,
    /// The number of zeros at the end. They are not in the sum yet.
    zeros: usize,
    /// Whether the last chunk was a run of zeros that was cut at its maximum size and may continue.
    in_hole: bool,
}

impl Default for Splitter {
    fn default() -> Splitter {
        Splitter { sum: Sum::new(), length: 0, zeros: 0, in_hole: false }
    }
}

impl Splitter {
    /// Starts the next file.
    pub(super) fn reset(&mut self) {
        *self = Splitter::default();
    }

    /// Passes on the chunks that end in these bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], cut: &mut impl FnMut(usize, ChunkKind)) {
        while !bytes.is_empty() {
            if self.zeros > 0 || self.in_hole {
                let run = leading_zeros(bytes);
                self.extend_zeros(run, cut);
                bytes = &bytes[run..];
                if bytes.is_empty() {
                    return;
                }
                self.end_zeros(cut);
            }
            // A run of zeros that is long enough for a hole has a whole block of zeros in it, or is at the end.
            let blocks = bytes.chunks(MIN_HOLE_BYTES / 2).take_while(|block| block.iter().any(|byte| *byte != 0));
            let dense = &bytes[..blocks.map(<[u8]>::len).sum()];
            let end = dense.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            self.add(&bytes[..end], cut);
            bytes = &bytes[end..];
            if bytes.first() == Some(&0) {
                self.extend_zeros(1, cut);
                bytes = &bytes[1..];
            }
        }
    }

    /// Passes on the last chunks.
    pub(super) fn finish(&mut self, cut: &mut impl FnMut(usize, ChunkKind)) {
        self.end_zeros(cut);
        if self.length > 0 {
            cut(std::mem::take(&mut self.length), ChunkKind::Data);
        }
    }

    /// Adds bytes whose runs of zeros are too short for a hole.
    fn add(&mut self, bytes: &[u8], cut: &mut impl FnMut(usize, ChunkKind)) {
        let mut start = 0;
        loop {
            let found = self.sum.next_end(&bytes[start..]);
            let end = found.map_or(bytes.len(), |length| start + length);
            self.length += end - start;
            while self.length > MAX_CHUNK_BYTES {
                self.length -= MAX_CHUNK_BYTES;
                cut(MAX_CHUNK_BYTES, ChunkKind::Data);
            }
            if found.is_some() || self.length == MAX_CHUNK_BYTES {
                cut(std::mem::take(&mut self.length), ChunkKind::Data);
            }
            start = end;
            if found.is_none() {
                return;
            }
        }
    }

    fn extend_zeros(&mut self, run: usize, cut: &mut impl FnMut(usize, ChunkKind)) {
        self.zeros += run;
        while self.zeros >= MAX_CHUNK_BYTES {
            let rest = self.zeros - MAX_CHUNK_BYTES;
            self.zeros = MAX_CHUNK_BYTES;
            self.end_hole(cut);
            self.in_hole = true;
            self.zeros = rest;
        }
    }

    /// Decides about the zeros before a byte or the end.
    fn end_zeros(&mut self, cut: &mut impl FnMut(usize, ChunkKind)) {
        if self.in_hole || self.zeros >= MIN_HOLE_BYTES {
            return self.end_hole(cut);
        }
        let zeros = std::mem::take(&mut self.zeros);
        self.add(&[0; MIN_HOLE_BYTES][..zeros], cut);
    }

    /// Passes on what is before a run of zeros, and the run.
    fn end_hole(&mut self, cut: &mut impl FnMut(usize, ChunkKind)) {
        self.in_hole = false;
        for (length, kind) in [(&mut self.length, ChunkKind::Data), (&mut self.zeros, ChunkKind::Zeros)] {
            if *length > 0 {
                cut(std::mem::take(length), kind);
            }
        }
        self.sum.add_window_of_zeros();
    }
}

fn leading_zeros(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// The rolling sum over the last bytes. Its value depends on nothing else.
struct Sum {
    low: u32,
    high: u32,
    window: [u8; WINDOW_BYTES],
}

impl Sum {
    fn new() -> Sum {
        let low = WINDOW_BYTES as u32 * BYTE_OFFSET;
        Sum { low, high: low * (WINDOW_BYTES as u32 - 1), window: [0; WINDOW_BYTES] }
    }

    /// Adds bytes until a chunk ends behind one of them, and returns the number of those; `None` if no chunk ends.
    fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (self.low, self.high);
        let mut is_end = |(byte, dropped): (&u8, &u8)| {
            let dropped = u32::from(*dropped);
            low = low.wrapping_add(u32::from(*byte)).wrapping_sub(dropped);
            high = high.wrapping_add(low).wrapping_sub((WINDOW_BYTES as u32).wrapping_mul(dropped + BYTE_OFFSET));
            high & SPLIT_MASK == SPLIT_MASK
        };
        // The bytes that leave the window are first those before these bytes, then these bytes themselves.
        let first = bytes.iter().zip(&self.window).position(&mut is_end);
        let found = first.or_else(|| {
            let (_, later) = bytes.split_at_checked(WINDOW_BYTES)?;
            later.iter().zip(bytes).position(&mut is_end).map(|at| at + WINDOW_BYTES)
        });
        let length = found.map_or(bytes.len(), |at| at + 1);
        (self.low, self.high) = (low, high);
        self.shift(&bytes[..length]);
        found.map(|at| at + 1)
    }

    /// Adds as many zeros as the window holds: more change nothing.
    fn add_window_of_zeros(&mut self) {
        let zeros = Sum::new();
        (self.low, self.high, self.window) = (zeros.low, zeros.high, zeros.window);
    }

    /// Appends to the window.
    fn shift(&mut self, bytes: &[u8]) {
        match bytes.last_chunk() {
            Some(last) => self.window = *last,
            None => {
                self.window.copy_within(bytes.len().., 0);
                self.window[WINDOW_BYTES - bytes.len()..].copy_from_slice(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(bytes: &[u8], step: usize) -> Vec<(Vec<u8>, ChunkKind)> {
        let (mut found, mut at) = (Vec::new(), 0);
        let mut keep = |length: usize, kind: ChunkKind| {
            found.push((bytes[at..at + length].to_vec(), kind));
            at += length;
        };
        let mut splitter = Splitter::default();
        for part in bytes.chunks(step) {
            splitter.feed(part, &mut keep);
        }
        splitter.finish(&mut keep);
        found
    }

    /// The rule in its plainest form: a sum over the whole window for each byte.
    fn plain_sizes(bytes: &[u8]) -> Vec<usize> {
        let padded = [&[0; WINDOW_BYTES - 1][..], bytes].concat();
        let sum_at = |at: usize| {
            let weighted = padded[at..at + WINDOW_BYTES].iter().rev().zip(1_u32..);
            // The sum starts with weights of 63 instead of 1 to 64.
            let start = 64 * 63 - 64 * 65 / 2;
            weighted.map(|(byte, weight)| weight * (u32::from(*byte) + BYTE_OFFSET)).sum::<u32>() + start * BYTE_OFFSET
        };
        let (mut sizes, mut start, mut at) = (Vec::new(), 0, 0);
        while at < bytes.len() {
            let zeros = leading_zeros(&bytes[at..]);
            if zeros >= MIN_HOLE_BYTES {
                sizes.extend([at - start, zeros]);
                at += zeros;
                start = at;
                continue;
            }
            for _ in 0..zeros.max(1) {
                at += 1;
                if sum_at(at - 1) & SPLIT_MASK == SPLIT_MASK {
                    sizes.push(at - start);
                    start = at;
                }
            }
        }
        sizes.push(bytes.len() - start);
        sizes.retain(|size| *size > 0);
        sizes
    }

    #[test]
    fn chunks_end_where_the_sum_says_so() {
        let noise = noise(2 << 20);
        let mixed = [&noise[..500_000], &[0; 999], &noise[..300_000], &[0; 1024], &noise[300_000..]].concat();
        // Few values of bytes, and many short runs of zeros.
        let sparse: Vec<u8> = noise.iter().map(|byte| if byte & 3 == 1 { *byte } else { 0 }).collect();
        for bytes in [&noise, &mixed, &sparse] {
            let wanted = plain_sizes(bytes);
            assert!(wanted.len() > 10, "{}", wanted.len());
            for step in [1, 63, 64, 65, 1000, 1 << 16, usize::MAX] {
                assert_eq!(chunks(bytes, step).iter().map(|(chunk, _)| chunk.len()).collect::<Vec<_>>(), wanted);
            }
        }
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
