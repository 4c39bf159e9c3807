use clap::Args;
use ocikit::{Index, Location, MediaType, Root, SessionOptions, SourceExt};
use serde_json::json;

use super::members::{MemberArguments, explain, say_notes};
use crate::archive::ArchiveArguments;
use crate::context::Context;
use crate::failure::Result;
use crate::values::media_type;

const EXAMPLES: &str = "\
Examples:
  ocikit index create ghcr.io/acme/app:1 ghcr.io/acme/app:1-amd64 ghcr.io/acme/app:1-arm64
  ocikit index create --flatten app.tar amd64.tar arm64.tar
  ocikit index create --platform linux/amd64 --platform linux/arm64 ghcr.io/acme/alpine:3 alpine:3
  ocikit index create --set-platform linux/riscv64 ghcr.io/acme/tool:1 oci:tool";

/// Create an index of images from registries, layouts and archives
///
/// Reads the platform of each image, with its variant, from its config. Prints the digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Create {
    /// Where to store the index
    target: Location,
    /// Images, artifacts and indexes to list
    source: Vec<Location>,
    #[command(flatten)]
    members: MemberArguments,
    /// Make the index a referrer of this image
    #[arg(long, value_name = "LOCATION")]
    subject: Option<Location>,
    /// Set the artifact type of the index
    #[arg(long, value_name = "TYPE", value_parser = media_type)]
    artifact_type: Option<String>,
    /// Print the digest without storing anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    archive: ArchiveArguments,
}

impl Create {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let target = context.expand_output(&self.target);
        let sources: Vec<_> = self.source.iter().map(|source| context.expand(source)).collect();
        let subject = self.subject.as_ref().map(|subject| context.expand(subject));
        let locations: Vec<_> = [&target].into_iter().chain(&sources).chain(&subject).collect();
        let session_options: SessionOptions = self.members.session(self.archive.options());
        let session = context.session_with(&locations, session_options)?;
        let mut options = self.members.options();
        options.artifact_type = self.artifact_type.clone().map(MediaType::new);
        if let Some(subject) = &subject {
            options.subject = Some(session.source(subject).await?.find_root(&subject.name()).await?);
        }
        let composed = session.compose_index(&self.members.sources(&sources)?, &options).await.map_err(explain)?;
        say_notes(context, &composed);
        if !self.dry_run {
            store(&session, &composed.index, &target).await?;
        }
        if crate::file::writes_to_stdout(&target) {
            return Ok(());
        }
        let descriptor = composed.index.descriptor();
        let result = json!({
            "location": target.to_string(),
            "digest": descriptor.digest,
            "mediaType": descriptor.media_type,
            "size": descriptor.size,
            "manifests": composed.index.manifests(),
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || descriptor.digest.to_string())
    }
}

/// Stores an index at a location, which may be standard output.
pub(super) async fn store(session: &ocikit::Session, index: &Index, target: &Location) -> Result {
    match *target == Location::Stdio {
        true => crate::transfer::copy_out(session, &Root::Index(index.clone()), target, target).await?,
        false => session.store_index(index, target).await?,
    };
    Ok(())
}
