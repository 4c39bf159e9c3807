use std::path::PathBuf;

use async_trait::async_trait;
use clap::Args;
use ocikit::sync::{Config, Done, Item, Prefix, SyncError, SyncOptions, sync};
use ocikit::{Digest, Error, Location, Put, Reference, Referrers, Root, SessionOptions};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output;
use crate::policy::{Gate, GateArguments};
use crate::report::partial;

/// Mirror images as a file says
///
/// The file is YAML: a list of `images` with `from`, `to`, `tags`, `match`, `semver`, `except`, `platforms` and `referrers`, or
/// one that `skopeo sync` reads. Nothing is removed at the target. Prints a line for each image.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// The file
    file: PathBuf,
    /// The registry, or a path in it, for images that the file says no target for
    target: Option<Prefix>,
    /// Put the whole name of the source below the target, instead of its last part alone
    #[arg(long, requires = "target")]
    scoped: bool,
    /// Say what would be copied, and copy nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Copy layers that may not be distributed, which stay where their descriptors say otherwise
    #[arg(long)]
    foreign_layers: bool,
    /// Go on where an image fails
    #[arg(long, short)]
    keep_going: bool,
    #[command(flatten)]
    gate: GateArguments,
}

#[derive(Serialize)]
struct Facts<'a> {
    from: &'a str,
    to: &'a str,
    /// `same`, `copied`, `planned`, `refused` by the policy, or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    bytes: u64,
    /// Tags of referrers that the target keeps as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> Facts<'a> {
    fn of(item: &'a Item) -> Facts<'a> {
        Facts { from: &item.from, to: &item.to, outcome: "same", digest: None, bytes: 0, kept: Vec::new(), error: None }
    }
}

/// Why an image was not mirrored.
enum Missed {
    /// The policy does not let it through.
    Refused(Failure),
    Failed(Failure),
}

impl From<Error> for Missed {
    fn from(error: Error) -> Missed {
        Missed::Failed(error.into())
    }
}

/// A policy that says what it leaves out.
struct SayingGate<'a> {
    gate: Gate,
    context: &'a Context,
}

#[async_trait]
impl ocikit::sync::Gate<Missed> for SayingGate<'_> {
    async fn check(&self, from: &Reference, root: &Root, which: &Referrers) -> Result<Referrers, Missed> {
        let from = Location::Registry(from.clone());
        let checked = self.gate.check(&from, root).await;
        checked.map_err(|failure| match failure.code {
            Code::Unverified => Missed::Refused(failure),
            _ => Missed::Failed(failure),
        })?;
        self.gate.referrers(self.context, &from, root, which.clone()).await.map_err(Missed::Failed)
    }
}

impl Sync {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let text = String::from_utf8(crate::file::read(&self.file)?)
            .map_err(|_| Failure::usage(format_args!("{} is not UTF-8", self.file.display())))?;
        let target = self.target.clone().map(|target| target.scoped(self.scoped));
        let config = Config::parse(&text, target.as_ref()).map_err(|invalid| {
            Failure::usage(format_args!("{}: {invalid}", self.file.display()))
                .hint("name the target on the command line, or with `to` beside each image")
        })?;
        let gate = self.gate.gate().await?.map(|gate| SayingGate { gate, context });
        let gate = gate.as_ref().map(|gate| gate as &dyn ocikit::sync::Gate<Missed>);
        let options = SessionOptions { foreign_layers: self.foreign_layers, ..SessionOptions::default() };
        let session = context.session_that_knows(&config.registries, options)?;
        let options = SyncOptions { dry_run: self.dry_run, keep_going: self.keep_going };
        let (mut done, mut refused, mut failures) = (0, 0, Vec::new());
        let mut unsaid = Ok(());
        let synced = sync(&session, &config, options, gate, &mut |item, outcome| {
            refused += usize::from(matches!(outcome, Err(Missed::Refused(_))));
            let (facts, failure) = facts(item, outcome);
            match failure {
                Some(failure) => failures.push((item.from.clone(), failure)),
                None => done += 1,
            }
            for tag in &facts.kept {
                context.output.say(format!("warning: {} keeps its own {tag}", facts.to));
            }
            let said = context.output.facts(&facts, || words(&facts));
            unsaid = std::mem::replace(&mut unsaid, Ok(())).and(said);
        })
        .await;
        if let Err(conflict @ SyncError::Conflict { .. }) = synced {
            return Err(Failure::usage(conflict).hint("give one of them another target with `to`"));
        }
        unsaid?;
        let is_refusal = refused == failures.len();
        partial(failures, done, "images").map_err(|failure| match is_refusal {
            // All went as it should but for the policy, whatever else was copied.
            true => Failure { code: Code::Unverified, ..failure },
            false => failure,
        })
    }
}

fn facts(item: &Item, outcome: Result<Done, Missed>) -> (Facts<'_>, Option<Failure>) {
    let mut facts = Facts::of(item);
    let missed = |outcome, failure: Failure| {
        let error = Some(failure.message.clone());
        (Facts { outcome, error, ..Facts::of(item) }, Some(failure))
    };
    match outcome {
        Ok(Done::Same(digest)) => facts.digest = Some(digest),
        Ok(Done::Copied(copied)) => {
            facts.digest = Some(copied.root.digest);
            facts.kept = copied.kept.iter().map(|kept| kept.tag.to_string()).collect();
            (facts.outcome, facts.bytes) = ("copied", copied.count(Put::Copied).1);
        }
        Ok(Done::Planned(digest, bytes)) => {
            facts.digest = Some(digest);
            (facts.outcome, facts.bytes) = ("planned", bytes);
        }
        Err(Missed::Refused(failure)) => return missed("refused", failure),
        Err(Missed::Failed(failure)) => return missed("failed", failure),
    }
    (facts, None)
}

fn words(facts: &Facts<'_>) -> String {
    let Facts { from, to, outcome, bytes, error, .. } = facts;
    match (error, *outcome) {
        (Some(error), _) => format!("{outcome} {from} -> {to}: {error}"),
        (None, "same") => format!("{outcome} {from} -> {to}"),
        (None, _) => format!("{outcome} {from} -> {to} ({})", output::bytes(*bytes)),
    }
}
