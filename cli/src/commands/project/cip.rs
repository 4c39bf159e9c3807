//! The subcommands of container-image-pipelines by their names.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ocikit_publish::project::ImagePlace;

use super::arguments::{ProjectArguments, registry};
use super::cascade::Cascade;
use super::run::{Build, Publish, PublishLocally, with_exit_code_1};
use super::transfer::TransferArguments;
use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit project cip build --project-dir .
  ocikit project cip publish --remote-registry ghcr.io/acme
  ocikit project cip cascade-version-updates";

/// Run a subcommand of container-image-pipelines by its name
///
/// The subcommands, their options and their exit codes 0 and 1 are those of that program. Images are in layouts below
/// `.ocikit-images` instead of the store of docker.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cip {
    #[command(subcommand)]
    command: CipCommand,
}

#[derive(Debug, Subcommand)]
enum CipCommand {
    #[command(after_help = BUILD_EXAMPLES)]
    Build(Box<Build>),
    #[command(after_help = LOCAL_EXAMPLES)]
    PublishLocally(Box<PublishLocally>),
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(Box<Publish>),
    UploadAllToLocalRegistry(UploadAll),
    PullLatestFromLocalRegistry(PullLocal),
    PullLatestFromRemoteRegistry(PullRemote),
    #[command(after_help = CASCADE_EXAMPLES)]
    CascadeVersionUpdates(Cascade),
}

// Those of the same commands have the names of this program.
const BUILD_EXAMPLES: &str = "\
Examples:
  ocikit project cip build
  ocikit project cip build --project-dir . -- --no-cache";

const LOCAL_EXAMPLES: &str = "\
Examples:
  ocikit project cip publish-locally
  ocikit project cip publish-locally --local-registry localhost:5001";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  ocikit project cip publish --remote-registry ghcr.io/acme
  ocikit project cip publish --remote-registry ghcr.io/acme --default-platforms linux/amd64";

const CASCADE_EXAMPLES: &str = "\
Examples:
  ocikit project cip cascade-version-updates
  ocikit project cip cascade-version-updates --project-dir images";

const UPLOAD_EXAMPLES: &str = "\
Examples:
  ocikit project cip upload-all-to-local-registry --remote-registry ghcr.io/acme
  ocikit project cip upload-all-to-local-registry --remote-registry a.example --local-registry b.example";

/// Copy all images from the remote to the local registry
#[derive(Debug, Args)]
#[command(after_help = UPLOAD_EXAMPLES)]
pub(crate) struct UploadAll {
    #[command(flatten)]
    project: ProjectArguments,
    /// Registry to copy to
    #[arg(long, value_name = "REGISTRY", default_value = "localhost:5000", value_parser = registry)]
    local_registry: String,
    /// Registry to copy from
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    remote_registry: String,
}

const PULL_LOCAL_EXAMPLES: &str = "\
Examples:
  ocikit project cip pull-latest-from-local-registry
  ocikit project cip pull-latest-from-local-registry --local-registry localhost:5001";

/// Copy all images from the local registry into layouts
#[derive(Debug, Args)]
#[command(after_help = PULL_LOCAL_EXAMPLES)]
pub(crate) struct PullLocal {
    #[command(flatten)]
    project: ProjectArguments,
    /// Registry to copy from
    #[arg(long, value_name = "REGISTRY", default_value = "localhost:5000", value_parser = registry)]
    local_registry: String,
}

const PULL_REMOTE_EXAMPLES: &str = "\
Examples:
  ocikit project cip pull-latest-from-remote-registry --remote-registry ghcr.io/acme
  ocikit project cip pull-latest-from-remote-registry --remote-registry ghcr.io/acme --project-dir images";

/// Copy all images from the remote registry into layouts
#[derive(Debug, Args)]
#[command(after_help = PULL_REMOTE_EXAMPLES)]
pub(crate) struct PullRemote {
    #[command(flatten)]
    project: ProjectArguments,
    /// Registry to copy from
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    remote_registry: String,
}

/// The directory of the layouts.
const LAYOUTS: &str = ".ocikit-images";

impl Cip {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let done = match &self.command {
            CipCommand::Build(command) => command.run(context).await,
            CipCommand::PublishLocally(command) => command.run(context).await,
            CipCommand::Publish(command) => command.run(context).await,
            CipCommand::UploadAllToLocalRegistry(command) => {
                let to = ImagePlace::Registry(command.local_registry.clone());
                copy(context, &command.project, &ImagePlace::Registry(command.remote_registry.clone()), &to).await
            }
            CipCommand::PullLatestFromLocalRegistry(PullLocal { project, local_registry }) => {
                copy(context, project, &ImagePlace::Registry(local_registry.clone()), &layouts(project)).await
            }
            CipCommand::PullLatestFromRemoteRegistry(PullRemote { project, remote_registry }) => {
                copy(context, project, &ImagePlace::Registry(remote_registry.clone()), &layouts(project)).await
            }
            CipCommand::CascadeVersionUpdates(command) => command.run(context),
        };
        done.map_err(with_exit_code_1)
    }
}

fn layouts(project: &ProjectArguments) -> ImagePlace {
    ImagePlace::Layouts(PathBuf::from(&project.project_dir).join(LAYOUTS))
}

async fn copy(context: &Context, project: &ProjectArguments, from: &ImagePlace, to: &ImagePlace) -> Result {
    TransferArguments::of(project.clone()).run(context, from, to).await
}
