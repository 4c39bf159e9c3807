//! The blob of a layer: sections that are followed by their tar headers, and a table of contents at the end.

use std::io::{self, Write};

use ocikit_spec::{Algorithm, Digest, Hasher};

use crate::hashing::Hashing;
use crate::output::{Output, Stored as StoredFile};
use crate::rafs::bytes::Record;
use crate::rafs::chunk::{BLOCK, Chunk, Digester, INFORMATION_BYTES, Stored, raw};
use crate::rafs::data::{BlobData, Chunking, FileChunks, Finished};
use crate::rafs::options::RafsVersion;
use crate::rafs::table::{BlobInfo, Information, OWN_ID, feature};

/// The size of the header of the chunk information in bytes.
pub(super) const INFORMATION_HEADER_BYTES: u64 = 4096;

const INFORMATION_MAGIC: u32 = 0xb10b_b10b;

/// The level of zstd for tables.
const TABLE_LEVEL: i32 = 3;

/// The end of a blob: writes what follows the data.
pub(super) struct Tail {
    output: Output,
    contents: Vec<[u8; 128]>,
    version: RafsVersion,
}

/// An entry of the table of contents.
struct Section<'a> {
    name: &'a str,
    stored: Stored,
    digest: Digest,
    offset: u64,
    size: u64,
    real_size: u64,
}

impl Tail {
    /// Writes the header of the data, the chunk information and the digests of chunks. A layer without data has none of
    /// them.
    pub(super) fn of(data: Finished<Output>, chunking: &Chunking) -> io::Result<(Tail, BlobData, FileChunks)> {
        let Finished { writer: output, chunks, files, size, uncompressed_size } = data;
        let mut tail = Tail { output, contents: Vec::new(), version: chunking.version };
        let features = feature::TAR_HEADER | feature::SINCE_2_2;
        let mut info = BlobInfo {
            id: OWN_ID,
            chunk_count: u32::try_from(chunks.len()).map_err(io::Error::other)?,
            chunk_size: chunking.chunk_size,
            stored: chunking.compressor.into(),
            digester: chunking.digester,
            features: features | feature::INLINED_BOOTSTRAP,
            size: 0,
            uncompressed_size,
            information: Information::NONE,
        };
        if chunking.version == RafsVersion::V6 {
            info.features |= feature::ALIGNED | feature::CHUNK_DIGESTS | feature::CONTENTS;
        }
        if !chunks.is_empty() {
            tail.header("image.blob", size)?;
            if chunking.version == RafsVersion::V6 {
                // The digest covers the header too.
                let digest = tail.output.digest();
                let real_size = uncompressed_size;
                tail.add(&Section { name: "image.blob", stored: Stored::None, digest, offset: 0, size, real_size });
                info.information = tail.information(&chunks, info.features)?;
                tail.digests(&chunks)?;
            }
        }
        info.size = tail.output.position();
        Ok((tail, BlobData { info, chunks }, files))
    }

    /// Writes the array of chunk information with its header.
    fn information(&mut self, chunks: &[Chunk], features: u32) -> io::Result<Information> {
        let array = information_array(chunks);
        let compressed = zstd::bulk::compress(&array, TABLE_LEVEL)?;
        // Always zstd, whatever the compression of chunks: Nydus cannot extract tables that are compressed with LZ4.
        let (stored, bytes) = match compressed.len() < array.len() {
            true => (Stored::Zstd, &compressed),
            false => (Stored::None, &array),
        };
        let offset = self.output.position();
        let (size, real_size) = (bytes.len() as u64, array.len() as u64);
        let information = Information { stored, offset, size, real_size };
        self.output.write_all(bytes)?;
        let header = information_header(&information, features);
        self.output.write_all(&header)?;
        self.header("blob.meta", size + INFORMATION_HEADER_BYTES)?;
        let digest = Digest::sha256_of(&array);
        self.add(&Section { name: "blob.meta", stored, digest, offset, size, real_size });
        self.add(&Section {
            name: "blob.meta.header",
            stored: Stored::None,
            digest: Digest::sha256_of(&header),
            offset: offset + size,
            size: INFORMATION_HEADER_BYTES,
            real_size: INFORMATION_HEADER_BYTES,
        });
        Ok(information)
    }

    fn digests(&mut self, chunks: &[Chunk]) -> io::Result<()> {
        let offset = self.output.position();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for chunk in chunks {
            hasher.update(&chunk.digest);
            self.output.write_all(&chunk.digest)?;
        }
        let size = self.output.position() - offset;
        self.header("blob.digest", size)?;
        let digest = hasher.finish();
        self.add(&Section { name: "blob.digest", stored: Stored::None, digest, offset, size, real_size: size });
        Ok(())
    }

    /// Writes the bootstrap that the function writes, and the table of contents.
    pub(super) fn finish(mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<StoredFile> {
        let offset = self.output.position();
        if self.version == RafsVersion::V5 {
            write(&mut self.output)?;
            let size = self.output.position() - offset;
            self.header("image.boot", size)?;
            return self.output.finish();
        }
        let mut hashing = Hashing::new(zstd::Encoder::new(&mut self.output, TABLE_LEVEL)?);
        write(&mut hashing)?;
        let (encoder, digest, real_size) = hashing.into_parts();
        encoder.finish()?;
        let size = self.output.position() - offset;
        self.header("image.boot", size)?;
        self.add(&Section { name: "image.boot", stored: Stored::Zstd, digest, offset, size, real_size });
        let contents = self.contents.concat();
        self.output.write_all(&contents)?;
        self.header("rafs.blob.toc", contents.len() as u64)?;
        self.output.finish()
    }

    fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.output.write_all(&section_header(name, size))
    }

    fn add(&mut self, section: &Section<'_>) {
        // The numbers of this table differ from those in tables of blobs.
        let flags = match section.stored {
            Stored::None | Stored::Gzip => 1,
            Stored::Zstd => 2,
            Stored::Lz4 => 4,
        };
        self.contents.push(
            Record::<128>::new()
                .u32(0, flags)
                .bytes(8, section.name.as_bytes())
                .bytes(24, &raw(section.digest))
                .u64(56, section.offset)
                .u64(64, section.size)
                .u64(72, section.real_size)
                .done(),
        );
    }
}

/// Returns the array of chunk information of a blob.
pub(super) fn information_array(chunks: &[Chunk]) -> Vec<u8> {
    let mut array = Vec::with_capacity(chunks.len() * INFORMATION_BYTES as usize);
    chunks.iter().for_each(|chunk| array.extend_from_slice(&chunk.information()));
    array
}

/// Returns the header of the array of chunk information.
pub(super) fn information_header(information: &Information, features: u32) -> Vec<u8> {
    let entries = u32::try_from(information.real_size / INFORMATION_BYTES).unwrap_or(u32::MAX);
    Record::<{ INFORMATION_HEADER_BYTES as usize }>::new()
        .u32(0, INFORMATION_MAGIC)
        .u32(4, features)
        .u32(8, information.stored as u32)
        .u32(12, entries)
        .u64(16, information.offset)
        .u64(24, information.size)
        .u64(32, information.real_size)
        .u64(40, information.real_size)
        .u32(4092, INFORMATION_MAGIC)
        .done()
        .to_vec()
}

/// Returns the tar header that follows a section.
fn section_header(name: &str, size: u64) -> [u8; 512] {
    /// The maximum number with eleven octal digits.
    const MAX_OCTAL: u64 = (1 << 33) - 1;
    let mut header = Record::<512>::new().bytes(0, name.as_bytes());
    header = match size <= MAX_OCTAL {
        true => header.bytes(124, format!("{size:011o}\0").as_bytes()),
        // The form of GNU tar for large numbers.
        false => header.u8(124, 0x80).bytes(128, &size.to_be_bytes()),
    };
    header = header.bytes(136, b"00000000000\0").bytes(148, b"        ").u8(156, b'0').bytes(257, b"ustar  \0");
    let sum: u32 = header.clone().done().iter().map(|byte| u32::from(*byte)).sum();
    header.bytes(148, format!("{sum:07o}\0").as_bytes()).done()
}

/// Returns the file with the chunk information of a blob in the bootstrap layer.
pub(super) fn information_file(chunks: &[Chunk], info: &BlobInfo) -> Vec<u8> {
    let mut file = information_array(chunks);
    file.resize(file.len().next_multiple_of(BLOCK as usize), 0);
    file.extend_from_slice(&information_header(&info.information, info.features | feature::INLINED_BOOTSTRAP));
    file
}

/// The digest algorithm that is used unless a dictionary has another.
pub(super) const DEFAULT_DIGESTER: Digester = Digester::Blake3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_chunk_information_has_the_bytes_of_nydus() {
        let information =
            Information { stored: Stored::Zstd, offset: 0x74_f4a1, size: 0x52c, real_size: 526 * INFORMATION_BYTES };
        let header = information_header(&information, 0x7000_0023);
        let hex: String = header[..40].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0bb10bb123000070030000000e020000a1f47400000000002c05000000000000e020000000000000");
    }

    #[test]
    fn section_headers_have_the_form_of_gnu_tar() {
        let header = section_header("image.blob", 5);
        assert_eq!(&header[100..124], [0; 24], "no mode, no owner");
        assert_eq!(&header[124..136], b"00000000005\0");
        let large = section_header("image.blob", 1 << 33);
        assert_eq!(&large[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
