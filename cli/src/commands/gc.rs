use std::time::SystemTime;

use clap::Args;
use ocikit::{Collected, Error, GcOptions, Location, Removed};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{self, Lines, without_nulls};

const EXAMPLES: &str = "\
Examples:
  ocikit gc --dry-run app.tar
  ocikit gc oci:layout";

/// Remove blobs that no image uses from an archive or a layout
///
/// Keeps everything that `index.json` references, including referrers and their subjects. In a layout, removes only
/// regular files below `blobs` that are named by a digest, and old temporary files of ocikit; symlinks are not
/// followed. An archive is rewritten with its remaining bytes unchanged and replaced in one step.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gc {
    /// Archive or layout
    location: Location,
    /// Print what would be removed without removing anything
    #[arg(long)]
    dry_run: bool,
    /// Accept an index with missing manifests, as after `copy --sparse`
    #[arg(long)]
    sparse: bool,
}

impl Gc {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        if location.path().is_none() {
            return Err(Failure::usage("cannot collect garbage in a registry: name an archive or a layout"));
        }
        if location.name() != ocikit::Name::Only {
            return Err(Failure::usage("cannot collect garbage for one image: it needs the whole archive or layout")
                .hint("give the path without a tag or digest"));
        }
        let options = GcOptions::at(SystemTime::now()).dry_run(self.dry_run).sparse(self.sparse);
        let collected = context.session(&[&location])?.gc(&location, &options).await;
        let collected = collected.map_err(|error| match error {
            error @ Error::NotFound { .. } if !self.sparse => Failure::from(error).hint(
                "blobs of a missing manifest cannot be identified; if the index was copied for some platforms only, add --sparse",
            ),
            error => error.into(),
        })?;
        let described = |Removed { name, digest, bytes, .. }: &Removed| {
            without_nulls(json!({ "name": name, "digest": digest, "bytes": bytes }))
        };
        let result = json!({
            "location": location.to_string(),
            "removed": collected.removed.iter().map(described).collect::<Vec<_>>(),
            "freed": collected.freed,
            "kept": collected.kept,
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || words(&location, &collected, self.dry_run))
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
