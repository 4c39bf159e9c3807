use std::io::{self, BufReader, Chain, Cursor, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lzma_rust2::XzReader;

use crate::bzip2::Bzip2Reader;

/// How bytes are compressed: the formats that layers and archives come in.
///
/// The image specification has gzip and zstd. `docker load`, podman and skopeo read xz and bzip2 as well, so those are
/// read here, and never written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz file format; read only.
    Xz,
    /// bzip2; read only.
    Bzip2,
}

/// The largest window of a zstd frame, as a power of two: 32 MiB, four times what RFC 8878 asks of decoders and the largest
/// that the compressors of BuildKit, containerd and podman use. More would let a few bytes ask for any amount of memory.
const LARGEST_WINDOW: u32 = 25;

/// The most memory that an xz block may ask for, in KiB: a dictionary of 64 MiB, as `xz -9` has it, and what the decoder
/// needs besides. bzip2 needs no limit: its blocks have at most 900 kB.
const MAX_XZ_KIB: u32 = (64 << 10) + (1 << 10);

/// How much is read from below at once, in bytes.
const BUFFER: usize = 64 << 10;

impl Compression {
    /// How many bytes of the beginning are enough to detect a compression.
    pub const MAGIC_BYTES: usize = 10;

    /// Detects a compression by how the bytes begin; [`Compression::MAGIC_BYTES`] of them are enough.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame, or one that is to be skipped in front of it, as pzstd writes it: moby/moby#42862,
            // facebook/zstd#3255.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            // Three letters and a digit may begin the name of a tar entry; the number behind them, that of a block or of
            // the end of an empty stream, may not.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Compression::Bzip2,
            _ => Compression::None,
        }
    }
}

/// The bytes that were compressed.
///
/// Gzip members, zstd frames, and xz and bzip2 streams that follow each other are one stream, and frames to be skipped are
/// skipped. A stream that
/// ends early is an error of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). What it may grow to is the
/// caller's business: memory does not depend on it.
pub struct Decoder<R: Read> {
    form: Form<Start<R>>,
}

type Start<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Form<R: io::BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
    Xz(Box<Xz<R>>),
    Bzip2(Box<Bzip2Reader<R>>),
}

/// An xz decoder that is not asked again after it failed: it keeps no state that it could go on from.
struct Xz<R: Read> {
    reader: XzReader<R>,
    failed: bool,
}

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the xz stream is damaged"));
        }
        self.reader.read(buffer).inspect_err(|_| self.failed = true)
    }
}

impl<R: Read> Decoder<R> {
    /// Reads the beginning, to learn what it is.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn new(mut reader: R) -> io::Result<Decoder<R>> {
        let mut start = Vec::with_capacity(Compression::MAGIC_BYTES);
        reader.by_ref().take(Compression::MAGIC_BYTES as u64).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        Decoder::from_start(start, reader, compression)
    }

    /// Reads what is known to be compressed in this way; anything else is an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) or [`Other`](io::ErrorKind::Other) when it is read.
    ///
    /// # Errors
    ///
    /// Those of making a decoder.
    pub fn with(compression: Compression, reader: R) -> io::Result<Decoder<R>> {
        Decoder::from_start(Vec::new(), reader, compression)
    }

    fn from_start(start: Vec<u8>, reader: R, compression: Compression) -> io::Result<Decoder<R>> {
        let reader = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(reader));
        let form = match compression {
            Compression::None => Form::Plain(reader),
            Compression::Gzip => Form::Gzip(Box::new(MultiGzDecoder::new(reader))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(LARGEST_WINDOW)?;
                Form::Zstd(decoder)
            }
            Compression::Xz => {
                let reader = XzReader::new_mem_limit(reader, true, MAX_XZ_KIB);
                Form::Xz(Box::new(Xz { reader, failed: false }))
            }
            Compression::Bzip2 => Form::Bzip2(Box::new(Bzip2Reader::new(reader))),
        };
        Ok(Decoder { form })
    }

    /// How the bytes below are compressed.
    pub fn compression(&self) -> Compression {
        match &self.form {
            Form::Plain(_) => Compression::None,
            Form::Gzip(_) => Compression::Gzip,
            Form::Zstd(_) => Compression::Zstd,
            Form::Xz(_) => Compression::Xz,
            Form::Bzip2(_) => Compression::Bzip2,
        }
    }

    /// What the bytes come from; it may have been read further than was needed.
    pub fn into_inner(self) -> R {
        let reader = match self.form {
            Form::Plain(reader) => reader,
            Form::Gzip(decoder) => decoder.into_inner(),
            Form::Zstd(decoder) => decoder.finish(),
            Form::Xz(decoder) => decoder.reader.into_inner(),
            Form::Bzip2(decoder) => decoder.into_inner(),
        };
        reader.into_inner().into_inner().1
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.form {
            Form::Plain(reader) => reader.read(buffer),
            Form::Gzip(decoder) => decoder.read(buffer),
            Form::Zstd(decoder) => decoder.read(buffer),
            Form::Xz(decoder) => decoder.read(buffer),
            Form::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression()).finish_non_exhaustive()
    }
}

/// Compresses what is written to it. The same bytes give the same bytes: there is no time and no name in them, and the
/// number of threads does not matter.
pub struct Encoder<W: Write> {
    form: Writing<W>,
}

enum Writing<W: Write> {
    Plain(W),
    Gzip(Box<GzEncoder<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Compresses in this way, at the level that the usual programs take.
    ///
    /// # Errors
    ///
    /// Those of making an encoder; of the kind [`Unsupported`](io::ErrorKind::Unsupported) for xz and bzip2.
    pub fn new(compression: Compression, writer: W) -> io::Result<Encoder<W>> {
        let form = match compression {
            Compression::None => Writing::Plain(writer),
            Compression::Gzip => Writing::Gzip(Box::new(GzEncoder::new(writer, flate2::Compression::default()))),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(writer, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                // Any number but none gives the same bytes.
                let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8) as u32);
                encoder.multithread(threads)?;
                encoder.include_checksum(true)?;
                Writing::Zstd(encoder)
            }
            Compression::Xz | Compression::Bzip2 => {
                let what = "xz and bzip2 are read and not written; gzip and zstd are written";
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        };
        Ok(Encoder { form })
    }

    /// Writes what is left, and gives back what it was written to. Without it the stream is not complete.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(self) -> io::Result<W> {
        match self.form {
            Writing::Plain(mut writer) => writer.flush().map(|()| writer),
            Writing::Gzip(encoder) => encoder.finish(),
            Writing::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.form {
            Writing::Plain(writer) => writer.write(bytes),
            Writing::Gzip(encoder) => encoder.write(bytes),
            Writing::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.form {
            Writing::Plain(writer) => writer.flush(),
            Writing::Gzip(encoder) => encoder.flush(),
            Writing::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// bzip2 is only read, and tested where that is.
    const ALL: [Compression; 4] = [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz];

    fn encoded(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        if compression == Compression::Xz {
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
            encoder.write_all(bytes).unwrap();
            return encoder.finish().unwrap();
        }
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        Decoder::new(bytes)?.read_to_end(&mut found)?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(bytes: Vec<u8>, more: Vec<u8>) {
            // Anything may look compressed, so what is not compressed at all is marked.
            let bytes = [&b"mark"[..], &bytes].concat();
            for compression in ALL {
                let once = encoded(compression, &bytes);
                prop_assert_eq!(&once, &encoded(compression, &bytes));
                prop_assert_eq!(Decoder::new(&once[..]).unwrap().compression(), compression);
                let twice = [once, encoded(compression, &more)].concat();
                prop_assert_eq!(decoded(&twice).unwrap(), [&bytes[..], &more].concat());
            }
        }

        #[test]
        fn a_stream_that_ends_early_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 1..5000), at in 0.0..1.0) {
            for compression in &ALL[1..] {
                let (whole, magic) = (encoded(*compression, &bytes), Compression::MAGIC_BYTES);
                let cut = magic + ((whole.len() - magic) as f64 * at) as usize;
                let error = decoded(&whole[..cut]).unwrap_err();
                prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{}", error);
            }
        }
    }

    #[test]
    fn skipped_frames_are_skipped() {
        let skipped = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let frame = encoded(Compression::Zstd, b"text");
        assert_eq!(decoded(&[&skipped[..], &frame, &skipped].concat()).unwrap(), b"text");
    }

    #[test]
    fn an_xz_dictionary_that_asks_for_too_much_is_refused() {
        let mut options = lzma_rust2::XzOptions::with_preset(0);
        options.lzma_options.dict_size = 65 << 20;
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        encoder.write_all(b"text").unwrap();
        assert!(decoded(&encoder.finish().unwrap()).is_err());
    }

    #[test]
    fn damaged_bytes_are_errors_and_stay_errors() {
        for compression in &ALL[1..] {
            let whole = encoded(*compression, &[7; 3000]);
            for at in Compression::MAGIC_BYTES..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x55;
                let mut decoder = Decoder::new(&damaged[..]).unwrap();
                let mut found = Vec::new();
                if decoder.read_to_end(&mut found).is_err() {
                    let _ = decoder.read(&mut [0; 10]);
                }
            }
        }
    }

    #[test]
    fn xz_and_bzip2_are_not_written() {
        for compression in [Compression::Xz, Compression::Bzip2] {
            let error = Encoder::new(compression, Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn an_entry_may_have_any_name() {
        assert_eq!(Compression::detect(b"BZh9.txt\0\0\0\0"), Compression::None);
    }

    #[test]
    fn a_window_that_asks_for_too_much_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(&[0; 1 << 20]).unwrap();
        assert!(decoded(&encoder.finish().unwrap()).is_err());
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(decoded(b"").unwrap(), b"");
        assert_eq!(decoded(b"ab").unwrap(), b"ab");
        for compression in ALL {
            assert_eq!(decoded(&encoded(compression, b"")).unwrap(), b"");
        }
    }
}
