use std::path::PathBuf;

use clap::Args;
use ocikit::SessionOptions;
use ocikit::sync::{Config, Invalid, Prefix, SyncError, SyncOptions, sync};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::policy::GateArguments;
use crate::report::partial;
use crate::synced::{ReportingGate, SyncFailure, result, words};

const EXAMPLES: &str = "\
Examples:
  ocikit sync mirror.yaml
  ocikit sync --dry-run mirror.yaml
  ocikit sync --keep-going --scoped skopeo.yaml registry.example.com/mirror";

/// Mirror the images that a file lists
///
/// The file is YAML: a list of `images` with `from`, `to`, `tags`, `match`, `semver`, `except`, `platforms` and
/// `referrers`, or a file for `skopeo sync`. Nothing is deleted at the target. Prints a line for each image.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sync {
    /// File that lists the images; `-` reads standard input
    file: PathBuf,
    /// Default target for images without `to`: a registry, or a path in one
    target: Option<Prefix>,
    /// Append the full source name to the target, not only its last part
    #[arg(long, requires = "target")]
    scoped: bool,
    /// Print what would be copied without copying anything
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Copy non-distributable layers instead of referring to their URLs
    #[arg(long)]
    foreign_layers: bool,
    /// Continue with the next image after a failure
    #[arg(long, short)]
    keep_going: bool,
    #[command(flatten)]
    gate: GateArguments,
}

impl Sync {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let text = crate::file::read_text(&self.file)?;
        let target = self.target.clone().map(|target| target.scoped(self.scoped));
        let config = Config::parse(&text, target.as_ref()).map_err(|invalid| {
            let failure = Failure::usage(format_args!("{}: {invalid}", self.file.display()));
            match invalid {
                Invalid::NoTarget { .. } => {
                    failure.hint("name the target on the command line, or with `to` beside each image")
                }
                Invalid::Target { .. } => failure.hint("correct the target, on the command line or in `to`"),
                Invalid::Source { .. } => failure.hint("correct the name of the image in the file"),
                _ => failure,
            }
        })?;
        let gate = self.gate.gate().await?.map(|gate| ReportingGate { gate, context });
        let gate = gate.as_ref().map(|gate| gate as &dyn ocikit::sync::Gate<SyncFailure>);
        let options = SessionOptions::default().foreign_layers(self.foreign_layers);
        let session = context.session_with_registries(&config.registries, options)?;
        let options = SyncOptions::default().dry_run(self.dry_run).keep_going(self.keep_going);
        let (mut done, mut failures) = (0, Vec::new());
        let mut printed = Ok(());
        let synced = sync(&session, &config, options, gate, &mut |item, outcome| {
            let (result, failure) = result(item, outcome);
            match failure {
                Some(failure) => failures.push((item.from.clone(), failure)),
                None => done += 1,
            }
            for tag in &result.kept {
                context.output.say(format!("warning: {} keeps its tag {tag}, which was not copied", result.to));
            }
            let line = context.output.result(&result, || words(&result));
            printed = std::mem::replace(&mut printed, Ok(())).and(line);
        })
        .await;
        if let Err(conflict @ SyncError::Conflict { .. }) = synced {
            return Err(Failure::usage(conflict).hint("give one of the images another target with `to`"));
        }
        printed?;
        partial(failures, done, "images")
    }
}
