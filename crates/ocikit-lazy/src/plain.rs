//! Plain layers from layers of a lazy format.

use std::io::{self, Read};
use std::path::Path;

use ocikit_archive::layer::{BlobWriter, Budget, RawReader};
use ocikit_archive::{Compression, END, EncoderOptions, padding};
use ocikit_spec::Digest;

use crate::error::Stopped;
use crate::estargz::is_own_file;
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
        true => without_own_files(tar, budget, &mut blob)?,
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

fn without_own_files(tar: &mut impl Read, budget: &Budget, writer: &mut impl io::Write) -> Result<(), Stopped> {
    let (mut reader, mut between, mut position) = (RawReader::within(budget, tar), Vec::new(), 0);
    // The padding of the last contents, unless they were left out.
    let mut missing_padding = 0;
    while let Some(entry) = reader.next_entry(&mut between)? {
        let gap = usize::try_from(entry.start - position).map_err(io::Error::other)?;
        writer.write_all(&vec![0; missing_padding])?;
        (position, missing_padding) = (entry.data.offset, 0);
        if !is_own_file(&entry.name) {
            writer.write_all(&between[gap..])?;
            copy(&mut reader, writer)?;
            position += entry.data.size;
            missing_padding = usize::try_from(padding(entry.data.size)).map_err(io::Error::other)?;
        }
        between.clear();
    }
    writer.write_all(&vec![0; missing_padding])?;
    Ok(writer.write_all(&END)?)
}
