use std::io::{self, BufReader, Chain, Cursor, Read};

#[cfg(feature = "gzip")]
use flate2::bufread::MultiGzDecoder;
#[cfg(feature = "xz")]
use lzma_rust2::XzReader;

use crate::bzip2::Bzip2Reader;

/// The compression of a layer or archive.
///
/// The image specification has gzip and zstd. `docker load`, podman and skopeo also read xz and bzip2, so these are
/// supported for reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// No compression.
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

/// Fails because the build lacks the feature that a compression needs.
#[cfg(not(all(feature = "gzip", feature = "xz", feature = "zstd")))]
pub(crate) fn missing<T>(feature: &'static str) -> io::Result<T> {
    Err(crate::Error::Feature(feature).into())
}

/// The maximum window of a zstd frame, as a power of two: 32 MiB, four times the minimum that RFC 8878 requires of
/// decoders, and the maximum of the compressors of BuildKit, containerd and podman. A larger one would let a few bytes
/// of input allocate any amount of memory.
#[cfg(feature = "zstd")]
const MAX_WINDOW_LOG2: u32 = 25;

/// The maximum memory of an xz block in KiB: the dictionary of 64 MiB of `xz -9`, plus the needs of the decoder. bzip2
/// needs no limit, because its blocks have at most 900 kB.
#[cfg(feature = "xz")]
const MAX_XZ_KIB: u32 = (64 << 10) + (1 << 10);

/// The size of the input buffer in bytes.
const BUFFER_BYTES: usize = 64 << 10;

impl Compression {
    /// The number of bytes from the start that are needed to detect a compression.
    pub const MAGIC_BYTES: usize = 10;

    /// Detects the compression from the first [`Compression::MAGIC_BYTES`] bytes.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame, or a skippable frame before it, as pzstd writes it: moby/moby#42862,
            // facebook/zstd#3255.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            // Three letters and a digit may start the name of a tar entry. The magic number after them, of a block or
            // of the end of an empty stream, cannot.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Compression::Bzip2,
            _ => Compression::None,
        }
    }
}

/// A decompressing reader.
///
/// Consecutive gzip members, zstd frames, and xz and bzip2 streams are read as one stream; skippable frames are
/// skipped. A truncated stream is an error of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). The
/// decompressed size is not limited; memory use does not depend on it.
pub struct Decoder<R: Read> {
    compression: Compression,
    form: Format<Start<R>>,
}

type Start<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Format<R: io::BufRead> {
    Plain(R),
    #[cfg(feature = "gzip")]
    Gzip(Box<MultiGzDecoder<R>>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Decoder<'static, R>),
    #[cfg(feature = "xz")]
    Xz(Box<Xz<R>>),
    Bzip2(Box<Bzip2Reader<R>>),
}

/// An xz decoder that is not called again after a failure, because it has no state to continue from.
#[cfg(feature = "xz")]
struct Xz<R: Read> {
    reader: XzReader<R>,
    failed: bool,
}

#[cfg(feature = "xz")]
impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the xz stream is damaged"));
        }
        self.reader.read(buffer).inspect_err(|_| self.failed = true)
    }
}

impl<R: Read> Decoder<R> {
    /// Creates a decoder that detects the compression.
    ///
    /// # Errors
    ///
    /// Those of reading; [`Error::Feature`](crate::Error::Feature), within an error of the kind
    /// [`Unsupported`](io::ErrorKind::Unsupported), for a compression that the build lacks.
    pub fn new(mut reader: R) -> io::Result<Decoder<R>> {
        let mut start = Vec::with_capacity(Compression::MAGIC_BYTES);
        reader.by_ref().take(Compression::MAGIC_BYTES as u64).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        Decoder::from_start(start, reader, compression)
    }

    /// Creates a decoder for a known compression. Input in another format is an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) or [`Other`](io::ErrorKind::Other) when it is read.
    ///
    /// # Errors
    ///
    /// As [`Decoder::new`].
    pub fn with(compression: Compression, reader: R) -> io::Result<Decoder<R>> {
        Decoder::from_start(Vec::new(), reader, compression)
    }

    fn from_start(start: Vec<u8>, reader: R, compression: Compression) -> io::Result<Decoder<R>> {
        let reader = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(reader));
        let form = match compression {
            Compression::None => Format::Plain(reader),
            #[cfg(feature = "gzip")]
            Compression::Gzip => Format::Gzip(Box::new(MultiGzDecoder::new(reader))),
            #[cfg(not(feature = "gzip"))]
            Compression::Gzip => missing("gzip")?,
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(MAX_WINDOW_LOG2)?;
                Format::Zstd(decoder)
            }
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => missing("zstd")?,
            #[cfg(feature = "xz")]
            Compression::Xz => {
                let reader = XzReader::new_mem_limit(reader, true, MAX_XZ_KIB);
                Format::Xz(Box::new(Xz { reader, failed: false }))
            }
            #[cfg(not(feature = "xz"))]
            Compression::Xz => missing("xz")?,
            Compression::Bzip2 => Format::Bzip2(Box::new(Bzip2Reader::new(reader))),
        };
        Ok(Decoder { compression, form })
    }

    /// Returns the compression of the input.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns the underlying reader, which may have been read further than was needed.
    pub fn into_inner(self) -> R {
        let reader = match self.form {
            Format::Plain(reader) => reader,
            #[cfg(feature = "gzip")]
            Format::Gzip(decoder) => decoder.into_inner(),
            #[cfg(feature = "zstd")]
            Format::Zstd(decoder) => decoder.finish(),
            #[cfg(feature = "xz")]
            Format::Xz(decoder) => decoder.reader.into_inner(),
            Format::Bzip2(decoder) => decoder.into_inner(),
        };
        reader.into_inner().into_inner().1
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.form {
            Format::Plain(reader) => reader.read(buffer),
            #[cfg(feature = "gzip")]
            Format::Gzip(decoder) => decoder.read(buffer),
            #[cfg(feature = "zstd")]
            Format::Zstd(decoder) => decoder.read(buffer),
            #[cfg(feature = "xz")]
            Format::Xz(decoder) => decoder.read(buffer),
            Format::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::Encoder;

    /// bzip2 is only read, and tested in its own module.
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
        fn decodes_what_was_encoded(bytes: Vec<u8>, more: Vec<u8>) {
            // Random bytes may look compressed, so the uncompressed ones get a prefix.
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
        fn truncated_stream_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 1..5000), at in 0.0..1.0) {
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
    fn rejects_large_xz_dictionary() {
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
    fn tar_entry_names_are_not_taken_for_bzip2() {
        assert_eq!(Compression::detect(b"BZh9.txt\0\0\0\0"), Compression::None);
    }

    #[test]
    fn rejects_large_zstd_window() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(&[0; 1 << 20]).unwrap();
        assert!(decoded(&encoder.finish().unwrap()).is_err());
    }

    #[test]
    fn empty_input_stays_empty() {
        assert_eq!(decoded(b"").unwrap(), b"");
        assert_eq!(decoded(b"ab").unwrap(), b"ab");
        for compression in ALL {
            assert_eq!(decoded(&encoded(compression, b"")).unwrap(), b"");
        }
    }
}

#[cfg(test)]
#[cfg(not(all(feature = "gzip", feature = "xz", feature = "zstd")))]
mod tests_without_features {
    use super::*;

    #[test]
    fn a_compression_that_is_left_out_names_its_feature() {
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0, 0];
        let (gzip, xz) = ([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0], [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0, 0, 0]);
        let all = [
            (cfg!(feature = "gzip"), gzip, Compression::Gzip, "gzip"),
            (cfg!(feature = "xz"), xz, Compression::Xz, "xz"),
            (cfg!(feature = "zstd"), zstd, Compression::Zstd, "zstd"),
        ];
        for (_, start, compression, feature) in all.into_iter().filter(|(is_built, ..)| !is_built) {
            let error = Decoder::new(&start[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert_eq!(crate::Error::missing_feature_of(&error), Some(feature));
            assert_eq!(error.to_string(), format!("this program was built without the feature `{feature}`"));
            if compression != Compression::Xz {
                let error = crate::Encoder::new(compression, Vec::new()).unwrap_err();
                assert_eq!(crate::Error::missing_feature_of(&error), Some(feature));
            }
        }
        assert_eq!(Decoder::new(&b"plain"[..]).unwrap().compression(), Compression::None);
    }
}
