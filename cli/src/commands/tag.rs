use clap::Args;
use ocikit::{Location, Name, SourceExt};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit tag ghcr.io/acme/app:1 latest stable
  ocikit tag oci:layout:1 latest";

/// Add tags to an image in place
///
/// In a registry this takes two requests per tag, whatever the size of the image. An existing tag is moved.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tag {
    /// Image to tag
    location: Location,
    /// Tags to add, without the repository
    #[arg(required = true)]
    tag: Vec<ocikit::Tag>,
    /// Print what would be tagged without changing anything
    #[arg(long)]
    dry_run: bool,
}

impl Tag {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let root = match self.dry_run {
            true => session.source(&location).await?.find_root(&location.name()).await?,
            false => session.tag(&location, &self.tag).await?,
        };
        let result = json!({
            "location": remote::place(&location),
            "digest": root.digest,
            "tags": self.tag.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || {
            let tagged = |tag: &ocikit::Tag| location.with_name(Name::Tag(tag.clone()));
            self.tag.iter().map(|tag| format!("{}@{}", tagged(tag), root.digest)).collect::<Lines>()
        })
    }
}
