use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser};
use ocikit::{Location, Platform, SessionOptions};
use ocikit_build::{Attestation, Builder, Dockerfile, Observer, Progress, Solve};
use ocikit_publish::project::{
    BuildObserver, BuildOptions, BuildReport, Done, ImageOutcome, Project, build_project, reference,
};
use serde::Serialize;

use super::arguments::ProjectArguments;
use super::plan::{Planned, SelectArguments};
use crate::build::{BuilderArguments, InputArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;
use crate::report::partial;

/// How images are built.
#[derive(Debug, Args)]
pub(super) struct BuildArguments {
    #[command(flatten)]
    pub(super) project: ProjectArguments,
    #[command(flatten)]
    pub(super) select: SelectArguments,
    /// Directory with a layout for each image
    #[arg(long, value_name = "DIRECTORY", default_value = ".ocikit-images")]
    pub(super) layouts: PathBuf,
    /// Build this many images at the same time; default: one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
    /// Build other images after a failure
    ///
    /// Those that depend on the failed one are skipped.
    #[arg(long)]
    keep_going: bool,
    /// Stop after the first failure, which is the default
    #[arg(long, conflicts_with = "keep_going")]
    stop_on_first_error: bool,
    #[command(flatten)]
    builder: BuilderArguments,
    /// Flags of `ocikit build` for every image, after `--`
    #[arg(last = true, value_name = "FLAG")]
    pub(super) flags: Vec<String>,
}

/// Where a run builds for and publishes to.
pub(super) struct Goal<'a> {
    /// The registry of the references, and of the published images.
    pub(super) registry: &'a str,
    pub(super) publishes: bool,
    /// Whether all platforms are built.
    pub(super) all_platforms: bool,
}

/// The flags behind `--`.
#[derive(Debug, Parser)]
#[command(name = "flags after `--`", no_binary_name = true, disable_help_flag = true)]
struct SolveFlags {
    #[command(flatten)]
    inputs: InputArguments,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProjectBuildOutput {
    images: Vec<BuiltOutput>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuiltOutput {
    name: String,
    version: String,
    /// `built`, `present`, `failed` or `skipped`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<ocikit::Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

impl BuildArguments {
    pub(super) async fn run(&self, context: &Context, goal: &Goal<'_>) -> Result {
        let project = self.project.load(&[goal.registry.to_owned()])?;
        let solve = self.solve(context, &project, goal)?;
        let only = match goal.all_platforms {
            true => (!solve.platforms.is_empty()).then(|| solve.platforms.clone()),
            false => Some(vec![Platform::of_this_machine()]),
        };
        let asked = goal.publishes.then_some(goal.registry);
        let planned = self.select.plan(context, &self.project, &project, asked, only).await?;
        let count = planned.builds().count();
        context.output.say(format!("{count} of {} images to build", project.images().len()));
        let report = match count {
            0 => None,
            _ => Some(self.build(context, &project, &planned, solve, goal).await?),
        };
        self.report(context, &project, report)
    }

    /// Returns the options of every build.
    fn solve(&self, context: &Context, project: &Project, goal: &Goal<'_>) -> Result<Solve> {
        // The directory of an image, which replaces it later, is only there because a build has one.
        let Some(first) = project.images().first() else { return Err(Failure::usage("the project has no images")) };
        let directory = project.root().join(&first.directory).display().to_string();
        let mut flags = SolveFlags::try_parse_from(self.flags.iter().chain([&"--no-cache-directory".to_owned()]))
            .map_err(|error| {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text).lines().next().unwrap_or_default().to_owned();
                Failure::usage(format_args!("cannot use the flags after `--`: {text}"))
            })?;
        if flags.inputs.context.is_some() {
            return Err(Failure::usage("cannot use a build context after `--`: each image has its own"));
        }
        flags.inputs.context = Some(directory);
        let mut solve = flags.inputs.solve(context, None)?;
        if solve.dockerfile != Dockerfile::File(project.root().join(first.dockerfile_path())) {
            return Err(Failure::usage("cannot use --file after `--`: each image has its own Dockerfile"));
        }
        if goal.publishes {
            solve.attestations.insert(0, Attestation::provenance("true")?);
        }
        Ok(solve)
    }

    async fn build(
        &self,
        context: &Context,
        project: &Project,
        planned: &Planned,
        solve: Solve,
        goal: &Goal<'_>,
    ) -> Result<BuildReport> {
        let first = &project.images()[0];
        let sample = Location::registry(reference(goal.registry, &first.name, &first.version.value)?);
        let session = context.session_with(&[&sample], SessionOptions::default())?;
        let entitlements = solve.needed_entitlements();
        let mut options = BuildOptions::new(solve, goal.registry, project.root().join(&self.layouts));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        options.parallel = self.parallel.map_or(cores, usize::from);
        options.keep_going = self.keep_going;
        options.publish = goal.publishes;
        options.registry_argument.clone_from(&self.project.registry_argument);
        let builder = Builder::find(&self.builder.options(&[], entitlements)?).await?;
        let observer = Announce { context, steps: context.progress.of_build() };
        let selected: Vec<_> = planned.builds().map(|image| image.position).collect();
        let report =
            build_project(&session, project, &planned.plan, &selected, builder.nodes(), &options, &observer).await;
        builder.stop().await;
        report.map_err(Failure::from)
    }

    fn report(&self, context: &Context, project: &Project, report: Option<BuildReport>) -> Result {
        let mut result = ProjectBuildOutput { images: Vec::new() };
        let (mut failures, mut skipped, mut succeeded) = (Vec::new(), 0, 0);
        for image in report.into_iter().flat_map(|report| report.images) {
            let of = &project.images()[image.position];
            let (name, version) = (of.name.clone(), of.version.value.clone());
            let output = |status, done: Option<Done>| BuiltOutput {
                status,
                digest: done.as_ref().map(|done| done.digest),
                location: done.as_ref().map(|done| format!("oci:{}:{version}", done.layout.display())),
                repository: done.as_ref().and_then(|done| done.published.as_ref()).map(ToString::to_string),
                tags: done.map(|done| done.tags).unwrap_or_default(),
                name: name.clone(),
                version: version.clone(),
            };
            result.images.push(match image.outcome {
                ImageOutcome::Built(done) => output("built", Some(done)),
                ImageOutcome::Present(done) => output("present", Some(done)),
                ImageOutcome::Failed(error) => {
                    failures.push((format!("{name}:{version}"), Failure::from(error)));
                    output("failed", None)
                }
                _ => {
                    skipped += 1;
                    output("skipped", None)
                }
            });
        }
        succeeded += result.images.iter().filter(|image| image.digest.is_some()).count();
        if skipped > 0 {
            context.output.say(format!("{skipped} images were skipped"));
        }
        context.output.result(&result, || result.images.iter().filter_map(line).collect::<Lines>())?;
        partial(failures, succeeded, "images")
    }
}

fn line(image: &BuiltOutput) -> Option<String> {
    let digest = image.digest?;
    Some(match &image.repository {
        Some(repository) => format!("{repository}@{digest}"),
        None => format!("{}@{digest}", image.location.as_deref().unwrap_or_default().rsplit_once(':')?.0),
    })
}

/// Says which images start and end.
#[derive(Debug)]
struct Announce<'a> {
    context: &'a Context,
    steps: Option<Arc<dyn Observer>>,
}

impl BuildObserver for Announce<'_> {
    fn started(&self, image: &str, version: &str) -> Option<Arc<dyn Observer>> {
        self.context.output.say(format!("{image}:{version}: building"));
        let steps = self.steps.clone()?;
        Some(Arc::new(OfImage { image: image.to_owned(), steps }))
    }

    fn ended(&self, image: &str, outcome: &ImageOutcome) {
        let text = match outcome {
            ImageOutcome::Built(done) => format!("built {}", done.digest),
            ImageOutcome::Present(done) => format!("exists {}", done.digest),
            ImageOutcome::Failed(error) => format!("failed: {}", ocikit::spec::with_causes(error)),
            _ => "skipped".to_owned(),
        };
        self.context.output.say(format!("{image}: {text}"));
    }
}

/// Adds the name of an image to the names of its steps.
#[derive(Debug)]
struct OfImage {
    image: String,
    steps: Arc<dyn Observer>,
}

impl Observer for OfImage {
    fn progress(&self, progress: &Progress) {
        let name = |step: &String| format!("{}: {step}", self.image);
        self.steps.progress(&match progress {
            Progress::Started { step } => Progress::Started { step: name(step) },
            Progress::Completed { step, cached } => Progress::Completed { step: name(step), cached: *cached },
            Progress::Failed { step, error } => Progress::Failed { step: name(step), error: error.clone() },
            Progress::Log { step, line } => Progress::Log { step: name(step), line: line.clone() },
            Progress::Warning { message } => Progress::Warning { message: name(message) },
            other => other.clone(),
        });
    }
}

impl From<ocikit_publish::project::ImageError> for Failure {
    fn from(error: ocikit_publish::project::ImageError) -> Failure {
        use ocikit_publish::project::ImageError;
        match error {
            ImageError::Build(error) => error.into(),
            ImageError::Image(error) => error.into(),
            ImageError::Publish(error) => error.into(),
            ImageError::Project(error) => error.into(),
            error => Failure::usage(ocikit::spec::with_causes(&error)),
        }
    }
}
