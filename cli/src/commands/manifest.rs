use std::path::PathBuf;

use clap::{Args, Subcommand};
use ocikit::spec::Document;
use ocikit::{Location, MediaType, Name, Platform, Root, SourceExt};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::file;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit manifest get ghcr.io/acme/app:1 -o manifest.json
  ocikit manifest put manifest.json ghcr.io/acme/app:2";

/// Get or put the exact bytes of a manifest or an index
///
/// `get` prints the stored document, and `put` stores a document from a file without changing it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Manifest {
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
  ocikit manifest get ghcr.io/acme/app:1
  ocikit manifest get --platform linux/amd64 app.tar -o manifest.json";

/// Print a manifest or an index byte for byte
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
struct Get {
    /// Image, index or artifact
    location: Location,
    /// Print the manifest for this platform instead of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

const PUT_EXAMPLES: &str = "\
Examples:
  ocikit manifest put manifest.json ghcr.io/acme/app:2
  ocikit manifest put --media-type application/vnd.oci.image.manifest.v1+json - oci:layout:2 < manifest.json";

/// Store a manifest or an index byte for byte
///
/// The blobs and manifests that it lists have to exist. Prints the reference with the digest.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
struct Put {
    /// File to store; `-` reads standard input
    file: PathBuf,
    /// Where to store it, with a tag
    ///
    /// A referrer without a tag is stored by its digest.
    location: remote::NamedLocation,
    /// Use this media type if the document does not state one
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// Print the digest without storing anything
    #[arg(long)]
    dry_run: bool,
}

impl Manifest {
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
        let source = context.session(&[&location])?.source(&location).await?;
        let mut descriptor = source.find(&location.name()).await?;
        // Without a platform, a document of any media type can be printed.
        if let Some(platform) = &self.platform {
            let root = Root::at(source.clone(), descriptor).await?;
            descriptor = root.for_platform(platform).await?.descriptor().clone();
        }
        let bytes = source.read(&descriptor).await?;
        match &self.output {
            Some(path) => file::write(path, &bytes),
            None => context.output.bytes(&bytes),
        }
    }
}

impl Put {
    async fn run(&self, context: &Context) -> Result {
        let bytes = file::read(&self.file)?;
        let location = context.expand(&self.location.location);
        let media_type = self.media_type.clone().map(MediaType::new);
        let described = ocikit::describe(&bytes, media_type.clone())?;
        let document = Document::parse(&described.media_type, bytes.clone());
        let is_referrer = document.is_ok_and(|document| document.subject().is_some());
        // A reference without a tag means `latest`. A referrer is found by its subject, so that tag must not be moved.
        let location = match is_referrer && !self.location.is_named {
            true => location.with_name(Name::Digest(described.digest)),
            false => location,
        };
        let descriptor = match self.dry_run {
            true => described,
            false => context.session(&[&location])?.put_manifest(bytes, media_type, &location).await?,
        };
        let location = match location.name() {
            Name::Digest(_) => remote::place(&location),
            _ => location.to_string(),
        };
        let result = json!({
            "location": location,
            "digest": descriptor.digest,
            "mediaType": descriptor.media_type,
            "size": descriptor.size,
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || format!("{location}@{}", descriptor.digest))
    }
}
