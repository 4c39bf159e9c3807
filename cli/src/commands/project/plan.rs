use std::collections::BTreeSet;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use ocikit::Platform;
use ocikit_publish::project::{
    BuildPlan, CiMatrix, Decision, PlanOptions, PlannedImage, Project, Reason, Shard, Shards, Share, assign, matrix,
};
use serde::Serialize;

use super::arguments::ProjectArguments;
use super::published;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit project plan --registry ghcr.io/acme
  ocikit project plan --registry ghcr.io/acme --inputs
  ocikit project plan --since origin/main --shard 2/8 --stage 0
  ocikit project plan --registry ghcr.io/acme --shards 64 --matrix github";

/// Print which images of a project have to be built, and why
///
/// With --registry, an image is built if its version is not published for all its platforms; the registry gets one request
/// per image. A registry that cannot be reached or refuses the credentials is an error. The plan depends on the files and
/// the registry only, so machines that plan on their own agree.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    #[command(flatten)]
    project: ProjectArguments,
    /// Registry, with an optional path, in which to look for the images
    #[arg(long, value_name = "REGISTRY", value_parser = super::arguments::registry)]
    registry: Option<String>,
    #[command(flatten)]
    select: SelectArguments,
    /// Number of machines for --matrix
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), requires = "matrix")]
    shards: Option<u32>,
    /// Print the jobs for a CI engine
    #[arg(long, value_name = "ENGINE", value_parser = engine(), requires = "shards", conflicts_with_all = ["shard", "stage"])]
    matrix: Option<CiMatrix>,
}

/// Which images are considered.
#[derive(Debug, Args)]
pub(super) struct SelectArguments {
    /// Build images too whose files differ from those published
    #[arg(long)]
    inputs: bool,
    /// Build an image too if its base image outside of the project changed
    #[arg(long)]
    bases: bool,
    /// Consider only these images; names separated by blanks, repeatable
    #[arg(long, value_name = "NAMES", value_delimiter = ' ')]
    images: Vec<String>,
    /// Consider only images that a change since this git revision touches
    ///
    /// Those that are built from changed images count too.
    #[arg(long, value_name = "REVISION")]
    since: Option<String>,
    /// Build for these platforms only, whatever the metadata say; repeatable
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Take the share of machine K of N, from 1
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Take one stage, from 0
    #[arg(long, value_name = "STAGE")]
    stage: Option<usize>,
}

fn engine() -> impl TypedValueParser<Value = CiMatrix> {
    let names = PossibleValuesParser::new(CiMatrix::ALL.map(CiMatrix::name));
    names.map(|name| CiMatrix::ALL.into_iter().find(|engine| engine.name() == name).unwrap_or(CiMatrix::GitHub))
}

/// A plan, and the machines of its images if there are several.
pub(super) struct Planned {
    pub(super) plan: BuildPlan,
    shards: Option<(Shard, Shards)>,
    stage: Option<usize>,
    named: Option<BTreeSet<usize>>,
}

impl Planned {
    /// Returns the images to build that the arguments select.
    pub(super) fn builds(&self) -> impl Iterator<Item = &PlannedImage> {
        self.plan.builds().filter(|image| {
            let is_of_shard = self
                .shards
                .as_ref()
                .is_none_or(|(shard, shards)| shards.shard_of[image.position] == Some(shard.position()));
            let is_named = self.named.as_ref().is_none_or(|named| named.contains(&image.position));
            is_named && is_of_shard && self.stage.is_none_or(|stage| stage == image.stage)
        })
    }
}

impl SelectArguments {
    /// Plans, with what git and the registry say.
    ///
    /// `only` are the platforms of all images, if the command decides them.
    pub(super) async fn plan(
        &self,
        context: &Context,
        arguments: &ProjectArguments,
        project: &Project,
        registry: Option<&str>,
        only: Option<Vec<Platform>>,
    ) -> Result<Planned> {
        let mut options = PlanOptions::default();
        options.default_platforms.clone_from(&arguments.default_platforms);
        options.only_platforms = if self.platform.is_empty() { only } else { Some(self.platform.clone()) };
        if let Some(revision) = &self.since {
            let files = ocikit_build::changed_files(project.root(), revision).await?;
            options.touched = Some(project.touched_by(files.iter().map(AsRef::as_ref)));
        }
        if self.inputs {
            options.inputs = Some(project.inputs()?);
        }
        let published = match registry {
            Some(registry) => Some(published::find(context, project, registry, self.bases, &mut options).await?),
            None => None,
        };
        let plan = project.plan(published.as_deref(), &options);
        let named = self.named(project)?;
        let shards = self.shard.map(|shard| (shard, assign(&plan, shard.of, Share::Considered)));
        Ok(Planned { plan, shards, stage: self.stage, named })
    }

    /// Returns the positions of the images that are named; `None` if none is.
    fn named(&self, project: &Project) -> Result<Option<BTreeSet<usize>>> {
        let names = self.images.iter().filter(|name| !name.is_empty());
        let position = |name: &String| {
            let found = project.position(name);
            found.ok_or_else(|| Failure::usage(format_args!("cannot select `{name}`: the project has no such image")))
        };
        let positions = names.map(position).collect::<Result<BTreeSet<_>>>()?;
        Ok((!self.images.is_empty()).then_some(positions))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanOutput<'a> {
    stages: usize,
    images: Vec<ImageOutput<'a>>,
    up_to_date: usize,
    not_touched: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageOutput<'a> {
    name: &'a str,
    version: &'a str,
    directory: String,
    stage: usize,
    platforms: Vec<String>,
    #[serde(flatten)]
    reason: &'a Reason,
}

impl Plan {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if self.registry.is_none() && (self.select.inputs || self.select.bases) {
            return Err(Failure::usage("cannot compare with published images: no registry is given")
                .hint("add --registry REGISTRY"));
        }
        let registries: Vec<_> = self.registry.iter().cloned().collect();
        let project = self.project.load(&registries)?;
        let planned = self.select.plan(context, &self.project, &project, self.registry.as_deref(), None).await?;
        if let (Some(engine), Some(machines)) = (self.matrix, self.shards) {
            let shards = assign(&planned.plan, machines as usize, Share::Builds);
            return context.output.bytes(matrix(&project, &planned.plan, &shards, engine).as_bytes());
        }
        let count = |is: fn(&Decision) -> bool| planned.plan.images.iter().filter(|image| is(&image.decision)).count();
        let images = planned.builds().filter_map(|planned| {
            let Decision::Build(reason) = &planned.decision else { return None };
            let image = &project.images()[planned.position];
            Some(ImageOutput {
                name: &image.name,
                version: &image.version.value,
                directory: image.directory.display().to_string(),
                stage: planned.stage,
                platforms: planned.platforms.iter().map(ToString::to_string).collect(),
                reason,
            })
        });
        let result = PlanOutput {
            stages: planned.plan.stages(),
            images: images.collect(),
            up_to_date: count(|decision| matches!(decision, Decision::UpToDate { .. })),
            not_touched: count(|decision| matches!(decision, Decision::NotTouched)),
        };
        context.output.say(format!(
            "{} images to build, {} up to date, {} not touched",
            result.images.len(),
            result.up_to_date,
            result.not_touched
        ));
        context.output.result(&result, || result.images.iter().map(line).collect::<Lines>())
    }
}

fn line(image: &ImageOutput<'_>) -> String {
    let ImageOutput { name, version, stage, platforms, reason, .. } = image;
    format!("{stage} {name}:{version} {}: {}", platforms.join(","), reason.words())
}

impl From<ocikit_publish::project::SurveyError> for Failure {
    fn from(error: ocikit_publish::project::SurveyError) -> Failure {
        let message = format!("{error}: ");
        let failure = Failure::from(error.source);
        Failure { message: message + &failure.message, ..failure }
    }
}
