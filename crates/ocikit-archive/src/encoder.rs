use std::io::{self, Write};
use std::num::NonZeroUsize;

#[cfg(feature = "gzip")]
use crate::block_gzip::BlockGzip;
use crate::compression::Compression;
#[cfg(not(all(feature = "gzip", feature = "zstd")))]
use crate::compression::missing;

/// How to compress.
///
/// ```
/// use ocikit_archive::{Compression, Encoder, EncoderOptions};
///
/// let mut options = EncoderOptions::from(Compression::Zstd);
/// options.level = Some(9);
/// let encoder = Encoder::with(&options, Vec::new())?;
/// assert_eq!(encoder.finish()?.len(), 13);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EncoderOptions {
    /// The format.
    pub compression: Compression,
    /// The level, see [`EncoderOptions::levels`]; the default one of the format if `None`.
    pub level: Option<u32>,
    /// The maximum number of threads; the number of processors if `None`. The output does not depend on it.
    pub threads: Option<NonZeroUsize>,
}

ocikit_spec::setters! {
    EncoderOptions {
        compression: Compression,
        level: Option<u32>,
        threads: Option<NonZeroUsize>,
    }
}

/// The level of gzip that the usual tools have as their default.
#[cfg(feature = "gzip")]
const DEFAULT_GZIP_LEVEL: u32 = 6;

/// The level of zstd that the usual tools have as their default.
#[cfg(feature = "zstd")]
const DEFAULT_ZSTD_LEVEL: u32 = zstd::DEFAULT_COMPRESSION_LEVEL.unsigned_abs();

/// The maximum number of threads of an encoder: memory grows with it, and the writer cannot feed more.
const MAX_THREADS: usize = 16;

impl From<Compression> for EncoderOptions {
    fn from(compression: Compression) -> EncoderOptions {
        EncoderOptions { compression, ..EncoderOptions::default() }
    }
}

impl EncoderOptions {
    /// Returns the levels of a compression: 1 to 9 for gzip, 1 to 19 for zstd; `None` if it has no levels or is read
    /// only. Higher levels of zstd need more memory than readers have to provide.
    pub fn levels(compression: Compression) -> Option<std::ops::RangeInclusive<u32>> {
        match compression {
            Compression::Gzip => Some(1..=9),
            Compression::Zstd => Some(1..=19),
            Compression::None | Compression::Xz | Compression::Bzip2 => None,
        }
    }

    /// Returns the level that is used.
    ///
    /// # Errors
    ///
    /// Of the kind [`InvalidInput`](io::ErrorKind::InvalidInput) for a level that the compression does not have.
    fn level_or(&self, default: u32) -> io::Result<u32> {
        let level = self.level.unwrap_or(default);
        match EncoderOptions::levels(self.compression) {
            Some(levels) if levels.contains(&level) => Ok(level),
            Some(levels) => {
                let what = format!("level {level} does not exist; use {} to {}", levels.start(), levels.end());
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the compression has no levels")),
        }
    }

    /// Returns the number of threads that are used: at most 16.
    pub fn thread_count(&self) -> NonZeroUsize {
        let threads = self.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        threads.min(NonZeroUsize::new(MAX_THREADS).unwrap_or(NonZeroUsize::MIN))
    }
}

/// A compressing writer, which compresses blocks of the input in parallel.
///
/// The output depends only on the input, the format and the level: it contains no time and no name, and is the same for
/// any number of threads and any division of the input into writes. Memory is a few MiB per thread.
///
/// [`Write::flush`] writes the compressed blocks; the last incomplete block stays, because its end would depend on the
/// time of the flush.
pub struct Encoder<W: Write> {
    form: Writing<W>,
}

enum Writing<W: Write> {
    Plain(W),
    #[cfg(feature = "gzip")]
    Gzip(Box<BlockGzip<W>>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Creates an encoder with the default level of the usual tools and a thread for each processor.
    ///
    /// # Errors
    ///
    /// As [`Encoder::with`].
    pub fn new(compression: Compression, writer: W) -> io::Result<Encoder<W>> {
        Encoder::with(&compression.into(), writer)
    }

    /// Creates an encoder.
    ///
    /// # Errors
    ///
    /// Those of creating an encoder; of the kind [`Unsupported`](io::ErrorKind::Unsupported) for xz and bzip2, and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a level that the compression does not have;
    /// [`Error::Feature`](crate::Error::Feature), within an error of the kind `Unsupported`, for a compression that the build
    /// lacks.
    pub fn with(options: &EncoderOptions, writer: W) -> io::Result<Encoder<W>> {
        let form = match options.compression {
            Compression::None if options.level.is_some() => options.level_or(0).map(|_| Writing::Plain(writer))?,
            Compression::None => Writing::Plain(writer),
            #[cfg(not(feature = "gzip"))]
            Compression::Gzip => missing("gzip")?,
            #[cfg(feature = "gzip")]
            Compression::Gzip => {
                let level = options.level_or(DEFAULT_GZIP_LEVEL)?;
                Writing::Gzip(Box::new(BlockGzip::new(writer, level, options.thread_count())?))
            }
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => missing("zstd")?,
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let level = i32::try_from(options.level_or(DEFAULT_ZSTD_LEVEL)?).map_err(io::Error::other)?;
                let mut encoder = zstd::Encoder::new(writer, level)?;
                // Any number above zero gives the same bytes; zero gives others.
                encoder.multithread(u32::try_from(options.thread_count().get()).map_err(io::Error::other)?)?;
                encoder.include_checksum(true)?;
                Writing::Zstd(encoder)
            }
            Compression::Xz | Compression::Bzip2 => {
                let what = "xz and bzip2 are supported for reading only; write gzip or zstd";
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        };
        Ok(Encoder { form })
    }

    /// Writes the rest and returns the underlying writer. Without this call the stream is incomplete.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(self) -> io::Result<W> {
        match self.form {
            Writing::Plain(mut writer) => writer.flush().map(|()| writer),
            #[cfg(feature = "gzip")]
            Writing::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "zstd")]
            Writing::Zstd(encoder) => encoder.finish(),
        }
    }

    /// Returns the underlying writer.
    pub fn get_ref(&self) -> &W {
        match &self.form {
            Writing::Plain(writer) => writer,
            #[cfg(feature = "gzip")]
            Writing::Gzip(encoder) => encoder.get_ref(),
            #[cfg(feature = "zstd")]
            Writing::Zstd(encoder) => encoder.get_ref(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.form {
            Writing::Plain(writer) => writer.write(bytes),
            #[cfg(feature = "gzip")]
            Writing::Gzip(encoder) => encoder.write(bytes),
            #[cfg(feature = "zstd")]
            Writing::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.form {
            Writing::Plain(writer) => writer.flush(),
            #[cfg(feature = "gzip")]
            Writing::Gzip(encoder) => encoder.flush(),
            // A flush of the frame would end a block of it.
            #[cfg(feature = "zstd")]
            Writing::Zstd(encoder) => encoder.get_mut().flush(),
        }
    }
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "zstd"))]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::Decoder;

    fn encoded(options: &EncoderOptions, writes: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::with(options, Vec::new()).unwrap();
        for bytes in writes {
            encoder.write_all(bytes).unwrap();
        }
        encoder.finish().unwrap()
    }

    /// Returns compressible bytes that repeat over long distances.
    fn text(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let words = [&b"layer "[..], b"manifest ", b"index ", b"config ", b"0123456789", b"\0\0\0\0"];
            bytes.extend_from_slice(words[(state >> 33) as usize % words.len()]);
            bytes.push((state >> 41) as u8);
        }
        bytes.truncate(length);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn bytes_do_not_depend_on_threads_or_writes(
            length in 0_usize..3_000_000,
            seed: u64,
            cut in 0.0..1.0,
            level in 1_u32..=6,
        ) {
            let bytes = text(length, seed);
            let cut = (length as f64 * cut) as usize;
            for compression in [Compression::Gzip, Compression::Zstd] {
                let options = |threads: usize| EncoderOptions {
                    compression,
                    level: Some(level),
                    threads: NonZeroUsize::new(threads),
                };
                let one = encoded(&options(1), &[&bytes]);
                for threads in [2, 3, 8] {
                    prop_assert!(one == encoded(&options(threads), &[&bytes[..cut], &bytes[cut..]]), "{threads} threads");
                }
                let mut back = Vec::new();
                Decoder::new(&one[..]).unwrap().read_to_end(&mut back).unwrap();
                prop_assert!(back == bytes);
            }
        }
    }

    #[test]
    fn a_flush_does_not_change_the_bytes() {
        let bytes = text(3_000_000, 7);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let whole = encoded(&compression.into(), &[&bytes]);
            let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
            for chunk in bytes.chunks(700_000) {
                encoder.write_all(chunk).unwrap();
                encoder.flush().unwrap();
            }
            assert!(encoder.finish().unwrap() == whole, "{compression:?}");
        }
    }

    #[test]
    fn levels_are_checked_and_used() {
        let bytes = text(400_000, 3);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let levels = EncoderOptions::levels(compression).unwrap();
            let with = |level| EncoderOptions { level: Some(level), ..compression.into() };
            let low = encoded(&with(*levels.start()), &[&bytes]).len();
            let high = encoded(&with(*levels.end()), &[&bytes]).len();
            assert!(high < low, "{compression:?}: {high} {low}");
            for level in [0, levels.end() + 1] {
                let error = Encoder::with(&with(level), Vec::new()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            }
        }
        let plain = EncoderOptions { level: Some(1), ..EncoderOptions::default() };
        assert_eq!(Encoder::with(&plain, Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn xz_and_bzip2_are_not_written() {
        for compression in [Compression::Xz, Compression::Bzip2] {
            let error = Encoder::new(compression, Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn a_failing_writer_fails_the_encoder() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let bytes: Vec<u8> = text(8_000_000, 11);
        for compression in [Compression::Gzip, Compression::Zstd] {
            for room in [11, 100_000] {
                let outcome = Encoder::new(compression, Full(room))
                    .and_then(|mut encoder| encoder.write_all(&bytes).and_then(|()| encoder.finish()));
                assert_eq!(outcome.map(drop).unwrap_err().kind(), io::ErrorKind::StorageFull, "{compression:?} {room}");
            }
        }
    }
}
