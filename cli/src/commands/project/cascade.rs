use clap::Args;
use ocikit_publish::project::{Bump, Cascade as Decided, CascadePolicy, Level, finish_cascade};
use serde_json::json;

use super::arguments::ProjectArguments;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;
use crate::values::one_of;

const EXAMPLES: &str = "\
Examples:
  ocikit project cascade --dry-run
  ocikit project cascade
  ocikit project cascade --on-minor minor --on-major major";

/// Carry new versions of images to the images that are built from them
///
/// Sets every reference to an image of the project to its version, and increases the version of each image with a changed
/// reference once. Nothing else in the files changes. Writes all files or none. Finishes a cascade that was interrupted
/// first. Versions have to be of the form x.y.z.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cascade {
    #[command(flatten)]
    project: ProjectArguments,
    /// Print the changes as a diff and write nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Part of a version that a new minor version increases
    #[arg(long, value_name = "PART", default_value = "patch", value_parser = one_of(LEVELS))]
    on_minor: Level,
    /// Part of a version that a new major version increases
    #[arg(long, value_name = "PART", default_value = "patch", value_parser = one_of(LEVELS))]
    on_major: Level,
}

/// The names of the parts of a version.
const LEVELS: [(&str, Level); 3] = [("patch", Level::Patch), ("minor", Level::Minor), ("major", Level::Major)];

impl Cascade {
    pub(crate) fn run(&self, context: &Context) -> Result {
        if !self.dry_run
            && let Some(files) = finish_cascade(&self.project.project_dir)?
        {
            context.output.say(format!("finished the interrupted cascade of {} files", files.len()));
        }
        let project = self.project.load(&[])?;
        let cascade = project.cascade(CascadePolicy::new(self.on_minor, self.on_major))?;
        for note in &cascade.notes {
            context.output.say(format!("warning: {note}"));
        }
        if !self.dry_run {
            project.remove_leftovers()?;
            cascade.apply()?;
        }
        self.report(context, &cascade)
    }

    fn report(&self, context: &Context, cascade: &Decided) -> Result {
        let diff: Vec<u8> = cascade.changes.iter().flat_map(|change| change.diff()).collect();
        if self.dry_run && !context.output.json {
            return context.output.bytes(&diff);
        }
        let files = cascade.changes.iter().map(|change| change.path.display().to_string());
        let mut result = json!({
            "dryRun": self.dry_run,
            "bumps": cascade.bumps,
            "files": files.collect::<Vec<_>>(),
            "notes": cascade.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        if self.dry_run {
            result["diff"] = json!(String::from_utf8_lossy(&diff));
        }
        context.output.result(&result, || cascade.bumps.iter().map(line).collect::<Lines>())
    }
}

fn line(bump: &Bump) -> String {
    let references = bump.references.iter().map(|reference| format!("{} {}", reference.image, reference.to));
    let mut references: Vec<_> = references.collect();
    references.dedup();
    format!("{} {} → {}: {}", bump.image, bump.from, bump.to, references.join(", "))
}
