use std::path::PathBuf;

use clap::Args;
use ocikit::SessionOptions;
use ocikit_publish::project::{ImagePlace, TransferOutcome, transfer};

use super::arguments::{ProjectArguments, registry};
use super::output::{ImageOutput, ImagesOutput};
use super::published::warn_unless_registry;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;
use crate::report::partial;

const PULL_EXAMPLES: &str = "\
Examples:
  ocikit project pull --registry ghcr.io/acme
  ocikit project pull --registry localhost:5000 --require-all";

/// Copy the images of a project from a registry into layouts
///
/// Copies the version of each image with all platforms, and tags it `latest` unless the layout has a newer version. Lists
/// the images that the registry lacks.
#[derive(Debug, Args)]
#[command(after_help = PULL_EXAMPLES)]
pub(crate) struct Pull {
    /// Registry to copy from, with an optional path
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    registry: String,
    /// Directory with a layout for each image
    #[arg(long, value_name = "DIRECTORY", default_value = ".ocikit-images")]
    layouts: PathBuf,
    #[command(flatten)]
    transfer: TransferArguments,
}

const UPLOAD_EXAMPLES: &str = "\
Examples:
  ocikit project upload --from ghcr.io/acme --to localhost:5000
  ocikit project upload --to ghcr.io/acme";

/// Copy the images of a project to a registry
///
/// Copies the version of each image with all platforms from another registry, or from the layouts that `project build`
/// writes. The digests stay the same. A layer that several images share is sent once.
#[derive(Debug, Args)]
#[command(after_help = UPLOAD_EXAMPLES)]
pub(crate) struct Upload {
    /// Registry to copy from, with an optional path; default: the layouts
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    from: Option<String>,
    /// Registry to copy to, with an optional path
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    to: String,
    /// Directory with a layout for each image
    #[arg(long, value_name = "DIRECTORY", default_value = ".ocikit-images")]
    layouts: PathBuf,
    #[command(flatten)]
    transfer: TransferArguments,
}

/// What both have.
#[derive(Debug, Args)]
pub(super) struct TransferArguments {
    #[command(flatten)]
    project: ProjectArguments,
    /// Fail with exit code 3 if the source lacks an image
    #[arg(long)]
    require_all: bool,
}

/// The number of images that are copied at the same time. Each copies several blobs at a time.
const CONCURRENT_IMAGES: usize = 4;

impl Pull {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let layouts = self.transfer.project.project_dir.join(&self.layouts);
        let from = ImagePlace::Registry(self.registry.clone());
        self.transfer.run(context, &from, &ImagePlace::Layouts(layouts)).await
    }
}

impl Upload {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let from = match &self.from {
            Some(registry) => ImagePlace::Registry(registry.clone()),
            None => ImagePlace::Layouts(self.transfer.project.project_dir.join(&self.layouts)),
        };
        self.transfer.run(context, &from, &ImagePlace::Registry(self.to.clone())).await
    }
}

impl TransferArguments {
    pub(super) async fn run(&self, context: &Context, from: &ImagePlace, to: &ImagePlace) -> Result {
        let project = self.project.load(&[])?;
        let Some(first) = project.images().first() else { return Ok(()) };
        let samples = [from.location(first)?, to.location(first)?];
        let session = context.session_with(&samples.iter().collect::<Vec<_>>(), SessionOptions::default())?;
        let outcomes = transfer(&session, &project, from, to, CONCURRENT_IMAGES).await;
        let mut result = ImagesOutput::default();
        let (mut failures, mut missing) = (Vec::new(), Vec::new());
        for (image, outcome) in project.images().iter().zip(outcomes) {
            let reference = format!("{}:{}", image.name, image.version.value);
            let (status, digest) = match outcome {
                TransferOutcome::Copied { digest, blobs: (sent, mounted, present), tags } => {
                    context.output.say(format!(
                        "{reference}: {sent} sent, {mounted} mounted, {present} present; tags {}",
                        tags.join(", ")
                    ));
                    ("copied", Some(digest))
                }
                TransferOutcome::Present { digest } => ("present", Some(digest)),
                TransferOutcome::Failed(error) => {
                    failures.push((reference, Failure::from(error)));
                    ("failed", None)
                }
                _ => {
                    context.output.say(format!("{reference}: the source does not have it"));
                    missing.push(reference);
                    ("missing", None)
                }
            };
            let location = digest.and_then(|_| to.location(image).ok()).map(|location| location.to_string());
            let mut output = ImageOutput::new(image, status, digest);
            output.location = location;
            result.images.push(output);
        }
        if missing.len() == project.images().len() {
            warn_unless_registry(context, &session, &samples[0]).await;
        }
        let succeeded = result.images.iter().filter(|image| image.digest.is_some()).count();
        context.output.result(&result, || {
            let line = |image: &ImageOutput| Some(format!("{}@{}", image.name, image.digest?));
            result.images.iter().filter_map(line).collect::<Lines>()
        })?;
        partial(failures, succeeded, "images")?;
        if self.require_all && !missing.is_empty() {
            let message = format!("the source lacks {} images: {}", missing.len(), missing.join(", "));
            return Err(Failure::new(Code::Missing, message));
        }
        Ok(())
    }

    /// Creates the arguments of the program that `project cip` replaces.
    pub(super) fn of(project: ProjectArguments) -> TransferArguments {
        TransferArguments { project, require_all: false }
    }
}
