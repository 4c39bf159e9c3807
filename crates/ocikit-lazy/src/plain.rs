//! Plain layers from layers of a lazy format.

use std::io::{Read, Write};
use std::path::Path;

use ocikit_archive::layer::{BlobWriter, Budget};
use ocikit_archive::{Compression, EncoderOptions};
use ocikit_image::bridge::{CopyFailed, copy};
use ocikit_spec::MediaType;

use crate::error::Stopped;
use crate::estargz::WithoutOwnFiles;
use crate::output::{Output, Written};

/// Compresses a tar as a whole. The files that only eStargz has are left out if `is_estargz` says so.
pub(crate) fn write(
    tar: &mut impl Read,
    budget: &Budget,
    options: &EncoderOptions,
    is_estargz: bool,
    directory: &Path,
) -> Result<Written, Stopped> {
    let mut blob = BlobWriter::new(options, Output::create(directory)?)?;
    let write = |bytes: &[u8]| blob.write_all(bytes);
    let copied = match is_estargz {
        true => copy(WithoutOwnFiles::within(budget, tar), write),
        false => copy(tar, write),
    };
    copied.map_err(|failed| match failed {
        CopyFailed::Reading(error) => Stopped::Reading(error.into()),
        CopyFailed::Writing(error) => error.into(),
    })?;
    let (output, written) = blob.finish()?;
    let media_type = match written.compression {
        Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
        Compression::None => MediaType::OCI_LAYER,
        Compression::Gzip | Compression::Xz | Compression::Bzip2 => MediaType::OCI_LAYER_GZIP,
    };
    Ok(Written { stored: output.finish()?, media_type, annotations: Vec::new(), diff_id: Some(written.diff_id) })
}
