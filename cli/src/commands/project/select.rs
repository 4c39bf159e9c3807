//! The arguments that say which images are considered.

use clap::Args;
use ocikit::Platform;
use ocikit_publish::project::{BuildPlan, PlanOptions, Project, Selection, Shard};

use super::arguments::ProjectArguments;
use super::published;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// Which images are considered.
#[derive(Debug, Args)]
pub(super) struct SelectArguments {
    /// Build images too whose files differ from those published
    #[arg(long)]
    pub(super) inputs: bool,
    /// Build an image too if its base image outside of the project changed
    #[arg(long)]
    pub(super) bases: bool,
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

/// A plan, and the images of it that are built here.
pub(super) struct Planned {
    pub(super) plan: BuildPlan,
    /// The positions of the images to build.
    pub(super) builds: Vec<usize>,
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
        // The value of a variable that has none; to select nothing and succeed would hide it.
        if !self.images.is_empty() && self.images.iter().all(String::is_empty) {
            return Err(Failure::usage("cannot select images: --images has no name")
                .hint("leave --images out to select all images"));
        }
        let mut selection =
            Selection::named(project, self.images.iter().map(String::as_str)).map_err(Failure::usage)?;
        (selection.shard, selection.stage) = (self.shard, self.stage);
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
        let stages = plan.images.iter().map(|image| image.stage + 1).max().unwrap_or_default();
        if let Some(stage) = self.stage.filter(|stage| *stage >= stages) {
            context.output.say(format!(
                "warning: there is no stage {stage}: the project has the stages 0 to {}",
                stages.saturating_sub(1)
            ));
        }
        let builds = selection.builds(&plan);
        Ok(Planned { plan, builds })
    }
}
