//! The files of eStargz and zstd:chunked layers, by their tables of contents.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::lock::Mutex;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use ocikit_archive::Decoder;
use ocikit_archive::layer::{Budget, Entry, Metadata, Time, Tree};
use ocikit_image::bridge::blocking;
use ocikit_image::{Body, Error as ImageError, Layer, LayerFiles, Result as ImageResult};
use ocikit_spec::Digest;

use crate::error::{Error, Result};
use crate::estargz::{WithoutOwnFiles, is_own_file};
use crate::files::access::{FileAccess, Usable, place, tree_error, usable_tree};
use crate::files::listed::{ListedType, has_links_to_later_files};
use crate::form::{Form, LayerContent, OpenTable, content};
use crate::ranged::read_range;
use crate::table::TableEntry;

/// What a table is called in errors.
const TABLE: &str = "table of contents";

/// The maximum size of a chunk in bytes. A file with a larger one is read from the tar.
const MAX_CHUNK_BYTES: u64 = 32 << 20;

/// The number of bytes of a blob from which following chunks are a request of their own.
const MAX_REQUEST_BYTES: u64 = 4 << 20;

/// The size of a part of a run of zeros, in bytes.
const ZEROS_BYTES: u64 = 64 << 10;

/// A layer with the annotations of a table of contents.
#[derive(Debug)]
pub(super) struct TableFiles {
    layer: Layer,
    access: FileAccess,
    /// What the table lists, once it was read.
    opened: Mutex<Option<Usable<Listed>>>,
    /// Whether the tar has files that only the format has, once it was opened.
    has_own_files: std::sync::OnceLock<bool>,
}

impl TableFiles {
    pub(super) fn new(layer: Layer, access: FileAccess) -> TableFiles {
        TableFiles { layer, access, opened: Mutex::new(None), has_own_files: std::sync::OnceLock::new() }
    }

    /// Reads the table once.
    async fn opened(&self) -> ImageResult<Usable<Listed>> {
        let mut opened = self.opened.lock().await;
        if let Some(opened) = &*opened {
            return Ok(opened.clone());
        }
        let found = content(&self.layer).await?;
        let form = found.form();
        // What the table says of its layer counts only if all of it can be true.
        let list = move || {
            let LayerContent::Table(open) = found else { return Ok(None) };
            Ok::<_, ImageError>(Listed::of(&open).ok().map(Arc::new))
        };
        let listed = blocking(list).await?;
        let _ = self.has_own_files.set(form == Form::Estargz);
        Ok(opened.insert(listed).clone())
    }

    async fn listed(&self) -> ImageResult<Usable<Listed>> {
        match self.access {
            FileAccess::Tables => self.opened().await,
            FileAccess::Contents => Ok(None),
        }
    }
}

#[async_trait]
impl LayerFiles for TableFiles {
    async fn tar(&self) -> ImageResult<Option<(Body, u64)>> {
        self.opened().await?;
        Ok(None)
    }

    fn filter<'a>(&self, tar: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
        match self.has_own_files.get() {
            Some(true) => Box::new(WithoutOwnFiles::within(&Budget::new(), tar)),
            Some(false) | None => tar,
        }
    }

    fn is_filtered(&self) -> bool {
        self.has_own_files.get() == Some(&true)
    }

    async fn tree(&self, budget: &Budget) -> ImageResult<Option<Tree>> {
        let Some(listed) = self.listed().await? else { return Ok(None) };
        let tree = usable_tree(listed.entries.clone(), &self.layer, budget).await?;
        if tree.is_none() {
            *self.opened.lock().await = Some(None);
        }
        Ok(tree)
    }

    async fn contents(&self, entry: u64) -> ImageResult<Option<Body>> {
        let Some(listed) = self.listed().await? else { return Ok(None) };
        let chunks = usize::try_from(entry).ok().and_then(|entry| listed.contents.get(entry).cloned());
        let Some(chunks) = chunks.and_then(|chunks| listed.chunks.get(chunks)) else { return Ok(None) };
        let is_large = |chunk: &Chunk| {
            let inner = chunk.data.as_ref().map(|stored| stored.inner);
            inner.is_some_and(|inner| chunk.size.max(inner) > MAX_CHUNK_BYTES)
        };
        if chunks.iter().any(is_large) {
            return Ok(None);
        }
        let size = chunks.iter().map(|chunk| chunk.size).sum();
        let budget = Budget::new();
        budget.layer(self.layer.descriptor().size);
        budget.inflated(size).map_err(|error| tree_error(place(&self.layer), error))?;
        let layer = self.layer.clone();
        let parts = stream::iter(requests(chunks)).then(move |request| request.read(layer.clone()));
        Ok(Some(Body::new(size, parts.try_flatten())))
    }
}

/// The files of a layer, by its table.
#[derive(Debug)]
struct Listed {
    entries: Arc<[Entry]>,
    /// For each entry its chunks.
    contents: Vec<Range<usize>>,
    chunks: Vec<Chunk>,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    /// The size in bytes.
    size: u64,
    /// `None` for zeros, which are not stored.
    data: Option<Stored>,
}

/// A chunk that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    /// The offset of its member or frame in the blob.
    offset: u64,
    /// The latest end of it in the blob.
    end: u64,
    /// Its offset in the decompressed member.
    inner: u64,
    digest: Digest,
}

impl Listed {
    fn of(open: &OpenTable) -> Result<Listed> {
        let starts = starts(open);
        let mut listed = Listed { entries: Arc::default(), contents: Vec::new(), chunks: Vec::new() };
        let mut entries = Vec::new();
        for chunks in open.table.files() {
            let first = &chunks[0];
            let is_own = open.form == Form::Estargz && is_own_file(first.name.as_bytes());
            let Some(entry) = entry(first)?.filter(|_| !is_own) else { continue };
            let start = listed.chunks.len();
            if first.kind == "reg" && first.size > 0 {
                listed.add_chunks(chunks, open.end, &starts)?;
            }
            entries.push(entry);
            listed.contents.push(start..listed.chunks.len());
        }
        match has_links_to_later_files(&entries) {
            true => Err(Error::invalid(TABLE, "a hard link is before its target")),
            false => Ok(Listed { entries: entries.into(), ..listed }),
        }
    }

    fn add_chunks(&mut self, chunks: &[TableEntry], end: u64, starts: &[u64]) -> Result<()> {
        let (first, mut position) = (&chunks[0], 0);
        for chunk in chunks {
            let rest = first.size - position;
            let size = if chunk.chunk_size > 0 { chunk.chunk_size } else { rest };
            if chunk.chunk_offset != position || size > rest || chunk.name != first.name {
                return Err(invalid(first, "has chunks that do not follow each other"));
            }
            position += size;
            if chunk.chunk_type == "zeros" {
                self.chunks.push(Chunk { size, data: None });
                continue;
            }
            let digest = chunk.own_digest().parse().map_err(|_| invalid(first, "has a chunk without a digest"))?;
            let after = starts.get(starts.partition_point(|start| *start <= chunk.offset)).copied();
            let end = after.unwrap_or(end).min(end);
            if chunk.offset >= end {
                return Err(invalid(first, "has a chunk that is out of the layer"));
            }
            let stored = Stored { offset: chunk.offset, end, inner: chunk.inner_offset, digest };
            self.chunks.push(Chunk { size, data: Some(stored) });
        }
        match position == first.size {
            true => Ok(()),
            false => Err(invalid(first, "has chunks for a part of its contents only")),
        }
    }
}

/// Returns the places of the blob where chunks start, in order.
fn starts(open: &OpenTable) -> Vec<u64> {
    let stored = |entry: &&TableEntry| matches!(&*entry.kind, "reg" | "chunk") && entry.chunk_type != "zeros";
    let mut starts: Vec<u64> = open.table.entries.iter().filter(stored).map(|entry| entry.offset).collect();
    let ends = open.table.entries.iter().map(|entry| entry.end_offset).filter(|end| *end > 0);
    starts.extend(ends);
    starts.sort_unstable();
    starts.dedup();
    starts
}

fn invalid(entry: &TableEntry, problem: &str) -> Error {
    Error::invalid(TABLE, format_args!("`{}` {problem}", entry.name.escape_debug()))
}

/// Returns the entry of a layer; `None` for one that layers ignore.
fn entry(listed: &TableEntry) -> Result<Option<Entry>> {
    let listed_type = ListedType {
        table: TABLE,
        name: listed.name.as_bytes(),
        kind: &listed.kind,
        size: listed.size,
        target: listed.link_name.as_bytes(),
        device: (listed.dev_major, listed.dev_minor),
    };
    let kind = listed_type.kind()?;
    let modified = match &*listed.modtime {
        "" => Time::default(),
        text => Time::parse(text).ok_or_else(|| invalid(listed, "has an impossible time"))?,
    };
    let mut xattrs = BTreeMap::new();
    for (name, value) in &listed.xattrs {
        let value = STANDARD.decode(value).map_err(|_| invalid(listed, "has an attribute that is not base64"))?;
        xattrs.insert(name.as_str().into(), value.into());
    }
    let mode = u32::try_from(listed.mode & 0o7777).unwrap_or_default();
    let metadata = Metadata { mode, uid: listed.uid, gid: listed.gid, user: None, group: None, modified, xattrs };
    Ok(Entry::named(listed.name.as_bytes(), kind, metadata)?)
}

/// What is read at once.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Zeros(u64),
    /// Chunks that follow each other in the blob.
    Chunks {
        offset: u64,
        length: u64,
        chunks: Vec<(u64, Stored)>,
    },
}

/// Returns the requests for the chunks of a file: one for chunks that follow each other, up to 4 MiB.
fn requests(chunks: &[Chunk]) -> Vec<Request> {
    let mut requests = Vec::new();
    for chunk in chunks {
        let Some(stored) = &chunk.data else {
            requests.push(Request::Zeros(chunk.size));
            continue;
        };
        // What is stored of a chunk is a little larger at most; what follows it in the blob is not needed.
        let size = stored.inner.saturating_add(chunk.size);
        let bound = size.saturating_add(size / 8).saturating_add(64 << 10);
        let needed = (stored.end - stored.offset).min(bound);
        match requests.last_mut() {
            Some(Request::Chunks { offset, length, chunks })
                if *offset + *length == stored.offset && *length + needed <= MAX_REQUEST_BYTES =>
            {
                *length += needed;
                chunks.push((chunk.size, stored.clone()));
            }
            _ => {
                let chunks = vec![(chunk.size, stored.clone())];
                requests.push(Request::Chunks { offset: stored.offset, length: needed, chunks });
            }
        }
    }
    requests
}

impl Request {
    /// Reads the chunks and checks their digests.
    async fn read(self, layer: Layer) -> ImageResult<BoxStream<'static, ImageResult<bytes::Bytes>>> {
        match self {
            Request::Zeros(size) => {
                let zeros = bytes::Bytes::from(vec![0; usize::try_from(size.min(ZEROS_BYTES)).unwrap_or_default()]);
                let parts = stream::unfold(size, move |rest| {
                    let length = rest.min(ZEROS_BYTES);
                    let part = zeros.slice(..usize::try_from(length).unwrap_or_default());
                    std::future::ready((rest > 0).then(|| (Ok(part), rest - length)))
                });
                Ok(parts.boxed())
            }
            Request::Chunks { offset, length, chunks } => {
                let place = place(&layer);
                let bytes: bytes::Bytes = read_range(&layer, offset, length).await?.into();
                // One at a time, so that the memory is that of a chunk.
                let parts = stream::iter(chunks).then(move |(size, stored)| {
                    let (bytes, place) = (bytes.clone(), place.clone());
                    blocking(move || {
                        let start = usize::try_from(stored.offset - offset).unwrap_or(usize::MAX);
                        let from = bytes.get(start..).unwrap_or_default();
                        let chunk = unpack(from, size, &stored).map_err(|error| ImageError::broken(place, error))?;
                        Ok(bytes::Bytes::from(chunk))
                    })
                });
                Ok(parts.boxed())
            }
        }
    }
}

/// Returns the bytes of a chunk, given those of the blob from its member on.
fn unpack(stored: &[u8], size: u64, chunk: &Stored) -> Result<Vec<u8>> {
    let damaged = |problem: &str| Error::invalid("layer", format_args!("the chunk at {} {problem}", chunk.offset));
    let mut decoder = Decoder::new(stored)?;
    let skipped = std::io::copy(&mut decoder.by_ref().take(chunk.inner), &mut std::io::sink());
    let mut bytes = Vec::new();
    let read = decoder.take(size).read_to_end(&mut bytes);
    match (skipped, read) {
        (Ok(_), Ok(_)) if bytes.len() as u64 != size => Err(damaged("is shorter than its size")),
        (Ok(_), Ok(_)) if Digest::of(chunk.digest.algorithm(), &bytes) != chunk.digest => {
            Err(damaged("does not have the digest in the table of contents"))
        }
        (Ok(_), Ok(_)) => Ok(bytes),
        (Err(_), _) | (_, Err(_)) => Err(damaged("cannot be decompressed")),
    }
}
