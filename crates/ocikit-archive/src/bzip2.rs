//! A bzip2 decoder.
//!
//! It is implemented here because the maintained decoder, `libbz2-rs-sys`, keeps C's interface and wrapping arithmetic:
//! in a build with overflow checks a damaged stream makes it abort the process.

use std::io::{self, BufRead, Read};

/// The unit of the block size in bytes.
const LEVEL_BYTES: usize = 100_000;

/// "1AY&SY", the digits of pi: the start of a block.
const BLOCK_MAGIC: u64 = 0x3141_5926_5359;

/// The digits of the square root of pi: the end of the stream.
const END_MAGIC: u64 = 0x1772_4538_5090;

/// The maximum length of a Huffman code in bits.
const MAX_CODE_BITS: usize = 20;

/// The number of symbols for each selector of a table.
const GROUP_SYMBOLS: usize = 50;

/// A reader that decompresses consecutive bzip2 streams. It takes four bytes of memory for each byte of a block, at
/// most 3.6 MB.
pub(crate) struct Bzip2Reader<R> {
    bits: Bits<R>,
    state: DecoderState,
    /// The maximum size of a block of the current stream, in bytes.
    block_limit: usize,
    stream_crc: u32,
    block: Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecoderState {
    /// Before the header of the first or another stream.
    Stream {
        first: bool,
    },
    /// Before a block or the end of the stream.
    Between,
    /// Inside a block.
    Block,
    Done,
    Failed,
}

/// A block, of which some bytes were already returned.
#[derive(Debug, Default)]
struct Block {
    /// A symbol in the low byte, and the position of the next one above it.
    links: Vec<u32>,
    position: u32,
    /// The number of remaining symbols.
    left: usize,
    /// The last byte and the length of its run; after four equal bytes a count follows.
    last: u8,
    row: u8,
    /// The number of further repetitions of the last byte.
    repeat: u8,
    crc: u32,
    wanted_crc: u32,
}

impl<R: BufRead> Bzip2Reader<R> {
    pub(crate) fn new(reader: R) -> Bzip2Reader<R> {
        let bits = Bits { reader, held: 0, count: 0 };
        let state = DecoderState::Stream { first: true };
        Bzip2Reader { bits, state, block_limit: 0, stream_crc: 0, block: Block::default() }
    }

    pub(crate) fn into_inner(self) -> R {
        self.bits.reader
    }

    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                DecoderState::Done => return Ok(0),
                DecoderState::Failed => return Err(damaged("the bzip2 stream is damaged")),
                DecoderState::Stream { first } => {
                    if !first && self.bits.at_end()? {
                        self.state = DecoderState::Done;
                        return Ok(0);
                    }
                    self.begin_stream()?;
                }
                DecoderState::Between => self.begin_block()?,
                DecoderState::Block => match self.block.give(buffer)? {
                    0 => {
                        if self.block.crc != self.block.wanted_crc {
                            return Err(damaged("the checksum of a bzip2 block does not match"));
                        }
                        self.stream_crc = self.stream_crc.rotate_left(1) ^ self.block.crc;
                        self.state = DecoderState::Between;
                    }
                    given => return Ok(given),
                },
            }
        }
    }

    fn begin_stream(&mut self) -> io::Result<()> {
        let header = self.bits.take(32)?;
        let level = header & 0xff;
        if header >> 8 != u32::from_be_bytes([0, b'B', b'Z', b'h']) || !(0x31..=0x39).contains(&level) {
            return Err(damaged("the data after the bzip2 stream is not another stream"));
        }
        self.block_limit = (level - 0x30) as usize * LEVEL_BYTES;
        self.stream_crc = 0;
        self.state = DecoderState::Between;
        Ok(())
    }

    fn begin_block(&mut self) -> io::Result<()> {
        let magic = u64::from(self.bits.take(24)?) << 24 | u64::from(self.bits.take(24)?);
        match magic {
            BLOCK_MAGIC => {
                self.block.read(&mut self.bits, self.block_limit)?;
                self.state = DecoderState::Block;
            }
            END_MAGIC => {
                if self.bits.take(32)? != self.stream_crc {
                    return Err(damaged("the checksum of the bzip2 stream does not match"));
                }
                self.bits.align();
                self.state = DecoderState::Stream { first: false };
            }
            _ => return Err(damaged("neither a block nor the end of the bzip2 stream")),
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Bzip2Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.advance(buffer).inspect_err(|_| self.state = DecoderState::Failed)
    }
}

impl Block {
    /// Reads a whole block and inverts the transform.
    fn read<R: BufRead>(&mut self, bits: &mut Bits<R>, limit: usize) -> io::Result<()> {
        self.wanted_crc = bits.take(32)?;
        if bits.take(1)? == 1 {
            // Written by bzip2 0.9.0 in 1998 and by no version since.
            return Err(damaged("a block of an obsolete form of bzip2"));
        }
        let origin = bits.take(24)? as usize;
        let mut symbols = used_symbols(bits)?;
        let (tables, selectors) = tables(bits, symbols.len() + 2)?;
        self.links.clear();
        let mut counts = [0_u32; 256];
        let end = symbols.len() + 1;
        let (mut run, mut weight) = (0_usize, 1_usize);
        'block: for selector in selectors {
            let table = tables.get(usize::from(selector)).ok_or_else(|| damaged("a missing table"))?;
            for _ in 0..GROUP_SYMBOLS {
                let code = table.next(bits)?;
                if code < 2 {
                    // A run of the first symbol; its length is coded with the digits one and two.
                    if weight > limit {
                        return Err(damaged("a run is longer than a bzip2 block"));
                    }
                    run += weight << code;
                    weight <<= 1;
                    continue;
                }
                if run > 0 {
                    self.push(symbols[0], run, limit, &mut counts)?;
                    (run, weight) = (0, 1);
                }
                if code == end {
                    break 'block;
                }
                symbols[..code].rotate_right(1);
                self.push(symbols[0], 1, limit, &mut counts)?;
            }
        }
        if origin >= self.links.len() {
            return Err(damaged("a bzip2 block begins outside of itself"));
        }
        let mut sum = 0;
        for count in &mut counts {
            sum += std::mem::replace(count, sum);
        }
        for at in 0..self.links.len() {
            let place = &mut counts[(self.links[at] & 0xff) as usize];
            self.links[*place as usize] |= (at as u32) << 8;
            *place += 1;
        }
        self.position = self.links[origin] >> 8;
        self.left = self.links.len();
        (self.row, self.repeat, self.crc) = (0, 0, 0);
        Ok(())
    }

    fn push(&mut self, symbol: u8, times: usize, limit: usize, counts: &mut [u32; 256]) -> io::Result<()> {
        if times > limit - self.links.len() {
            return Err(damaged("a bzip2 block is longer than its stream allows"));
        }
        self.links.resize(self.links.len() + times, u32::from(symbol));
        counts[usize::from(symbol)] += times as u32;
        Ok(())
    }

    /// Fills a buffer from the current block.
    fn give(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.repeat > 0 {
                self.repeat -= 1;
            } else {
                if self.left == 0 {
                    break;
                }
                let byte = self.next_symbol();
                if self.row == 4 {
                    self.row = 0;
                    self.repeat = byte;
                    continue;
                }
                self.row = if self.row > 0 && byte == self.last { self.row + 1 } else { 1 };
                self.last = byte;
            }
            buffer[filled] = self.last;
            filled += 1;
        }
        self.crc = checksum(self.crc, &buffer[..filled]);
        if filled == 0 && self.row == 4 {
            return Err(damaged("a bzip2 block ends in the middle of a run"));
        }
        Ok(filled)
    }

    fn next_symbol(&mut self) -> u8 {
        let link = self.links[self.position as usize];
        self.position = link >> 8;
        self.left -= 1;
        (link & 0xff) as u8
    }
}

/// Returns the symbols that a block uses, in order.
fn used_symbols<R: BufRead>(bits: &mut Bits<R>) -> io::Result<Vec<u8>> {
    let rows = bits.take(16)?;
    let mut symbols = Vec::with_capacity(256);
    for row in (0..16_u8).filter(|row| rows & (0x8000 >> row) != 0) {
        let columns = bits.take(16)?;
        symbols.extend((0..16_u8).filter(|column| columns & (0x8000 >> column) != 0).map(|column| row << 4 | column));
    }
    match symbols.is_empty() {
        true => Err(damaged("a bzip2 block without symbols")),
        false => Ok(symbols),
    }
}

/// Returns the Huffman tables of a block, and the selector of each group of symbols.
fn tables<R: BufRead>(bits: &mut Bits<R>, codes: usize) -> io::Result<(Vec<Table>, Vec<u8>)> {
    let count = bits.take(3)?;
    let selector_count = bits.take(15)?;
    if !(2..=6).contains(&count) || selector_count == 0 {
        return Err(damaged("a bzip2 block with a wrong number of tables"));
    }
    let mut order: Vec<u8> = (0..count as u8).collect();
    let mut selectors = Vec::with_capacity(selector_count as usize);
    for _ in 0..selector_count {
        let mut at = 0;
        while bits.take(1)? == 1 {
            at += 1;
            if at >= order.len() {
                return Err(damaged("a missing bzip2 table"));
            }
        }
        order[..=at].rotate_right(1);
        selectors.push(order[0]);
    }
    let tables = (0..count).map(|_| Table::read(bits, codes)).collect::<io::Result<_>>()?;
    Ok((tables, selectors))
}

/// A canonical Huffman code.
struct Table {
    /// For each length, the first code that is too large, the number of shorter codes, and the first code.
    limits: [(u32, usize, u32); MAX_CODE_BITS + 1],
    /// The symbols in the order of their codes.
    symbols: Vec<u16>,
}

impl Table {
    fn read<R: BufRead>(bits: &mut Bits<R>, codes: usize) -> io::Result<Table> {
        let mut length = bits.take(5)? as usize;
        let mut lengths = Vec::with_capacity(codes);
        for _ in 0..codes {
            loop {
                if !(1..=MAX_CODE_BITS).contains(&length) {
                    return Err(damaged("a bzip2 code with an invalid length"));
                }
                if bits.take(1)? == 0 {
                    break;
                }
                if bits.take(1)? == 0 { length += 1 } else { length -= 1 }
            }
            lengths.push(length);
        }
        let mut limits = [(0, 0, 0); MAX_CODE_BITS + 1];
        let mut symbols = Vec::with_capacity(codes);
        let mut code = 0_u32;
        for (length, limit) in limits.iter_mut().enumerate().skip(1) {
            let (first, before) = (code, symbols.len());
            symbols.extend((0..codes).filter(|symbol| lengths[*symbol] == length).map(|symbol| symbol as u16));
            code = first.saturating_add((symbols.len() - before) as u32);
            *limit = (code, before, first);
            code = code.saturating_mul(2);
        }
        Ok(Table { limits, symbols })
    }

    fn next<R: BufRead>(&self, bits: &mut Bits<R>) -> io::Result<usize> {
        let mut code = 0;
        for (limit, before, first) in &self.limits[1..] {
            code = code << 1 | bits.take(1)?;
            if code < *limit {
                let symbol = code.checked_sub(*first).and_then(|at| self.symbols.get(before + at as usize));
                return symbol.map(|symbol| usize::from(*symbol)).ok_or_else(|| damaged("an unused bzip2 code"));
            }
        }
        Err(damaged("an unused bzip2 code"))
    }
}

/// A reader of bits, the highest of each byte first.
struct Bits<R> {
    reader: R,
    held: u64,
    count: u32,
}

impl<R: BufRead> Bits<R> {
    /// Returns the next bits, at most 32.
    fn take(&mut self, count: u32) -> io::Result<u32> {
        while self.count < count {
            let available = fill(&mut self.reader)?;
            if available.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the bzip2 stream ends early"));
            }
            let taken = available.len().min(((64 - self.count) / 8) as usize);
            for byte in &available[..taken] {
                self.held = self.held << 8 | u64::from(*byte);
            }
            self.count += taken as u32 * 8;
            self.reader.consume(taken);
        }
        self.count -= count;
        Ok((self.held >> self.count & ((1 << count) - 1)) as u32)
    }

    /// Skips the rest of a byte.
    fn align(&mut self) {
        self.count -= self.count % 8;
    }

    fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.count == 0 && fill(&mut self.reader)?.is_empty())
    }
}

fn fill<R: BufRead>(reader: &mut R) -> io::Result<&[u8]> {
    while let Err(error) = reader.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    reader.fill_buf()
}

/// The Ethernet polynomial, highest bit first.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut value, mut bit) = ((at as u32) << 24, 0);
        while bit < 8 {
            value = if value & 0x8000_0000 != 0 { value << 1 ^ 0x04c1_1db7 } else { value << 1 };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
};

fn checksum(crc: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!crc, |crc, byte| crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

fn damaged(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        Bzip2Reader::new(bytes).read_to_end(&mut found)?;
        Ok(found)
    }

    /// Returns the contents of `blocks.bz2`: text with runs of every length, in three blocks of 100 kB.
    fn blocks() -> Vec<u8> {
        let mut state = 1_u32;
        let mut bytes = Vec::new();
        while bytes.len() < 250_000 {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let (byte, row) = ((state >> 16) as u8 & 7, (state >> 24) as usize);
            bytes.extend(std::iter::repeat_n(b'a' + byte, if row < 8 { row * 40 } else { 1 + row % 3 }));
        }
        bytes
    }

    #[test]
    fn reads_output_of_bzip2() {
        let text = include_bytes!("bzip2/text.bz2");
        assert_eq!(decoded(text).unwrap(), b"hello, bzip2\n");
        assert!(decoded(include_bytes!("bzip2/blocks.bz2")).unwrap() == blocks());
        assert_eq!(decoded(include_bytes!("bzip2/empty.bz2")).unwrap(), b"");
        let twice = [&text[..], text].concat();
        assert_eq!(decoded(&twice).unwrap(), b"hello, bzip2\nhello, bzip2\n");
        assert!(decoded(&[&text[..], b"junk"].concat()).is_err());
        assert_eq!(decoded(&[&text[..], b"B"].concat()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn damaged_streams_are_errors() {
        let whole = include_bytes!("bzip2/text.bz2");
        let mut harmless = 0;
        for at in 0..whole.len() {
            assert_eq!(decoded(&whole[..at]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            for bit in 0..8 {
                let mut damaged = whole.to_vec();
                damaged[at] ^= 1 << bit;
                if let Ok(text) = decoded(&damaged) {
                    assert_eq!(text, b"hello, bzip2\n", "{at} {bit}");
                    harmless += 1;
                }
            }
        }
        // The size of blocks (2 bits), tables and code lengths that no symbol uses (12), padding at the end (3). bzip2 1.0.8
        // accepts the same 17, and blocks marked as randomised, which are refused here.
        assert_eq!(harmless, 17);
        let whole = include_bytes!("bzip2/blocks.bz2");
        for at in (0..whole.len()).step_by(61) {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 0x55;
            assert!(decoded(&damaged).is_err(), "{at}");
        }
    }
}
