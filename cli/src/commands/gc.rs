use std::time::SystemTime;

use clap::Args;
use ocikit::{Collected, Error, GcOptions, Location, Removed};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{self, Lines};

/// Remove from an archive or layout what none of its images needs
///
/// Keeps everything that `index.json` leads to, with referrers and their subjects. Of a directory only regular files named
/// by a digest below `blobs` are removed, and old temporary files of this program; symlinks are not followed. An archive is
/// written anew, byte for byte as far as it stays, and replaces the old one in one step.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// The archive or layout
    location: Location,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Accept that an index lists manifests that are missing, as after a copy of some platforms
    #[arg(long)]
    sparse: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    location: String,
    removed: Vec<RemovedFacts>,
    freed: u64,
    kept: usize,
    dry_run: bool,
}

#[derive(Serialize)]
struct RemovedFacts {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<ocikit::Digest>,
    bytes: u64,
}

impl Gc {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        if location.path().is_none() {
            return Err(Failure::usage("garbage is collected in archives and layouts; a registry does so by itself"));
        }
        if location.name() != ocikit::Name::Only {
            return Err(Failure::usage("garbage is collected for an archive or layout as a whole")
                .hint("give its path without a tag or digest"));
        }
        let options = GcOptions { dry_run: self.dry_run, sparse: self.sparse, ..GcOptions::at(SystemTime::now()) };
        let collected = context.session(&[&location])?.gc(&location, &options).await;
        let collected = collected.map_err(|error| match error {
            error @ Error::NotFound { .. } if !self.sparse => Failure::from(error).hint(
                "what a missing manifest needs cannot be told; if its index was copied for some platforms only, add --sparse",
            ),
            error => error.into(),
        })?;
        let words = words(&location, &collected, self.dry_run);
        let removed = collected.removed.into_iter();
        let facts = Facts {
            location: location.to_string(),
            removed: removed.map(|Removed { name, digest, bytes }| RemovedFacts { name, digest, bytes }).collect(),
            freed: collected.freed,
            kept: collected.kept,
            dry_run: self.dry_run,
        };
        context.output.facts(&facts, || words)
    }
}

fn words(location: &Location, collected: &Collected, dry_run: bool) -> Lines {
    let line = |removed: &Removed| format!("{} ({})", removed.name, output::bytes(removed.bytes));
    let mut lines: Lines = collected.removed.iter().map(line).collect();
    let (freed, kept) = (output::bytes(collected.freed), collected.kept);
    let verb = if dry_run { "would be freed" } else { "freed" };
    lines.push(format!("{location}: {freed} {verb}, {kept} blobs kept"));
    lines
}
