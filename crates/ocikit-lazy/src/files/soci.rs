//! The files of layers with a ztoc.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use futures::lock::Mutex;
use ocikit_archive::layer::{Budget, Entry, Metadata, Time, Tree};
use ocikit_image::bridge::{CHUNK, blocking};
use ocikit_image::{Body, Error as ImageError, Image, Layer, LayerFiles, Name, Result as ImageResult, Root, SourceExt};
use ocikit_spec::{Descriptor, Digest, MediaType};

use crate::error::{Error, Result};
use crate::files::access::{Usable, place, tree_error, usable_tree};
use crate::files::listed::ListedType;
use crate::ranged::read_range;
use crate::soci::{INDEX_DIGEST, INDEX_V2, Indexer, LAYER_DIGEST, MAX_ZTOC_BYTES, Ztoc, ZtocFile};

/// The maximum number of bytes of a layer that are read for a file; a larger file is read from the tar.
const MAX_SPANS_BYTES: u64 = 64 << 20;

/// The prefix of records with extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Returns the ztocs that an image names: those of its SOCI index of version 2. One of version 1 has the image as its subject;
/// anybody who may write to the repository can add one, so that it is not used.
///
/// # Errors
///
/// Those of the source.
pub(crate) async fn ztocs(image: &Image) -> ImageResult<HashMap<Digest, Descriptor>> {
    let Some(digest) = image.manifest().annotations().get(INDEX_DIGEST).and_then(|text| text.parse().ok()) else {
        return Ok(HashMap::new());
    };
    let index = match Root::open(image.source().clone(), &Name::Digest(digest)).await {
        Ok(Root::Other(index)) => index,
        // Without its index the image is read like any other.
        Ok(_) | Err(ImageError::NotFound { .. } | ImageError::Document { .. }) => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let manifest = index.manifest();
    let config = manifest.and_then(|manifest| manifest.config()).map(|config| config.media_type.as_str());
    let ztocs = manifest.filter(|_| config == Some(INDEX_V2)).map(|manifest| manifest.layers()).unwrap_or_default();
    let of_layer = |ztoc: &Descriptor| {
        let layer = ztoc.annotations.get(LAYER_DIGEST)?.parse().ok()?;
        Some((layer, ztoc.clone()))
    };
    // Lists of what is fetched first have a type of their own.
    let is_ztoc = |entry: &&Descriptor| entry.media_type == MediaType::OCTET_STREAM;
    Ok(ztocs.iter().filter(is_ztoc).filter_map(of_layer).collect())
}

/// A layer with a ztoc.
#[derive(Debug)]
pub(super) struct ZtocFiles {
    layer: Layer,
    ztoc: Descriptor,
    /// What the ztoc lists, once it was read.
    opened: Mutex<Option<Usable<Listed>>>,
}

/// A ztoc and its entries.
#[derive(Debug)]
struct Listed {
    ztoc: Ztoc,
    entries: Arc<[Entry]>,
    /// For each entry the position of its file in the ztoc.
    files: Vec<usize>,
}

impl ZtocFiles {
    pub(super) fn new(layer: Layer, ztoc: Descriptor) -> ZtocFiles {
        ZtocFiles { layer, ztoc, opened: Mutex::new(None) }
    }

    /// Reads the ztoc once. `None` if it is not usable.
    async fn listed(&self) -> ImageResult<Usable<Listed>> {
        let mut opened = self.opened.lock().await;
        if let Some(listed) = &*opened {
            return Ok(listed.clone());
        }
        let listed = match read_ztoc(&self.layer, &self.ztoc).await? {
            None => None,
            Some(bytes) => {
                let size = self.layer.descriptor().size;
                blocking(move || Ok::<_, ImageError>(Listed::of(&bytes, size).ok().map(Arc::new))).await?
            }
        };
        Ok(opened.insert(listed).clone())
    }
}

/// Reads and checks a ztoc; `None` if it does not exist or is too large.
async fn read_ztoc(layer: &Layer, ztoc: &Descriptor) -> ImageResult<Option<bytes::Bytes>> {
    if ztoc.size > MAX_ZTOC_BYTES {
        return Ok(None);
    }
    match layer.source().open(ztoc).await {
        Ok(body) => Ok(Some(body.bytes().await?)),
        Err(ImageError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl LayerFiles for ZtocFiles {
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
        let Some(position) = usize::try_from(entry).ok().and_then(|entry| listed.files.get(entry).copied()) else {
            return Ok(None);
        };
        let file = &listed.ztoc.files[position];
        let Some(spans) = spans(&listed.ztoc, file.offset, file.size) else { return Ok(None) };
        let stored = read_range(&self.layer, spans.offset, spans.end - spans.offset).await?;
        let (place, budget) = (place(&self.layer), Budget::new());
        budget.layer(stored.len() as u64);
        // What is before the file in its span is decompressed too.
        let before = listed.ztoc.checkpoints.get(spans.first).map_or(0, |first| file.offset - first.uncompressed);
        budget.inflated(file.size.saturating_add(before)).map_err(|error| tree_error(place.clone(), error))?;
        let size = file.size;
        Ok(Some(ocikit_image::bridge::produce(size, move |feed| {
            let broken = |error: Error| ImageError::broken(&place, error);
            let file = &listed.ztoc.files[position];
            check_spans(&listed.ztoc, &spans, &stored).map_err(broken)?;
            let mut contents = contents(&listed.ztoc, &spans, &stored, file).map_err(broken)?;
            let mut rest = size;
            while rest > 0 {
                let wanted = feed.fill(|buffer| {
                    let length = usize::try_from(rest).unwrap_or(CHUNK).min(buffer.len());
                    let read = contents.read(&mut buffer[..length]).map_err(|error| broken(error.into()))?;
                    rest -= read as u64;
                    match read {
                        0 => Err(broken(Error::invalid("ztoc", "a file is behind the end of the layer"))),
                        read => Ok(read),
                    }
                })?;
                if !wanted {
                    break;
                }
            }
            Ok(())
        })))
    }
}

impl Listed {
    fn of(bytes: &[u8], layer_bytes: u64) -> Result<Listed> {
        let ztoc = Ztoc::parse(bytes)?;
        let invalid = |problem: &str| Err(Error::invalid("ztoc", problem));
        if ztoc.compressed != layer_bytes {
            return invalid("it is that of another layer");
        }
        if !ztoc.checkpoints.is_empty() && ztoc.checkpoints.len() != ztoc.span_digests.len() {
            return invalid("it does not have one digest for each span");
        }
        if !ztoc
            .checkpoints
            .is_sorted_by(|one, next| one.compressed <= next.compressed && one.uncompressed <= next.uncompressed)
            || ztoc.checkpoints.last().is_some_and(|last| last.compressed > layer_bytes)
        {
            return invalid("its checkpoints are not in order");
        }
        let (mut entries, mut files) = (Vec::new(), Vec::new());
        for (position, file) in ztoc.files.iter().enumerate() {
            if let Some(entry) = entry(file)? {
                entries.push(entry);
                files.push(position);
            }
        }
        Ok(Listed { ztoc, entries: entries.into(), files })
    }
}

/// Returns the entry of a layer; `None` for one that layers ignore.
fn entry(file: &ZtocFile) -> Result<Option<Entry>> {
    let listed = ListedType {
        table: "ztoc",
        name: &file.name,
        kind: &file.kind,
        size: file.size,
        target: &file.link,
        device: (file.major, file.minor),
    };
    let kind = listed.kind()?;
    // The numbers of a ztoc have 32 bits; those that need more are in the extended header.
    let record = |wanted: &[u8]| {
        let value = file.records.iter().rev().find(|(key, _)| **key == *wanted).map(|(_, value)| value)?;
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()
    };
    let mut xattrs = BTreeMap::new();
    for (key, value) in &file.records {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            xattrs.insert(String::from_utf8_lossy(name).into(), value.clone());
        }
    }
    let metadata = Metadata {
        mode: u32::try_from(file.mode & 0o7777).unwrap_or_default(),
        uid: record(b"uid").unwrap_or(file.uid.into()),
        gid: record(b"gid").unwrap_or(file.gid.into()),
        user: None,
        group: None,
        modified: Time::parse(&file.modified).ok_or_else(|| listed.invalid("has an impossible time"))?,
        xattrs,
    };
    Ok(Entry::named(&file.name, kind, metadata)?)
}

/// Consecutive spans of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spans {
    first: usize,
    /// The last one, inclusive.
    last: usize,
    /// The range in the layer.
    offset: u64,
    end: u64,
}

/// Returns the spans with a range of the tar; `None` if there are none, or more than are read at once.
fn spans(ztoc: &Ztoc, offset: u64, size: u64) -> Option<Spans> {
    let end = offset.checked_add(size)?;
    let spans = match ztoc.checkpoints.is_empty() {
        true => {
            let span = ztoc.span_size;
            let last = end.saturating_sub(1).max(offset).checked_div(span)?;
            let (first, last) = (offset / span, last);
            let stop = last.checked_add(1)?.checked_mul(span)?.min(ztoc.compressed);
            let start = first.checked_mul(span)?;
            Spans { first: usize::try_from(first).ok()?, last: usize::try_from(last).ok()?, offset: start, end: stop }
        }
        false => {
            let starts_before = |place: u64| ztoc.checkpoints.partition_point(|found| found.uncompressed <= place);
            let first = starts_before(offset).checked_sub(1)?;
            let last = starts_before(end.saturating_sub(1).max(offset)).checked_sub(1)?;
            Spans { first, last, offset: start_of(ztoc, first)?, end: end_of(ztoc, last) }
        }
    };
    let length = spans.end.checked_sub(spans.offset)?;
    (spans.last < ztoc.span_digests.len() && length <= MAX_SPANS_BYTES).then_some(spans)
}

/// Returns where a span starts in the layer: at the byte with its first bits.
fn start_of(ztoc: &Ztoc, span: usize) -> Option<u64> {
    let checkpoint = ztoc.checkpoints.get(span)?;
    checkpoint.compressed.checked_sub(u64::from(checkpoint.bits > 0))
}

fn end_of(ztoc: &Ztoc, span: usize) -> u64 {
    ztoc.checkpoints.get(span + 1).map_or(ztoc.compressed, |next| next.compressed)
}

/// Checks the digests of spans, given their bytes.
fn check_spans(ztoc: &Ztoc, spans: &Spans, stored: &[u8]) -> Result<()> {
    for span in spans.first..=spans.last {
        let (start, end) = match ztoc.checkpoints.is_empty() {
            true => {
                let start = span as u64 * ztoc.span_size;
                (start, start.saturating_add(ztoc.span_size).min(ztoc.compressed))
            }
            false => (start_of(ztoc, span).unwrap_or_default(), end_of(ztoc, span)),
        };
        let at = |place: u64| place.checked_sub(spans.offset).and_then(|place| usize::try_from(place).ok());
        let bytes = at(start).zip(at(end)).and_then(|(start, end)| stored.get(start..end));
        let listed = &ztoc.span_digests[span];
        if bytes.map(|bytes| Digest::of(listed.algorithm(), bytes)).as_ref() != Some(listed) {
            return Err(Error::invalid("layer", format_args!("span {span} does not have the digest in the ztoc")));
        }
    }
    Ok(())
}

/// Returns the contents of a file, and what follows them, given the bytes of its spans.
fn contents<'a>(ztoc: &Ztoc, spans: &Spans, stored: &'a [u8], file: &ZtocFile) -> Result<Box<dyn Read + 'a>> {
    let Some(checkpoint) = ztoc.checkpoints.get(spans.first) else {
        let start = file.offset.checked_sub(spans.offset).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| stored.get(start..));
        return Ok(Box::new(bytes.ok_or_else(|| Error::invalid("ztoc", "a file is out of its span"))?));
    };
    let invalid = || Error::invalid("ztoc", "a checkpoint is not possible");
    let window = ztoc.window(spans.first).ok_or_else(invalid)?;
    let mut tar = Indexer::resume(stored, checkpoint, window)?.ok_or_else(invalid)?;
    let skipped = file.offset.saturating_sub(checkpoint.uncompressed);
    // A file may be far behind its checkpoint only if the span is.
    let passed = io::copy(&mut (&mut tar).take(skipped), &mut io::sink())?;
    match passed == skipped {
        true => Ok(Box::new(tar)),
        false => Err(Error::invalid("ztoc", "a file is behind the end of the layer")),
    }
}
