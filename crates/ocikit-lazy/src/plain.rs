//! Plain layers from layers of a lazy format.

use std::io::{self, Read};
use std::path::Path;

use ocikit_archive::layer::{BlobWriter, Budget};
use ocikit_archive::{Compression, EncoderOptions};
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
    match is_estargz {
        true => copy(&mut WithoutOwnFiles::within(budget, tar), &mut blob)?,
        false => copy(tar, &mut blob)?,
    }
    let (output, written) = blob.finish()?;
    let media_type = match written.compression {
        Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
        Compression::None => MediaType::OCI_LAYER,
        Compression::Gzip | Compression::Xz | Compression::Bzip2 => MediaType::OCI_LAYER_GZIP,
    };
    Ok(Written { stored: output.finish()?, media_type, annotations: Vec::new(), diff_id: Some(written.diff_id) })
}

fn copy(reader: &mut impl Read, writer: &mut impl io::Write) -> Result<(), Stopped> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => writer.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stopped::Reading(error.into())),
        }
    }
}
