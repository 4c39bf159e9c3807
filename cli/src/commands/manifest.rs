use std::path::PathBuf;

use clap::{Args, Subcommand};
use ocikit::spec::Document;
use ocikit::{Location, MediaType, Name, Platform, Root, SourceExt};
use serde::Serialize;

use super::remote;
use crate::context::Context;
use crate::failure::Result;
use crate::file;

/// Get or put the exact bytes of a manifest or index
#[derive(Debug, Args)]
pub(crate) struct Manifest {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(Get),
    Put(Put),
}

/// Print a manifest or index, byte for byte
#[derive(Debug, Args)]
struct Get {
    /// Which
    location: Location,
    /// The manifest for this platform instead of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Write it to this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Put a manifest or index, byte for byte
///
/// What it points to has to be there already. Prints the reference with the digest.
#[derive(Debug, Args)]
struct Put {
    /// The file; `-` for standard input
    file: PathBuf,
    /// Where to, and under which tag. A referrer without one is put by its digest
    location: remote::Named,
    /// Its media type, if it does not say it itself
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// Only print what the digest would be
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    location: String,
    digest: ocikit::Digest,
    media_type: MediaType,
    size: u64,
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
        // Without a platform nothing has to be understood to be printed.
        if let Some(platform) = &self.platform {
            let root = Root::at(source.clone(), descriptor).await?;
            descriptor = super::inspect::for_platform(root, platform).await?.descriptor().clone();
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
        // A referrer is found by its subject: `latest`, which a reference without a tag means, would be moved for nothing.
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
        let facts = Facts {
            location,
            digest: descriptor.digest,
            media_type: descriptor.media_type,
            size: descriptor.size,
            dry_run: self.dry_run,
        };
        context.output.facts(&facts, || format!("{}@{}", facts.location, facts.digest))
    }
}
