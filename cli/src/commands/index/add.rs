use clap::Args;
use ocikit::{Index, Location, Session, SessionOptions};

use super::changed::run;
use super::members::{MemberArguments, explain};
use crate::change::ChangeArguments;
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
    #[command(flatten)]
    change: ChangeArguments,
}

impl Add {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let locations: Vec<_> = self.source.iter().map(|source| context.expand(source)).collect();
        let others: Vec<_> = locations.iter().collect();
        let options = self.members.session(SessionOptions::default());
        let change = self.change.prepare_with(context, &self.location, &others, options)?;
        let (sources, options) = (self.members.sources(&locations)?, self.members.options());
        let in_place =
            async |session: &Session, index: &Location| session.add_to_index(index, &sources, &options).await;
        let compose = async |session: &Session, index: &Index| session.extend_index(index, &sources, &options).await;
        run(&change, in_place, compose, explain).await
    }
}
