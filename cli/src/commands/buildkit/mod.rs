#[cfg(unix)]
mod install;
mod installed;
mod list;
mod status;
mod uninstall;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit buildkit status
  ocikit buildkit status --addr docker-container://buildkitd
  ocikit buildkit list";

/// Install BuildKit, and show which BuildKit a build uses
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Buildkit {
    #[command(subcommand)]
    command: BuildkitCommand,
}

#[derive(Debug, Subcommand)]
enum BuildkitCommand {
    #[cfg(unix)]
    Install(install::Install),
    List(list::List),
    Status(status::Status),
    Uninstall(uninstall::Uninstall),
}

impl Buildkit {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            #[cfg(unix)]
            BuildkitCommand::Install(command) => command.run(context).await,
            BuildkitCommand::List(command) => command.run(context),
            BuildkitCommand::Status(command) => command.run(context).await,
            BuildkitCommand::Uninstall(command) => command.run(context).await,
        }
    }
}
