use clap::Args;
use ocikit_publish::project::{CiMatrix, Decision, Reason, Share, assign, matrix};
use serde::Serialize;
use serde_json::json;

use super::arguments::ProjectArguments;
use super::select::SelectArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;
use crate::values::one_of;

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
    #[arg(long, value_name = "ENGINE", value_parser = one_of(CiMatrix::ALL.map(|engine| (engine.name(), engine))), requires = "shards", conflicts_with_all = ["shard", "stage"])]
    matrix: Option<CiMatrix>,
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
        let images = planned.builds.iter().filter_map(|position| {
            let planned = &planned.plan.images[*position];
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
        let images: Vec<_> = images.collect();
        let up_to_date = count(|decision| matches!(decision, Decision::UpToDate { .. }));
        let not_touched = count(|decision| matches!(decision, Decision::NotTouched));
        let to_build = images.len();
        context.output.say(format!("{to_build} images to build, {up_to_date} up to date, {not_touched} not touched"));
        let result = json!({
            "stages": planned.plan.stages(),
            "images": images,
            "upToDate": up_to_date,
            "notTouched": not_touched,
        });
        context.output.result(&result, || images.iter().map(line).collect::<Lines>())
    }
}

fn line(image: &ImageOutput<'_>) -> String {
    let ImageOutput { name, version, stage, platforms, reason, .. } = image;
    format!("{stage} {name}:{version} {}: {}", platforms.join(","), reason.words())
}
