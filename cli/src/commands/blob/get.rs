use std::path::PathBuf;

use clap::Args;
use futures::TryStreamExt;
use ocikit::Location;

use super::digest::digest_of;
use crate::context::Context;
use crate::failure::Result;
use crate::file::NewFile;

const GET_EXAMPLES: &str = "\
Examples:
  ocikit blob get app.tar@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 -o layer.tar.gz
  ocikit blob get ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 > blob";

/// Write a blob to standard output or a file and verify its digest
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(super) struct Get {
    /// Blob to read: REPOSITORY@DIGEST, or an archive or layout with @DIGEST
    location: Location,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Get {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let digest = digest_of(&location, "read a blob from")?;
        let mut body = context.session(&[&location])?.open_blob(&location, &digest).await?;
        let mut file = self.output.as_deref().map(NewFile::create).transpose()?;
        while let Some(chunk) = body.try_next().await? {
            match &mut file {
                Some(file) => file.write(&chunk)?,
                None => context.output.bytes(&chunk)?,
            }
        }
        file.map_or(Ok(()), NewFile::finish)
    }
}
