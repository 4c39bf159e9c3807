use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use ocikit::{Location, Platform, SessionOptions};
use ocikit_build::{Builder, Solve};
use ocikit_publish::ci::System;
use ocikit_publish::project::{
    BuildOptions, BuildReport, Project, ProjectReport, Publishing, build_project, reference,
};

use super::arguments::ProjectArguments;
use super::flags::solve;
use super::output::print_report;
use super::progress;
use super::publishing::PublishingArguments;
use super::select::{Planned, SelectArguments};
use crate::build::BuilderArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};

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
    /// Build this many images at the same time; default: four per core
    ///
    /// A build waits for BuildKit most of the time: for its disk, and for downloads.
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
    /// How images are published; `None` if they are not.
    pub(super) publishing: Option<&'a PublishingArguments>,
    /// Whether all platforms are built.
    pub(super) all_platforms: bool,
}

/// The number of builds at the same time for each core.
const BUILDS_PER_CORE: usize = 4;

impl BuildArguments {
    pub(super) async fn run(&self, context: &Context, goal: &Goal<'_>) -> Result {
        let started = Timestamp::now();
        let project = self.project.load(&[goal.registry.to_owned()])?;
        project.remove_leftovers()?;
        let solve = solve(context, &project, &self.project.registry_argument, &self.flags, goal.publishing.is_some())?;
        let signers = match goal.publishing {
            Some(arguments) => arguments.signers(context).await?,
            None => None,
        };
        let only = match goal.all_platforms {
            true => None,
            false => Some(vec![Platform::of_this_machine()]),
        };
        let asked = goal.publishing.map(|_| goal.registry);
        let planned = self.select.plan(context, &self.project, &project, asked, only).await?;
        let count = planned.builds.len();
        context.output.say(format!("{count} of {} images to build", project.images().len()));
        let (publishing, system) = match goal.publishing {
            Some(arguments) => arguments.publishing(signers.as_ref()).map(|(how, system)| (Some(how), system))?,
            None => (None, System::None),
        };
        let report = match count {
            0 => BuildReport::default(),
            _ => self.build(context, &project, &planned, solve, goal, publishing).await?,
        };
        if let Some(arguments) = goal.publishing {
            let times = (started, Timestamp::now());
            arguments.write(system, &ProjectReport::of(&project, &planned.plan, &report, goal.registry, times))?;
        }
        print_report(context, &project, report)
    }

    async fn build(
        &self,
        context: &Context,
        project: &Project,
        planned: &Planned,
        mut solve: Solve,
        goal: &Goal<'_>,
        publishing: Option<Publishing<'_>>,
    ) -> Result<BuildReport> {
        let first = &project.images()[0];
        let sample = Location::registry(reference(goal.registry, &first.name, &first.version.value)?);
        let session = context.session_without_progress(&[&sample], SessionOptions::default())?;
        let builder = Builder::find(&self.builder.options(&[], solve.needed_entitlements())?).await?;
        solve.buildctl = builder.buildctl().to_owned();
        let mut options = BuildOptions::new(solve, goal.registry, project.root().join(&self.layouts));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        options.parallel = self.parallel.map_or(cores * BUILDS_PER_CORE, usize::from);
        options.keep_going = self.keep_going;
        options.registry_argument.clone_from(&self.project.registry_argument);
        options.annotations = goal.publishing.map(PublishingArguments::annotations).unwrap_or_default();
        options.publishing = publishing;
        let observer = progress::observer(context, planned.builds.len());
        let (plan, builds) = (&planned.plan, &planned.builds);
        let report = build_project(&session, project, plan, builds, builder.nodes(), &options, &*observer).await;
        builder.stop().await;
        report.map_err(Failure::from)
    }
}
