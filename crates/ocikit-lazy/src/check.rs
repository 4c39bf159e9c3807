//! Comparing the table of contents of a layer with its tar.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_archive::Decoder;
use ocikit_archive::layer::{Budget, RawEntry, RawReader, Time};
use ocikit_image::{Error as ImageError, Layer, Result as ImageResult, bridge};
use ocikit_spec::{Annotations, Digest};

use crate::counted::Counted;
use crate::error::{Error, Result};
use crate::form::{Form, LayerContent, OpenTable, checked, content};
use crate::hashing::Hashing;
use crate::output::Output;
use crate::reason::type_name;
use crate::table::{Position, Table, TableEntry};
use crate::{chunked, estargz};

/// The maximum number of problems that are listed.
const MAX_PROBLEMS: usize = 20;

/// A difference between the table of contents of a layer and its tar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableProblem {
    /// The name of the entry; empty for the table itself.
    pub entry: String,
    /// The difference.
    pub what: String,
}

/// Compares the table of contents of a layer with its tar, and the digest of each chunk with the bytes at its offset.
/// Returns the first 20 differences; none for a layer of another format. The layer is copied to a temporary file.
///
/// # Errors
///
/// Those of reading the layer and of the temporary file.
pub async fn check_layer(layer: &Layer, budget: &Budget, directory: &Path) -> ImageResult<Vec<TableProblem>> {
    let descriptor = layer.descriptor().clone();
    let open = match content(layer).await? {
        LayerContent::Plain => return Ok(Vec::new()),
        LayerContent::Table(open) => *open,
        LayerContent::Invalid(error) => {
            let what = format!("the layer is not in the format that its annotations state: {error}");
            return Ok(vec![TableProblem { entry: String::new(), what }]);
        }
    };
    let (directory, budget) = (directory.to_owned(), budget.clone());
    let place = format!("layer {} in {}", descriptor.digest, layer.source());
    budget.layer(descriptor.size);
    let work = move |chunks: &mut bridge::Chunks| {
        let failed = |error| ImageError::failed("write a layer to a temporary file in", directory.display(), error);
        let mut output = Output::create(&directory).map_err(failed)?;
        for chunk in chunks {
            io::Write::write_all(&mut output, &chunk?).map_err(failed)?;
        }
        let stored = output.finish().map_err(failed)?;
        let blob = Blob { file: &stored.file, size: stored.size };
        let checked = blob.check(&open, &descriptor.annotations, &budget);
        Ok(checked
            .unwrap_or_else(|error| vec![TableProblem { entry: String::new(), what: format!("{place}: {error}") }]))
    };
    bridge::consume(layer.open().await?, work).await
}

/// The compressed bytes of a layer.
struct Blob<'a> {
    file: &'a File,
    size: u64,
}

impl Blob<'_> {
    fn check(&self, open: &OpenTable, annotations: &Annotations, budget: &Budget) -> Result<Vec<TableProblem>> {
        if open.form == Form::ZstdChunked {
            self.check_tar_split(&open.table, annotations)?;
        }
        let mut comparison = Comparison { blob: self, form: open.form, problems: Vec::new() };
        comparison.run(&open.table, budget, annotations)?;
        Ok(comparison.problems)
    }

    fn check_tar_split(&self, table: &Table, annotations: &Annotations) -> Result<()> {
        let annotation = annotations.get(chunked::TAR_SPLIT_POSITION).unwrap_or_default();
        let position = Position::of_zstd_chunked(annotation, self.size).and_then(checked)?;
        let found = Digest::sha256_of(&self.read(position.offset, position.length)?);
        match table.tar_split_digest == Some(found) {
            true => Ok(()),
            false => Err(Error::invalid("tar-split", "its digest is not that in the table of contents")),
        }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        From { file: self.file, offset }.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A file from an offset to its end.
struct From<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = bridge::read_some(self.file, buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

struct Comparison<'a> {
    blob: &'a Blob<'a>,
    form: Form,
    problems: Vec<TableProblem>,
}

impl Comparison<'_> {
    fn run(&mut self, table: &Table, budget: &Budget, annotations: &Annotations) -> Result<()> {
        let decoder = Decoder::new(io::BufReader::new(From { file: self.blob.file, offset: 0 }))?;
        let mut tar = Counted::new(decoder, budget);
        let mut reader = RawReader::within(budget, &mut tar);
        let (mut between, mut listed) = (Vec::new(), table.files());
        while let Some(entry) = reader.next_entry(&mut between)? {
            between.clear();
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            if self.form == Form::Estargz && name == estargz::TOC_NAME {
                continue;
            }
            let Some(chunks) = listed.next() else {
                self.note(&name, "is not in the table of contents");
                continue;
            };
            let mut contents = Hashing::new(io::sink());
            io::copy(&mut reader, &mut contents)?;
            self.entry(&name, &entry, &chunks[0]);
            if entry.data.size > 0 {
                self.contents(&name, &entry, chunks, &contents.digest(), budget)?;
            }
            if self.problems.len() >= MAX_PROBLEMS {
                return Ok(());
            }
        }
        if let Some(left) = listed.next() {
            self.note(&left[0].name, "is not in the tar");
        }
        let size = annotations.get(estargz::UNCOMPRESSED_SIZE).filter(|_| self.form == Form::Estargz);
        if let Some(size) = size.filter(|size| size.parse() != Ok(tar.size)) {
            let what = format!("the layer has {} uncompressed bytes, and its annotation says {size:?}", tar.size);
            self.problems.push(TableProblem { entry: String::new(), what });
        }
        Ok(())
    }

    fn note(&mut self, entry: &str, what: impl ToString) {
        self.problems.push(TableProblem { entry: entry.to_owned(), what: what.to_string() });
    }

    /// Compares the metadata.
    fn entry(&mut self, name: &str, entry: &RawEntry, listed: &TableEntry) {
        let is_rounded = self.form == Form::Estargz;
        let half = i64::from(is_rounded && entry.modified.nanoseconds >= 500_000_000);
        let nanoseconds = if is_rounded { 0 } else { entry.modified.nanoseconds };
        let modified = Time { seconds: entry.modified.seconds.saturating_add(half), nanoseconds };
        let found = match listed.modtime.as_str() {
            "" => Some(Time::default()),
            text => Time::parse(text),
        };
        let xattrs: Vec<_> = entry.xattrs().into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
        let same_xattrs = xattrs.len() == listed.xattrs.len()
            && xattrs
                .iter()
                .zip(&listed.xattrs)
                .all(|((key, value), found)| *key == found.0.as_bytes() && value == found.1);
        let checks = [
            ("name", listed.name == name),
            ("type", listed.kind == type_name(entry.kind)),
            ("target", listed.link_name.as_bytes() == &*entry.link),
            ("size", listed.size == if is_rounded { entry.data.size } else { entry.size }),
            ("mode", listed.mode & 0o7777 == u64::from(entry.mode & 0o7777)),
            ("owner", (listed.uid, listed.gid) == (entry.uid, entry.gid)),
            ("device", (listed.dev_major, listed.dev_minor) == (entry.major.into(), entry.minor.into())),
            ("modification time", found == Some(modified)),
            ("extended attributes", same_xattrs),
        ];
        for (what, is_same) in checks {
            if !is_same {
                self.note(name, format_args!("has another {what} in the table of contents"));
            }
        }
    }

    /// Compares the digests with the bytes at the offsets.
    fn contents(
        &mut self,
        name: &str,
        entry: &RawEntry,
        chunks: &[TableEntry],
        digest: &Digest,
        budget: &Budget,
    ) -> Result<()> {
        if chunks.first().is_none_or(|first| first.digest != digest.to_string()) {
            self.note(name, "has another digest in the table of contents");
        }
        let mut position = 0;
        for chunk in chunks {
            let rest = entry.data.size - position;
            let size = if chunk.chunk_size > 0 { chunk.chunk_size } else { rest };
            if chunk.chunk_offset != position || size > rest || chunk.name.as_bytes() != &*entry.name {
                self.note(name, "has chunks that do not follow each other");
                return Ok(());
            }
            position += size;
            let wanted = chunk.own_digest();
            // Only zstd:chunked has the end of the contents, which is that of their last chunk.
            let ends = self.form == Form::ZstdChunked && position == entry.data.size;
            let end = chunks.first().filter(|_| ends).map(|first| first.end_offset);
            if self.chunk(chunk, size, end, budget)?.as_ref() == Some(wanted) {
                continue;
            }
            match end.is_some() && self.chunk(chunk, size, None, budget)?.as_ref() == Some(wanted) {
                true => self.note(name, "ends at another offset than the table of contents has"),
                false => self.note(name, format_args!("has a chunk at {} with another digest", chunk.chunk_offset)),
            }
        }
        if position != entry.data.size {
            self.note(name, "has chunks for a part of its contents only");
        }
        Ok(())
    }

    /// Returns the digest of a chunk; `None` if it cannot be decompressed, or if there is less or more up to the end of it in the
    /// blob.
    fn chunk(&self, chunk: &TableEntry, size: u64, end: Option<u64>, budget: &Budget) -> Result<Option<String>> {
        let mut contents = Hashing::new(io::sink());
        let stored = end.map_or(u64::MAX, |end| end.saturating_sub(chunk.offset));
        // One byte more shows whether the chunk ends there.
        let limit = if end.is_some() { size.saturating_add(1) } else { size };
        let blob = From { file: self.blob.file, offset: chunk.offset }.take(stored);
        let read = Decoder::new(blob).and_then(|decoder| {
            let mut decoder = Counted::new(decoder, budget);
            io::copy(&mut decoder.by_ref().take(chunk.inner_offset), &mut io::sink())?;
            io::copy(&mut decoder.take(limit), &mut contents)
        });
        match read {
            Ok(length) => Ok((length == size).then(|| contents.digest().to_string())),
            Err(error) => match ocikit_archive::Error::from(error) {
                error if error.limit().is_some() => Err(error.into()),
                _ => Ok(None),
            },
        }
    }
}
