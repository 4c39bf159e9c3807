//! Plain layers from layers of a lazy format.

use std::io::{self, Read};
use std::path::Path;

use ocikit_archive::layer::{BlobWriter, Budget};
use ocikit_archive::{Compression, EncoderOptions};
use ocikit_spec::Digest;

use crate::error::Stopped;
use crate::estargz::WithoutOwnFiles;
use crate::output::{Output, Stored};

/// A layer that was written.
pub(crate) struct Written {
    pub(crate) stored: Stored,
    pub(crate) compression: Compression,
    pub(crate) diff_id: Digest,
}

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
    Ok(Written { stored: output.finish()?, compression: written.compression, diff_id: written.diff_id })
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
