use std::fmt;
use std::str::FromStr;

/// The version of RAFS, the file system of Nydus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RafsVersion {
    /// The old format, which only Nydus itself reads.
    V5,
    /// The current format: an EROFS image with additional devices, which Linux can mount.
    #[default]
    V6,
}

/// The compression of chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// No compression.
    None,
    /// LZ4 blocks.
    Lz4,
    /// zstd frames of level 3.
    #[default]
    Zstd,
}

/// Where equal chunks of an image are found, which are stored once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Deduplicate {
    /// In each layer. A layer that several images share gives the same blob in all of them.
    #[default]
    Layer,
    /// In the layer and those below it. The blob of a layer then depends on the layers below it, and layers are
    /// converted one after the other.
    Image,
}

/// The maximum size of a chunk: a power of two from 4 KiB to 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// The smallest size in bytes, which is also the block size of the file system.
    pub const MIN: u32 = 4096;
    /// The largest size in bytes.
    pub const MAX: u32 = 16 << 20;

    /// Returns the size of this many bytes; `None` if it is no power of two from [`ChunkSize::MIN`] to
    /// [`ChunkSize::MAX`].
    ///
    /// ```
    /// use ocikit_lazy::rafs::ChunkSize;
    ///
    /// assert_eq!(ChunkSize::new(1 << 20), Some(ChunkSize::default()));
    /// assert_eq!(ChunkSize::new(1_000_000), None);
    /// ```
    pub fn new(bytes: u32) -> Option<ChunkSize> {
        (bytes.is_power_of_two() && (ChunkSize::MIN..=ChunkSize::MAX).contains(&bytes)).then_some(ChunkSize(bytes))
    }

    /// Returns the size in bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for ChunkSize {
    /// Returns 1 MiB.
    fn default() -> ChunkSize {
        ChunkSize(1 << 20)
    }
}

impl RafsVersion {
    /// Returns the version as in the annotation of the bootstrap layer.
    pub fn as_str(self) -> &'static str {
        match self {
            RafsVersion::V5 => "5",
            RafsVersion::V6 => "6",
        }
    }
}

impl fmt::Display for RafsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not one of the choices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not one of {choices}")]
pub struct UnknownChoice {
    given: String,
    choices: &'static str,
}

impl FromStr for RafsVersion {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<RafsVersion, UnknownChoice> {
        match text {
            "5" => Ok(RafsVersion::V5),
            "6" => Ok(RafsVersion::V6),
            given => Err(UnknownChoice { given: given.to_owned(), choices: "5 and 6" }),
        }
    }
}

impl Compressor {
    /// Returns the name as `nydus-image` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Compressor::None => "none",
            Compressor::Lz4 => "lz4_block",
            Compressor::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compressor {
    type Err = UnknownChoice;

    /// Parses a name of `nydus-image`, or `lz4`.
    fn from_str(text: &str) -> Result<Compressor, UnknownChoice> {
        match text {
            "none" => Ok(Compressor::None),
            "lz4" | "lz4_block" => Ok(Compressor::Lz4),
            "zstd" => Ok(Compressor::Zstd),
            given => Err(UnknownChoice { given: given.to_owned(), choices: "none, lz4_block and zstd" }),
        }
    }
}
