//! `project build`, `publish` and `publish-locally`: the same run for other registries.

use clap::Args;

use super::arguments::registry;
use super::build::{BuildArguments, Goal};
use super::publishing::PublishingArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};

const BUILD_EXAMPLES: &str = "\
Examples:
  ocikit project build
  ocikit project build --since origin/main --keep-going
  ocikit project build -- --no-cache --secret id=token,env=TOKEN";

/// Build the images of a project for this machine, into layouts
///
/// Builds each image after those that it depends on, several at a time, with BuildKit. Images read each other from the
/// layouts; no registry is needed. An image whose layout was built from the same files is not built again, so a second
/// run builds nothing, and an interrupted one goes on. Flags after `--` are those of `ocikit build`.
#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub(crate) struct Build {
    /// Registry in the references of the Dockerfiles
    #[arg(long, value_name = "REGISTRY", default_value = "localhost:5000", value_parser = registry)]
    local_registry: String,
    #[command(flatten)]
    build: BuildArguments,
}

const PUBLISH_EXAMPLES: &str = "\
Examples:
  ocikit project publish --remote-registry ghcr.io/acme
  ocikit project publish --remote-registry ghcr.io/acme --shard 2/8 --stage 0
  ocikit project publish --remote-registry ghcr.io/acme --key ocikit.key --report report.json
  ocikit project publish --remote-registry ghcr.io/acme -- --provenance=mode=max";

/// Build and publish the images of a project that the registry lacks
///
/// Builds for all platforms of each image, unless its version is published for all of them. The version and `latest` point
/// to the same index, with provenance; `latest` is not moved back to an older version. No tag changes before the registry
/// has the whole image and, with --key, its signature; the version is the last tag. A rerun finishes what is missing.
#[derive(Debug, Args)]
#[command(after_help = PUBLISH_EXAMPLES)]
pub(crate) struct Publish {
    /// Registry to publish to, with an optional path
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    remote_registry: String,
    /// Build for the platform of this machine only
    #[arg(long)]
    only_local_platform: bool,
    #[command(flatten)]
    publishing: PublishingArguments,
    #[command(flatten)]
    build: BuildArguments,
}

const LOCAL_EXAMPLES: &str = "\
Examples:
  ocikit project publish-locally
  ocikit project publish-locally --local-registry localhost:5001";

/// Build the images of a project for this machine, into a local registry
///
/// As `project publish`, for the platform of this machine.
#[derive(Debug, Args)]
#[command(after_help = LOCAL_EXAMPLES)]
pub(crate) struct PublishLocally {
    /// Registry to publish to, with an optional path
    #[arg(long, value_name = "REGISTRY", default_value = "localhost:5000", value_parser = registry)]
    local_registry: String,
    #[command(flatten)]
    publishing: PublishingArguments,
    #[command(flatten)]
    build: BuildArguments,
}

impl Build {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let goal = Goal { registry: &self.local_registry, publishing: None, all_platforms: false };
        self.build.run(context, &goal).await
    }
}

impl Publish {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let (registry, publishing) = (&self.remote_registry, Some(&self.publishing));
        let goal = Goal { registry, publishing, all_platforms: !self.only_local_platform };
        self.build.run(context, &goal).await
    }
}

impl PublishLocally {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let (registry, publishing) = (&self.local_registry, Some(&self.publishing));
        let goal = Goal { registry, publishing, all_platforms: false };
        self.build.run(context, &goal).await
    }
}

/// Returns a failure with the exit code 1, which is the only one of the program that `project cip` replaces.
pub(super) fn with_exit_code_1(failure: Failure) -> Failure {
    Failure { exit: Some(1), ..failure }
}
