pub(super) mod files;
mod pull;
mod push;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit artifact push ghcr.io/acme/policy:1 policy.rego --artifact-type application/vnd.acme.policy
  ocikit artifact push ghcr.io/acme/docs:1 site index.html:text/html
  ocikit artifact pull ghcr.io/acme/docs:1 -o docs";

/// Push files and directories as an artifact, and pull them
///
/// The format is that of oras, which reads and writes the same artifacts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Artifact {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "put")]
    Push(push::Push),
    #[command(visible_alias = "get")]
    Pull(pull::Pull),
}

impl Artifact {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            Command::Push(command) => command.run(context).await,
            Command::Pull(command) => command.run(context).await,
        }
    }
}
