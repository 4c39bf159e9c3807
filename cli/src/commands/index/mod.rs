mod add;
mod changed;
mod create;
mod list;
mod members;
mod remove;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit index create ghcr.io/acme/app:1 ghcr.io/acme/app:1-amd64 ghcr.io/acme/app:1-arm64
  ocikit index add ghcr.io/acme/app:1 app-riscv64.tar
  ocikit index remove --platform linux/s390x ghcr.io/acme/app:1
  ocikit index list ghcr.io/acme/app:1";

/// Create and change an index: the list of images for several platforms
///
/// Images come from registries, layouts and archives. In a registry, no layer is transferred that the target repository
/// has, and layers of other repositories of the registry are mounted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Index {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Create),
    #[command(visible_alias = "append")]
    Add(add::Add),
    #[command(visible_aliases = ["delete", "rm"])]
    Remove(remove::Remove),
    #[command(visible_alias = "ls")]
    List(list::List),
}

impl Index {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            Command::Create(command) => command.run(context).await,
            Command::Add(command) => command.run(context).await,
            Command::Remove(command) => command.run(context).await,
            Command::List(command) => command.run(context).await,
        }
    }
}
