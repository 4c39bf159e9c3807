use ocikit_archive::ReadAt;

use crate::error::Result;
use crate::rafs::read::{Bytes, NydusBootstrap, invalid};
use crate::rafs::{read_v5, read_v6, v5, v6};

impl NydusBootstrap {
    /// Reads a bootstrap.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if it is damaged or uses features that are not supported, such as encryption;
    /// [`Error::TooLarge`](crate::Error::TooLarge) if its files take more memory than 112 MiB; [`Error::Io`](crate::Error::Io)
    /// if reading fails.
    pub fn read(bytes: &dyn ReadAt) -> Result<NydusBootstrap> {
        let bytes = Bytes::of(bytes)?;
        let version_5: u32 = bytes.fields::<4>(0).map_or(0, |fields| fields.u32(0));
        let version_6: u32 = bytes.fields::<4>(v6::SUPERBLOCK_OFFSET).map_or(0, |fields| fields.u32(0));
        match (version_5, version_6) {
            (v5::MAGIC, _) => read_v5::read(&bytes),
            (_, v6::MAGIC) => read_v6::read(&bytes),
            (_, _) => Err(invalid("it is neither RAFS 5 nor RAFS 6")),
        }
    }
}
