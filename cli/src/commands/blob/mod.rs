mod delete;
mod digest;
mod get;
mod head;
mod put;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit blob get app.tar@sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 -o layer.tar.gz
  ocikit blob put layer.tar.gz ghcr.io/acme/app";

/// Get, put, query or delete a blob, such as a layer or a config
///
/// `get` reads a blob by its digest, and `put` stores a file and prints its digest. Both verify the digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Blob {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(get::Get),
    Put(put::Put),
    Head(head::Head),
    Delete(delete::Delete),
}

impl Blob {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            Command::Get(command) => command.run(context).await,
            Command::Put(command) => command.run(context).await,
            Command::Head(command) => command.run(context).await,
            Command::Delete(command) => command.run(context).await,
        }
    }
}
