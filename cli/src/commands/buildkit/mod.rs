#[cfg(unix)]
mod install;
mod list;
mod status;
mod uninstall;

use clap::{Args, Subcommand};
use ocikit_build::Installations;

use crate::build::installations;
use crate::context::Context;
use crate::failure::{Failure, Result};

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

fn installed() -> Result<Installations> {
    installations().ok_or_else(|| {
        Failure::usage("cannot find the cache directory: HOME is not set").hint("set XDG_CACHE_HOME to a directory")
    })
}
