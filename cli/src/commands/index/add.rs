use clap::Args;
use ocikit::{IndexChange, Location, SessionOptions};

use super::changed::{open, report};
use super::create::store;
use super::members::{MemberArguments, explain, say_notes};
use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit index add ghcr.io/acme/app:1 app-riscv64.tar
  ocikit index add --on-duplicate replace ghcr.io/acme/app:1 ghcr.io/acme/app:1-arm64
  ocikit index add -o ghcr.io/acme/app:2 ghcr.io/acme/app:1 oci:windows";

/// Add images to an index; a tag in a registry moves to the new one
///
/// Changes a local archive or layout in place. The other entries and unknown fields keep their bytes. Prints the new digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Add {
    /// Index to change
    location: Location,
    /// Images, artifacts and indexes to add
    #[arg(required = true)]
    source: Vec<Location>,
    #[command(flatten)]
    members: MemberArguments,
    /// Write the result to this location and leave the original unchanged
    #[arg(long, short, value_name = "LOCATION")]
    output: Option<Location>,
    /// Remove referrers that do not apply to the new digest
    #[arg(long, conflicts_with = "output")]
    drop_referrers: bool,
    /// Print the new digest without changing anything
    #[arg(long)]
    dry_run: bool,
}

impl Add {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let output = self.output.as_ref().map(|output| context.expand_output(output));
        let sources: Vec<_> = self.source.iter().map(|source| context.expand(source)).collect();
        let locations: Vec<_> = [&location].into_iter().chain(&output).chain(&sources).collect();
        let session = context.session_with(&locations, self.members.session(SessionOptions::default()))?;
        let (sources, options) = (self.members.sources(&sources)?, self.members.options());
        if !self.dry_run && output.is_none() {
            let change = session.add_to_index(&location, &sources, &options).await.map_err(explain)?;
            say_notes(context, &change.composed);
            return report(context, &session, &location, &change, self.drop_referrers).await;
        }
        let index = open(&session, &location).await?;
        let composed = session.extend_index(&index, &sources, &options).await.map_err(explain)?;
        say_notes(context, &composed);
        let change = IndexChange::planned(&index, composed).await?;
        let target = output.as_ref().unwrap_or(&location);
        if !self.dry_run {
            store(&session, &change.composed.index, target).await?;
        }
        report(context, &session, target, &change, false).await
    }
}
