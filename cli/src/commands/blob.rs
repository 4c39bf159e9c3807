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

/// Get, put, query or delete a blob, such as a layer or a config
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
    Head(Head),
    Delete(Delete),
}

const HEAD_EXAMPLES: &str = "\
Examples:
  ocikit blob head ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452
  ocikit blob head --json app.tar@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452";

/// Print the digest and the size of a blob without reading it
#[derive(Debug, Args)]
#[command(after_help = HEAD_EXAMPLES)]
struct Head {
    /// Blob to query: REPOSITORY@DIGEST, or an archive or layout with @DIGEST
    location: Location,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  ocikit blob delete ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452
  ocikit blob delete --dry-run ghcr.io/acme/app@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452";

/// Delete a blob from a repository, whether or not a manifest lists it
///
/// An image whose blob is deleted cannot be pulled any more. In a layout, `ocikit gc` removes the blobs that no image needs.
#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
struct Delete {
    /// Blob to delete: REPOSITORY@DIGEST
    location: Location,
    /// Check that the blob exists without deleting it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundBlob {
    location: String,
    digest: Digest,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeletedBlob {
    location: String,
    digest: Digest,
    dry_run: bool,
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
            Command::Head(head) => head.run(context).await,
            Command::Delete(delete) => delete.run(context).await,
        }
    }
}

/// Returns the digest of a location that names a blob.
fn named(location: &Location, verb: &str) -> Result<Digest> {
    match location.name() {
        Name::Digest(digest) => Ok(digest),
        Name::Only | Name::Tag(_) | Name::Full(_) => {
            Err(Failure::usage(format_args!("cannot {verb} {location}: it has no digest"))
                .hint("name the blob by its digest: REPOSITORY@sha256:…"))
        }
    }
}

impl Head {
    async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let digest = named(&location, "query a blob of")?;
        let size = match &location {
            Location::Registry(_) => stored(context, &location, &digest).await?.size,
            Location::Layout { .. }
            | Location::Archive { .. }
            | Location::DockerArchive { .. }
            | Location::Path { .. }
            | Location::Stdio => open(context, &location, &digest).await?.length(),
        };
        let result = FoundBlob { location: remote::place(&location), digest, size };
        context.output.result(&result, || format!("{digest} {size}"))
    }
}

impl Delete {
    async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let digest = named(&location, "delete a blob of")?;
        let (repository, _) = remote::open(context, &location)?;
        match self.dry_run {
            true => drop(stored(context, &location, &digest).await?),
            false => repository.delete_blob(&digest).await?,
        }
        let result = DeletedBlob { location: remote::place(&location), digest, dry_run: self.dry_run };
        context.output.result(&result, || digest.to_string())
    }
}

/// Returns the descriptor of a blob in a repository.
async fn stored(context: &Context, location: &Location, digest: &Digest) -> Result<Descriptor> {
    let (repository, _) = remote::open(context, location)?;
    let found = repository.blob(digest).await?;
    Ok(found.ok_or_else(|| Error::not_found(format!("blob {digest}"), &repository))?)
}

impl Get {
    async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let digest = named(&location, "read a blob from")?;
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
