use clap::Args;
use ocikit::{Location, SourceExt};
use serde::Serialize;

use super::remote;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

/// Give an image more tags where it is
///
/// In a registry that is one request for each tag, however large the image is. A tag that is there is moved.
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    location: Location,
    /// The tags, without the name of the repository
    #[arg(required = true)]
    tag: Vec<ocikit::Tag>,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    place: String,
    digest: ocikit::Digest,
    tags: Vec<String>,
    dry_run: bool,
}

impl Tag {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let root = match self.dry_run {
            true => session.source(&location).await?.find(&location.name()).await?,
            false => session.tag(&location, &self.tag).await?,
        };
        let facts = Facts {
            place: remote::place(&location),
            digest: root.digest,
            tags: self.tag.iter().map(ToString::to_string).collect(),
            dry_run: self.dry_run,
        };
        context.output.facts(&facts, || {
            let lines = self.tag.iter().map(|tag| format!("{}@{}", remote::tagged(&location, tag), root.digest));
            lines.collect::<Lines>()
        })
    }
}
