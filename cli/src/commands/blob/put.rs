use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::layout::BlobFile;
use ocikit::{Error, Location, Name, Put as Outcome};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::file::is_stdin;
use crate::remote;

const PUT_EXAMPLES: &str = "\
Examples:
  ocikit blob put layer.tar.gz ghcr.io/acme/app
  ocikit blob put --dry-run - oci:layout < config.json";

/// Store a file as a blob in a repository or a layout
///
/// Registries delete blobs that no manifest lists after some time. Prints the digest.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub(super) struct Put {
    /// File to store; `-` reads standard input
    file: PathBuf,
    /// Repository or layout to store the blob in
    location: Location,
    /// Print the digest without storing anything
    #[arg(long)]
    dry_run: bool,
}

impl Put {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let is_pipe = |path: &Path| std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let blob = match &self.file {
            file if is_stdin(file) => spooled("standard input".to_owned(), || Ok(std::io::stdin())).await?,
            file if is_pipe(file) => {
                let path = file.clone();
                spooled(file.display().to_string(), move || std::fs::File::open(path)).await?
            }
            file => BlobFile::open(file).await?,
        };
        let digest = blob.descriptor().digest;
        if let Name::Digest(wanted) = location.name()
            && wanted != digest
        {
            return Err(Error::other_digest(&location, &blob, digest).into());
        }
        let outcome = match self.dry_run {
            true => None,
            false => Some(context.session(&[&location])?.put_blob(&blob, &location).await?),
        };
        let result = json!({
            "location": remote::place(&location),
            "digest": digest,
            "size": blob.descriptor().size,
            // `false` if the blob already existed, or in a dry run.
            "sent": outcome == Some(Outcome::Copied),
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || digest.to_string())
    }
}

/// Writes the content of a pipe to an unnamed temporary file, because the digest has to be known before the upload.
async fn spooled<R: Read + Send + 'static>(
    name: String,
    open: impl FnOnce() -> std::io::Result<R> + Send + 'static,
) -> Result<BlobFile> {
    let shown = name.clone();
    // Opening a named pipe waits for its writer.
    let opened =
        ocikit::image::bridge::blocking(move || open().map_err(|error| Error::failed("read", &shown, error))).await?;
    Ok(BlobFile::of_reader(name, opened, std::env::temp_dir()).await?)
}
