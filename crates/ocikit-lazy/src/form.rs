//! The format of a layer, by the annotations of its descriptor.

use ocikit_spec::Descriptor;

use crate::{chunked, estargz};

/// The format of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    ZstdChunked,
    Estargz,
}

pub(crate) fn form(descriptor: &Descriptor) -> Form {
    let has = |key| descriptor.annotations.get(key).is_some();
    // Readers of zstd:chunked refuse a layer with both annotations, so that neither format counts.
    match (has(chunked::MANIFEST_CHECKSUM), has(estargz::TOC_DIGEST)) {
        (true, false) if has(chunked::TAR_SPLIT_POSITION) => Form::ZstdChunked,
        (false, true) => Form::Estargz,
        (false, false) | (true, false) => Form::Plain,
        (true, true) => Form::Estargz,
    }
}
