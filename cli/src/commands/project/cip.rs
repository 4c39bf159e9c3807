//! The subcommands of container-image-pipelines by their names.

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
    /// Copy all images from the remote to the local registry
    #[command(after_help = UPLOAD_EXAMPLES)]
    UploadAllToLocalRegistry {
        #[command(flatten)]
        project: ProjectArguments,
        /// Registry to copy to
        #[arg(long, value_name = "REGISTRY", default_value = "localhost:5000", value_parser = registry)]
        local_registry: String,
        /// Registry to copy from
        #[arg(long, value_name = "REGISTRY", value_parser = registry)]
        remote_registry: String,
    },
    /// Copy all images from the local registry into layouts
    #[command(after_help = PULL_LOCAL_EXAMPLES)]
    PullLatestFromLocalRegistry {
        #[command(flatten)]
        project: ProjectArguments,
        /// Registry to copy from
        #[arg(long, value_name = "REGISTRY", default_value = "localhost:5000", value_parser = registry)]
        local_registry: String,
    },
    /// Copy all images from the remote registry into layouts
    #[command(after_help = PULL_REMOTE_EXAMPLES)]
    PullLatestFromRemoteRegistry {
        #[command(flatten)]
        project: ProjectArguments,
        /// Registry to copy from
        #[arg(long, value_name = "REGISTRY", value_parser = registry)]
        remote_registry: String,
    },
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

const PULL_LOCAL_EXAMPLES: &str = "\
Examples:
  ocikit project cip pull-latest-from-local-registry
  ocikit project cip pull-latest-from-local-registry --local-registry localhost:5001";

const PULL_REMOTE_EXAMPLES: &str = "\
Examples:
  ocikit project cip pull-latest-from-remote-registry --remote-registry ghcr.io/acme
  ocikit project cip pull-latest-from-remote-registry --remote-registry ghcr.io/acme --project-dir images";

/// The directory of the layouts.
const LAYOUTS: &str = ".ocikit-images";

impl Cip {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let done = match &self.command {
            CipCommand::Build(command) => command.run(context).await,
            CipCommand::PublishLocally(command) => command.run(context).await,
            CipCommand::Publish(command) => command.run(context).await,
            CipCommand::UploadAllToLocalRegistry { project, local_registry, remote_registry } => {
                copy(context, project, remote_registry, &ImagePlace::Registry(local_registry.clone())).await
            }
            CipCommand::PullLatestFromLocalRegistry { project, local_registry: from }
            | CipCommand::PullLatestFromRemoteRegistry { project, remote_registry: from } => {
                let layouts = ImagePlace::Layouts(project.project_dir.join(LAYOUTS));
                copy(context, project, from, &layouts).await
            }
            CipCommand::CascadeVersionUpdates(command) => command.run(context),
        };
        done.map_err(with_exit_code_1)
    }
}

async fn copy(context: &Context, project: &ProjectArguments, from: &str, to: &ImagePlace) -> Result {
    TransferArguments::of(project.clone()).run(context, &ImagePlace::Registry(from.to_owned()), to).await
}
