//! The format of a layer, by its content: its annotations, its footer and its table of contents have to agree.

use ocikit_image::bridge::blocking;
use ocikit_image::{Error as ImageError, Layer, Result as ImageResult};
use ocikit_spec::{Annotations, Descriptor, Digest};

use crate::error::{Error, Result};
use crate::rafs::BOOTSTRAP_ANNOTATION;
use crate::ranged::read_range;
use crate::table::{Position, Table, check_size};
use crate::{chunked, estargz, soci};

/// The format of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    ZstdChunked,
    Estargz,
}

/// A layer whose table of contents was read, and is the one that its annotations name.
#[derive(Debug)]
pub(crate) struct OpenTable {
    pub(crate) form: Form,
    pub(crate) table: Table,
    /// The end of the chunks in the blob.
    pub(crate) end: u64,
    /// The size of the table in the blob, in bytes.
    pub(crate) stored: u64,
}

/// What a layer is.
#[derive(Debug)]
pub(crate) enum LayerContent {
    /// It has no annotations of a format.
    Plain,
    /// It is what its annotations say.
    Table(Box<OpenTable>),
    /// It is not what its annotations say.
    Invalid(Error),
}

impl LayerContent {
    /// Returns the format.
    pub(crate) fn form(&self) -> Form {
        match self {
            LayerContent::Table(open) => open.form,
            LayerContent::Plain | LayerContent::Invalid(_) => Form::Plain,
        }
    }
}

/// Returns the format that annotations state: that of the table whose digest they have. Readers of zstd:chunked ignore a
/// layer without tar-split, which older programs wrote.
pub(crate) fn stated(descriptor: &Descriptor) -> Form {
    let has = |key| descriptor.annotations.get(key).is_some();
    match (has(chunked::MANIFEST_CHECKSUM), has(estargz::TOC_DIGEST)) {
        (_, true) => Form::Estargz,
        (true, false) if has(chunked::TAR_SPLIT_POSITION) => Form::ZstdChunked,
        (true | false, false) => Form::Plain,
    }
}

/// Returns what a layer without the annotation that names its table lacks, if it has another one of the format.
fn incomplete(descriptor: &Descriptor) -> Option<Error> {
    let has = |key| descriptor.annotations.get(key).is_some();
    let parts = [
        (estargz::UNCOMPRESSED_SIZE, estargz::TOC_DIGEST),
        (chunked::MANIFEST_POSITION, chunked::MANIFEST_CHECKSUM),
        (chunked::TAR_SPLIT_POSITION, chunked::MANIFEST_CHECKSUM),
    ];
    let (part, missing) = parts.into_iter().find(|(part, missing)| has(part) && !has(missing))?;
    Some(Error::invalid("descriptor", format_args!("it has the annotation `{part}`, and not `{missing}`")))
}

/// Returns whether a descriptor has an annotation of a format, whatever the layer is.
pub(crate) fn has_annotations(descriptor: &Descriptor) -> bool {
    let keys = [chunked::MANIFEST_CHECKSUM, estargz::TOC_DIGEST, BOOTSTRAP_ANNOTATION];
    keys.iter().any(|key| descriptor.annotations.get(key).is_some()) || incomplete(descriptor).is_some()
}

/// Returns whether an annotation of a layer or a manifest belongs to a lazy format.
pub(crate) fn is_annotation(key: &str) -> bool {
    let keys = [estargz::TOC_DIGEST, estargz::UNCOMPRESSED_SIZE, "containerd.io/uncompressed", soci::INDEX_DIGEST];
    let prefixes = [
        "io.github.containers.zstd-chunked.",
        "io.containers.zstd-chunked.",
        "containerd.io/snapshot/nydus-",
        "com.amazon.soci.",
    ];
    keys.contains(&key) || prefixes.iter().any(|prefix| key.starts_with(prefix))
}

/// Reads the footer and the table of contents of a layer, and nothing else.
///
/// # Errors
///
/// Those of the source.
pub(crate) async fn content(layer: &Layer) -> ImageResult<LayerContent> {
    let has = |key| layer.descriptor().annotations.get(key).is_some();
    let opened = match stated(layer.descriptor()) {
        Form::Plain => return Ok(incomplete(layer.descriptor()).map_or(LayerContent::Plain, LayerContent::Invalid)),
        // Readers of zstd:chunked refuse such a layer, so that it has neither format.
        _ if has(chunked::MANIFEST_CHECKSUM) && has(estargz::TOC_DIGEST) => {
            Err(Error::invalid("descriptor", "it has the annotations of eStargz and of zstd:chunked"))
        }
        Form::Estargz => open_estargz(layer).await?,
        Form::ZstdChunked => open_zstd_chunked(layer).await?,
    };
    Ok(match opened {
        Ok(open) => LayerContent::Table(Box::new(open)),
        Err(error) => LayerContent::Invalid(error),
    })
}

async fn open_estargz(layer: &Layer) -> ImageResult<Result<OpenTable>> {
    let footer = tail(layer, estargz::FOOTER_BYTES).await?;
    let position = match Position::of_estargz(&footer, layer.descriptor().size).and_then(checked) {
        Ok(position) => position,
        Err(error) => return Ok(Err(error)),
    };
    let bytes = read_range(layer, position.offset, position.length).await?;
    let annotations = layer.descriptor().annotations.clone();
    parsed(move || {
        let (table, digest) = Table::of_estargz(&bytes)?;
        compare_digest(&annotations, estargz::TOC_DIGEST, &digest)?;
        Ok(OpenTable { form: Form::Estargz, table, end: position.offset, stored: position.length })
    })
    .await
}

async fn open_zstd_chunked(layer: &Layer) -> ImageResult<Result<OpenTable>> {
    let size = layer.descriptor().size;
    let footer = tail(layer, chunked::FOOTER_BYTES).await?;
    let annotation = |key| layer.descriptor().annotations.get(key).unwrap_or_default();
    let positions = || {
        let position = Position::of_zstd_chunked(annotation(chunked::MANIFEST_POSITION), size).and_then(checked)?;
        let tar_split = Position::of_zstd_chunked(annotation(chunked::TAR_SPLIT_POSITION), size).and_then(checked)?;
        match Position::of_zstd_chunked_footer(&footer, size)? == (position, tar_split) {
            true => Ok((position, tar_split)),
            false => Err(Error::invalid("footer", "it differs from the annotations")),
        }
    };
    let (position, tar_split) = match positions() {
        Ok(positions) => positions,
        Err(error) => return Ok(Err(error)),
    };
    let bytes = read_range(layer, position.offset, position.length).await?;
    let annotations = layer.descriptor().annotations.clone();
    parsed(move || {
        compare_digest(&annotations, chunked::MANIFEST_CHECKSUM, &Digest::sha256_of(&bytes))?;
        let table = Table::of_zstd_chunked(&bytes, &position)?;
        let end = position.offset.min(tar_split.offset);
        Ok(OpenTable { form: Form::ZstdChunked, table, end, stored: position.length })
    })
    .await
}

/// Reads the end of a layer, or all of it if it is shorter.
async fn tail(layer: &Layer, length: usize) -> ImageResult<Vec<u8>> {
    let size = layer.descriptor().size;
    let length = (length as u64).min(size);
    read_range(layer, size - length, length).await
}

async fn parsed(parse: impl FnOnce() -> Result<OpenTable> + Send + 'static) -> ImageResult<Result<OpenTable>> {
    blocking(move || Ok::<_, ImageError>(parse())).await
}

/// Checks that a part is not too large to be read.
pub(crate) fn checked(position: Position) -> Result<Position> {
    check_size(position.length).map(|()| position)
}

fn compare_digest(annotations: &Annotations, key: &str, found: &Digest) -> Result<()> {
    match annotations.get(key) {
        Some(listed) if listed == found.to_string() => Ok(()),
        listed => {
            let listed = listed.unwrap_or("nothing").escape_debug();
            Err(Error::invalid("table of contents", format_args!("its digest is {found}, and `{key}` is {listed}")))
        }
    }
}
