use std::path::PathBuf;

use async_trait::async_trait;
use clap::Args;
use ocikit::sync::{Config, Done, Invalid, Item, Prefix, SyncError, SyncOptions, sync};
use ocikit::{Digest, Error, Location, Put, Reference, Referrers, Root, SessionOptions};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output;
use crate::policy::{Gate, GateArguments};
use crate::report::partial;

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

#[derive(Serialize)]
struct SyncedImage<'a> {
    from: &'a str,
    to: &'a str,
    /// `same`, `copied`, `planned`, `refused` by the policy, or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    bytes: u64,
    /// Tags of referrers that the target keeps unchanged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> SyncedImage<'a> {
    fn of(item: &'a Item) -> SyncedImage<'a> {
        SyncedImage {
            from: &item.from,
            to: &item.to,
            outcome: "same",
            digest: None,
            bytes: 0,
            kept: Vec::new(),
            error: None,
        }
    }
}

/// The reason why an image was not mirrored.
enum SyncFailure {
    /// The image does not pass the policy.
    Refused(Failure),
    Failed(Failure),
}

impl From<Error> for SyncFailure {
    fn from(error: Error) -> SyncFailure {
        SyncFailure::Failed(error.into())
    }
}

/// A policy that prints the referrers that it skips.
struct ReportingGate<'a> {
    gate: Gate,
    context: &'a Context,
}

#[async_trait]
impl ocikit::sync::Gate<SyncFailure> for ReportingGate<'_> {
    async fn check(&self, from: &Reference, root: &Root, which: &Referrers) -> Result<Referrers, SyncFailure> {
        let from = Location::Registry(from.clone());
        let checked = self.gate.check(&from, root).await;
        checked.map_err(|failure| match failure.code {
            Code::Unverified => SyncFailure::Refused(failure),
            _ => SyncFailure::Failed(failure),
        })?;
        self.gate.referrers(self.context, &from, root, which.clone()).await.map_err(SyncFailure::Failed)
    }
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

fn result(item: &Item, outcome: Result<Done, SyncFailure>) -> (SyncedImage<'_>, Option<Failure>) {
    let mut result = SyncedImage::of(item);
    let missed = |outcome, failure: Failure| {
        let error = Some(failure.message.clone());
        (SyncedImage { outcome, error, ..SyncedImage::of(item) }, Some(failure))
    };
    match outcome {
        Ok(Done::Same(digest)) => result.digest = Some(digest),
        Ok(Done::Copied(copied)) => {
            result.digest = Some(copied.root.digest);
            result.kept = copied.kept.iter().map(|kept| kept.tag.to_string()).collect();
            (result.outcome, result.bytes) = ("copied", copied.count(Put::Copied).1);
        }
        Ok(Done::Planned(digest, bytes)) => {
            result.digest = Some(digest);
            (result.outcome, result.bytes) = ("planned", bytes);
        }
        Err(SyncFailure::Refused(failure)) => return missed("refused", failure),
        Err(SyncFailure::Failed(failure)) => return missed("failed", failure),
    }
    (result, None)
}

fn words(result: &SyncedImage<'_>) -> String {
    let SyncedImage { from, to, outcome, bytes, error, .. } = result;
    match (error, *outcome) {
        (Some(error), _) => format!("{outcome} {from} -> {to}: {error}"),
        (None, "same") => format!("{outcome} {from} -> {to}"),
        (None, _) => format!("{outcome} {from} -> {to} ({})", output::bytes(*bytes)),
    }
}
