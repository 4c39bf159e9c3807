//! What the commands print that work on all images.

use ocikit::Digest;
use ocikit_publish::project::{BuildReport, Done, ImageError, ImageOutcome, Project, ProjectImage};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::{Lines, counted};
use crate::report::partial;

/// The images that a command worked on, in the order of the project.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImagesOutput {
    pub(super) images: Vec<ImageOutput>,
}

/// An image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageOutput {
    pub(super) name: String,
    version: String,
    /// `built`, `present`, `failed` or `skipped`; of a copy `copied`, `present`, `missing` or `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repository: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// The signatures that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signatures: Vec<Digest>,
}

impl ImageOutput {
    /// Creates the entry of an image, with its digest if it exists.
    pub(super) fn new(image: &ProjectImage, status: &'static str, digest: Option<Digest>) -> ImageOutput {
        ImageOutput {
            name: image.name.clone(),
            version: image.version.value.clone(),
            status,
            digest,
            location: None,
            repository: None,
            tags: Vec::new(),
            signatures: Vec::new(),
        }
    }

    /// Creates the entry of an image that was built or published.
    pub(super) fn of(image: &ProjectImage, status: &'static str, done: Done) -> ImageOutput {
        let targets = done.report.iter().flat_map(|report| &report.targets);
        ImageOutput {
            location: Some(format!("oci:{}:{}", done.layout.display(), image.version.value)),
            repository: done.published.as_ref().map(ToString::to_string),
            signatures: targets.flat_map(|target| &target.signatures).copied().collect(),
            tags: done.tags,
            ..ImageOutput::new(image, status, Some(done.digest))
        }
    }
}

/// Prints what happened, and returns the failure if an image failed.
pub(super) fn print_report(context: &Context, project: &Project, report: BuildReport) -> Result {
    let mut result = ImagesOutput::default();
    let (mut failures, mut skipped) = (Vec::new(), 0);
    for report in report.images {
        let image = &project.images()[report.position];
        result.images.push(match report.outcome {
            ImageOutcome::Built(done) => ImageOutput::of(image, "built", done),
            ImageOutcome::Present(done) => ImageOutput::of(image, "present", done),
            ImageOutcome::Failed(error) => {
                failures.push((format!("{}:{}", image.name, image.version.value), Failure::from(error)));
                ImageOutput::new(image, "failed", None)
            }
            _ => {
                skipped += 1;
                ImageOutput::new(image, "skipped", None)
            }
        });
    }
    let succeeded = result.images.iter().filter(|image| image.digest.is_some()).count();
    if skipped > 0 {
        context.output.say(format!("{} skipped", counted(skipped, "image was", "images were")));
    }
    context.output.result(&result, || result.images.iter().filter_map(line).collect::<Lines>())?;
    partial(failures, succeeded, "images")
}

fn line(image: &ImageOutput) -> Option<String> {
    let digest = image.digest?;
    Some(match &image.repository {
        Some(repository) => format!("{repository}@{digest}"),
        None => format!("{}@{digest}", image.location.as_deref().unwrap_or_default().rsplit_once(':')?.0),
    })
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        match error {
            ImageError::Build(error) => error.into(),
            ImageError::Image(error) => error.into(),
            ImageError::Publish(error) => error.into(),
            ImageError::Project(error) => error.into(),
            ImageError::Signer(error) => match error.downcast::<Failure>() {
                Ok(failure) => *failure,
                Err(error) => Failure::new(Code::Other, error),
            },
            error @ (ImageError::Tagged { .. } | ImageError::Statement { .. }) => {
                Failure::new(Code::Partial, ocikit::spec::with_causes(&error))
                    .hint("run the same command again; it finishes what is missing")
            }
            error @ ImageError::Taken { .. } => Failure::new(Code::Other, &error)
                .hint("run the same command again; it builds what the published image lacks"),
            error @ ImageError::MissingParent { stage, .. } => Failure::new(Code::Missing, &error)
                .hint(format_args!("run this command with `--stage {stage}` first, on all machines of that stage")),
            error => Failure::usage(ocikit::spec::with_causes(&error)),
        }
    }
}
