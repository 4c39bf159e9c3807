use std::io::{self, Read};

use ocikit_archive::layer::Budget;
use ocikit_archive::{Compression, Decoder};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher, MediaType};

use super::report::Fault;
use crate::bridge::{CHUNK, ChunkReader, Chunks};
use crate::error::{Error, Result};

/// The result of reading a layer.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The digests of the decompressed layer, one for each wanted algorithm; empty if it could not be read to its end.
    pub(super) digests: Vec<Digest>,
    pub(super) faults: Vec<Fault>,
}

/// Reads a layer to its end and hashes its decompressed contents. The chunks come from a checked body and end with an
/// error if the digest is wrong; in that case all other results are discarded.
///
/// # Errors
///
/// Those of the chunks; [`Error::Unsupported`] for a compression that the build lacks.
pub(super) fn look_into(
    chunks: &mut Chunks,
    layer: &Descriptor,
    wanted: &[Algorithm],
    most: Option<u64>,
    budget: &Budget,
) -> Result<Contents> {
    let (mut failed, mut contents) = (None, Contents::default());
    let outcome = inflate(ChunkReader::new(chunks, &mut failed), layer, wanted, most, budget, &mut contents);
    if let Some(error) = failed {
        return Err(error);
    }
    // Even after a fault, the rest is read to check the digest of the layer.
    chunks.try_for_each(|chunk| chunk.map(drop))?;
    if let Err(error) = outcome {
        if ocikit_archive::Error::missing_feature_of(&error).is_some() {
            return Err(Error::Unsupported { place: format!("layer {}", layer.digest), what: error.to_string() });
        }
        contents.digests.clear();
        contents.faults.push(Fault::Undecodable { problem: error.to_string() });
    }
    Ok(contents)
}

fn inflate(
    reader: ChunkReader<'_>,
    layer: &Descriptor,
    wanted: &[Algorithm],
    most: Option<u64>,
    budget: &Budget,
    contents: &mut Contents,
) -> io::Result<()> {
    let mut decoder = match Decoder::new(reader) {
        // Without a limit only the header is checked, which needs no decompression.
        Err(error) if most.is_none() && ocikit_archive::Error::missing_feature_of(&error).is_some() => return Ok(()),
        decoder => decoder?,
    };
    let actual = decoder.compression();
    if let Some(stated) = stated(&layer.media_type)
        && stated != actual
    {
        contents.faults.push(Fault::Compression { stated: layer.media_type.clone(), actual: word(actual) });
    }
    // For an uncompressed layer the digest of the contents is that of the blob, which the body checks.
    if actual == Compression::None && wanted.iter().all(|algorithm| *algorithm == layer.digest.algorithm()) {
        contents.digests.push(layer.digest);
        return Ok(());
    }
    let mut hashers: Vec<_> = wanted.iter().map(|algorithm| Hasher::new(*algorithm)).collect();
    // Without a limit only the header is checked.
    let Some(limit) = most else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let read = decoder.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        budget.inflated(read as u64)?;
        if length > limit {
            contents.faults.push(Fault::TooLargeUncompressed { limit });
            return Ok(());
        }
        for hasher in &mut hashers {
            hasher.update(&buffer[..read]);
        }
    }
    contents.digests = hashers.into_iter().map(Hasher::finish).collect();
    Ok(())
}

/// Returns the compression that a media type states; `None` if it is unknown.
pub(super) fn stated(media_type: &MediaType) -> Option<Compression> {
    match media_type.as_str().rsplit(['.', '+']).next()? {
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        "xz" => Some(Compression::Xz),
        "bzip2" => Some(Compression::Bzip2),
        "tar" => Some(Compression::None),
        _ => None,
    }
}

fn word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "not compressed",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        Compression::Xz => "xz",
        Compression::Bzip2 => "bzip2",
    }
}
