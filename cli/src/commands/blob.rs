use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures::TryStreamExt;
use ocikit::image::{Body, ByteRange};
use ocikit::layout::BlobFile;
use ocikit::{Descriptor, Digest, Error, Location, MediaType, Name, Put as Outcome, SourceExt};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::file::{NewFile, is_stdin};
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit blob get app.tar@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 -o layer.tar.gz
  ocikit blob put layer.tar.gz ghcr.io/acme/app";

/// Get or put a blob, such as a layer or a config
///
/// `get` reads a blob by its digest, and `put` stores a file and prints its digest. Both verify the digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Blob {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(Get),
    Put(Put),
}

const GET_EXAMPLES: &str = "\
Examples:
  ocikit blob get app.tar@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 -o layer.tar.gz
  ocikit blob get ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 > blob";

/// Write a blob to standard output or a file and verify its digest
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
struct Get {
    /// Blob to read: REPOSITORY@DIGEST, or an archive or layout with @DIGEST
    location: Location,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

const PUT_EXAMPLES: &str = "\
Examples:
  ocikit blob put layer.tar.gz ghcr.io/acme/app
  ocikit blob put --dry-run - oci:layout < config.json";

/// Store a file as a blob in a repository or a layout
///
/// Registries delete blobs that no manifest lists after some time. Prints the digest.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
struct Put {
    /// File to store; `-` reads standard input
    file: PathBuf,
    /// Repository or layout to store the blob in
    location: Location,
    /// Print the digest without storing anything
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredBlob {
    location: String,
    digest: Digest,
    size: u64,
    /// `false` if the blob already existed, or in a dry run.
    sent: bool,
    dry_run: bool,
}

impl Blob {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            Command::Get(get) => get.run(context).await,
            Command::Put(put) => put.run(context).await,
        }
    }
}

impl Get {
    async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let Name::Digest(digest) = location.name() else {
            return Err(Failure::usage(format_args!("cannot read a blob from {location}: it has no digest"))
                .hint("name the blob by its digest: REPOSITORY@sha256:…"));
        };
        let mut body = open(context, &location, &digest).await?;
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

/// Opens a blob whose size is not known.
async fn open(context: &Context, location: &Location, digest: &Digest) -> Result<Body> {
    match location {
        Location::Registry(_) => {
            let (repository, _) = remote::open(context, location)?;
            let blob =
                repository.blob(digest).await?.ok_or_else(|| Error::not_found(format!("blob {digest}"), &repository));
            Ok(repository.open(&blob?).await?)
        }
        Location::Layout { .. }
        | Location::Archive { .. }
        | Location::DockerArchive { .. }
        | Location::Path { .. }
        | Location::Stdio => {
            let source = context.session(&[location])?.source(location).await?;
            let unsized_blob = Descriptor::new(MediaType::OCTET_STREAM, *digest, 0);
            let body = source.open_unverified(&unsized_blob, ByteRange::ALL).await?;
            let blob = Descriptor { size: body.length(), ..unsized_blob };
            Ok(body.verified(&blob, &source))
        }
    }
}

impl Put {
    async fn run(&self, context: &Context) -> Result {
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
        let result = StoredBlob {
            location: remote::place(&location),
            digest,
            size: blob.descriptor().size,
            sent: outcome == Some(Outcome::Copied),
            dry_run: self.dry_run,
        };
        context.output.result(&result, || digest.to_string())
    }
}

/// The maximum size of a blob from a pipe or device, in bytes. A larger one is put from a file.
const MAX_PIPE_BYTES: u64 = 64 << 30;

/// Writes the content of a pipe to an unnamed temporary file, because the digest has to be known before the upload.
async fn spooled<R: Read>(
    name: String,
    open: impl FnOnce() -> std::io::Result<R> + Send + 'static,
) -> Result<BlobFile> {
    let shown = name.clone();
    let spool = ocikit::image::bridge::blocking(move || {
        let failed = |error| Error::failed("read", &shown, error);
        // Opening a named pipe waits for its writer.
        let pipe = open().map_err(failed)?;
        let mut file = tempfile::tempfile().map_err(failed)?;
        // A device such as /dev/zero never ends and would fill the disk.
        let copied = std::io::copy(&mut pipe.take(MAX_PIPE_BYTES + 1), &mut file).map_err(failed)?;
        if copied > MAX_PIPE_BYTES {
            let problem = format!("it has more than {} GiB; save it to a file first", MAX_PIPE_BYTES >> 30);
            return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, problem)));
        }
        Ok(file)
    });
    Ok(BlobFile::of(name, spool.await?).await?)
}
