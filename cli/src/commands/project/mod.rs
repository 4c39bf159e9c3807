mod arguments;
mod build;
mod cascade;
mod cip;
mod flags;
mod graph;
mod output;
mod plan;
mod progress;
mod published;
mod publishing;
mod run;
mod select;
mod transfer;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit project graph
  ocikit project plan --registry ghcr.io/acme
  ocikit project publish --remote-registry ghcr.io/acme
  ocikit project cascade --dry-run";

/// Build and publish a repository of images that depend on each other
///
/// A project has a directory for each image below `contexts`, with a Dockerfile and an info.edn or image.toml. The
/// references in the Dockerfiles are the dependencies: `FROM ${REGISTRY}/base:1.2.0`, and every other spelling.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Project {
    #[command(subcommand)]
    command: ProjectCommand,
}

#[derive(Debug, Subcommand)]
enum ProjectCommand {
    Graph(graph::Graph),
    Plan(plan::Plan),
    Build(Box<run::Build>),
    Publish(Box<run::Publish>),
    PublishLocally(Box<run::PublishLocally>),
    Cascade(cascade::Cascade),
    Pull(transfer::Pull),
    Upload(transfer::Upload),
    Cip(cip::Cip),
}

impl Project {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            ProjectCommand::Graph(command) => command.run(context),
            ProjectCommand::Plan(command) => command.run(context).await,
            ProjectCommand::Build(command) => command.run(context).await,
            ProjectCommand::Publish(command) => command.run(context).await,
            ProjectCommand::PublishLocally(command) => command.run(context).await,
            ProjectCommand::Cascade(command) => command.run(context),
            ProjectCommand::Pull(command) => command.run(context).await,
            ProjectCommand::Upload(command) => command.run(context).await,
            ProjectCommand::Cip(command) => command.run(context).await,
        }
    }
}
