use std::io::{self, Read};

use ocikit_archive::layer::{Budget, Reader};
use ocikit_archive::{Compression, Decoder};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher, MediaType};

use super::report::Fault;
use crate::bridge::{ChunkReader, Chunks};
use crate::error::{Error, Result};

/// The result of reading a layer.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The digests of the decompressed layer, one for each wanted algorithm; empty if it could not be read to its end.
    pub(super) digests: Vec<Digest>,
    pub(super) faults: Vec<Fault>,
}

/// What is checked in a layer.
#[derive(Debug, Clone)]
pub(super) struct Check {
    /// The algorithms of the digests to compute.
    pub(super) wanted: Vec<Algorithm>,
    /// The maximum decompressed size in bytes; without one, only the compression is checked.
    pub(super) limit: Option<u64>,
    /// Whether the entries of the tar are read.
    pub(super) entries: bool,
}

/// Reads a layer to its end and hashes its decompressed contents. The chunks come from a checked body and end with an
/// error if the digest is wrong; in that case all other results are discarded.
///
/// # Errors
///
/// Those of the chunks; [`Error::Unsupported`] for a compression that the build lacks.
pub(super) fn look_into(chunks: &mut Chunks, layer: &Descriptor, check: &Check, budget: &Budget) -> Result<Contents> {
    let mut contents = Contents::default();
    // Even after a fault, the rest is read to check the digest of the layer.
    let outcome = chunks.with_reader(|reader| inflate(reader, layer, check, budget, &mut contents))?;
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
    check: &Check,
    budget: &Budget,
    contents: &mut Contents,
) -> io::Result<()> {
    let decoder = match Decoder::new(reader) {
        // Without a limit only the header is checked, which needs no decompression.
        Err(error) if check.limit.is_none() && ocikit_archive::Error::missing_feature_of(&error).is_some() => {
            return Ok(());
        }
        decoder => decoder?,
    };
    let actual = decoder.compression();
    if let Some(stated) = stated(&layer.media_type)
        && stated != actual
    {
        contents.faults.push(Fault::Compression { stated: layer.media_type.clone(), actual: word(actual) });
    }
    // For an uncompressed layer the digest of the contents is that of the blob, which the body checks.
    let is_known =
        actual == Compression::None && check.wanted.iter().all(|algorithm| *algorithm == layer.digest.algorithm());
    if is_known {
        contents.digests.push(layer.digest);
    }
    let Some(limit) = check.limit.filter(|_| check.entries || !is_known) else { return Ok(()) };
    let wanted = if is_known { &[] } else { &check.wanted[..] };
    let hashers = wanted.iter().map(|algorithm| Hasher::new(*algorithm)).collect();
    let mut tar = CheckedTar { decoder, hashers, budget, length: 0, limit, stop: None };
    if check.entries
        && let Err(error) = entries(&mut tar, budget)
        && tar.stop.is_none()
    {
        contents.faults.push(Fault::InvalidLayer { problem: error.to_string() });
    }
    // What follows the entries counts for the digest.
    let rest = if tar.stop.is_none() { io::copy(&mut tar, &mut io::sink()).map(drop) } else { Ok(()) };
    match tar.stop {
        Some(Stop::TooLarge) => contents.faults.push(Fault::TooLargeUncompressed { limit }),
        Some(Stop::Failed(error)) => return Err(error),
        None => {
            rest?;
            contents.digests.extend(tar.hashers.into_iter().map(Hasher::finish));
        }
    }
    Ok(())
}

/// Reads the headers of all entries.
fn entries(tar: &mut CheckedTar<'_>, budget: &Budget) -> ocikit_archive::Result<()> {
    let mut reader = Reader::within(budget, tar);
    while reader.next_entry()?.is_some() {}
    Ok(())
}

/// The tar of a layer, which is decompressed and hashed while it is read.
struct CheckedTar<'a> {
    decoder: Decoder<ChunkReader<'a>>,
    hashers: Vec<Hasher>,
    budget: &'a Budget,
    length: u64,
    limit: u64,
    /// Why it was not read to its end.
    stop: Option<Stop>,
}

enum Stop {
    TooLarge,
    Failed(io::Error),
}

impl Read for CheckedTar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer).and_then(|read| {
            self.budget.inflated(read as u64)?;
            Ok(read)
        });
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                let again = io::Error::new(error.kind(), error.to_string());
                self.stop = Some(Stop::Failed(error));
                return Err(again);
            }
        };
        self.length += read as u64;
        if self.length > self.limit {
            self.stop = Some(Stop::TooLarge);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        for hasher in &mut self.hashers {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
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
