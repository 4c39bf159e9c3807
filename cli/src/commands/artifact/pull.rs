use std::path::PathBuf;

use clap::Args;
use ocikit::image::Need;
use ocikit::{Error, Location, Platform, PullOptions, PulledFile, SourceExt};
use serde_json::{Value, json};

use super::push::artifact_type;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::{Lines, without_nulls};

const EXAMPLES: &str = "\
Examples:
  ocikit artifact pull ghcr.io/acme/docs:1 -o docs
  ocikit artifact pull --overwrite oci:artifacts:policy
  ocikit artifact pull --config Chart.json ghcr.io/acme/chart:1 -o charts";

/// Pull the files and directories of an artifact
///
/// Every file is complete and verified before the first one appears. Existing files are kept, and titles that lead out of the
/// directory are refused. Prints the path of each file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Pull {
    /// Artifact to pull
    location: Location,
    /// Write files to this directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Replace existing files and directories
    #[arg(long)]
    overwrite: bool,
    /// Write the config to this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Pull the artifact for this platform from an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Pull {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let mut options = PullOptions::default();
        options.overwrite = self.overwrite;
        let pulled = session.pull_files(&location, self.platform.as_ref(), &self.output, &options).await;
        let (root, pulled) = pulled.map_err(explain)?;
        if let Some(path) = &self.config {
            let document = root.document();
            let config = document.as_ref().and_then(|document| match document {
                ocikit::spec::Document::Manifest(manifest) => manifest.config(),
                ocikit::spec::Document::Index(_) => None,
            });
            let none = || Failure::new(Code::Missing, format_args!("cannot write the config: {location} has none"));
            root.source().open(config.ok_or_else(none)?).await?.save(path).await?;
        }
        if pulled.files.is_empty() && !pulled.untitled.is_empty() && self.config.is_none() {
            let why = "no layer has an `org.opencontainers.image.title`, which names its file";
            let hint =
                format!("`ocikit manifest get {0}` lists the layers, `ocikit copy {0} LOCATION` copies them", location);
            return Err(Failure::new(Code::Missing, format_args!("cannot pull {location}: {why}")).hint(hint));
        }
        for layer in &pulled.untitled {
            let what = format!("skipped {}, which has no title", layer.digest);
            context.output.say(format!("note: {what}; `ocikit blob get` reads it, `ocikit copy` copies the artifact"));
        }
        let result = without_nulls(json!({
            "location": location.to_string(),
            "digest": root.digest(),
            "artifactType": artifact_type(&root),
            "files": pulled.files.iter().map(described).collect::<Vec<_>>(),
        }));
        let path = |file: &PulledFile| file.path.display().to_string();
        context.output.result(&result, || pulled.files.iter().map(path).collect::<Lines>())
    }
}

/// Returns a file as it is printed with `--json`.
fn described(file: &PulledFile) -> Value {
    json!({
        "path": file.path.display().to_string(),
        "title": file.title,
        "digest": file.descriptor.digest,
        "mediaType": file.descriptor.media_type,
        "size": file.descriptor.size,
        "isDirectory": file.is_directory,
    })
}

/// Adds the flag that solves the problem to an error.
fn explain(error: Error) -> Failure {
    let hint = match &error {
        Error::Exists { .. } => Some("add `--overwrite`, or choose another directory with `--output`"),
        Error::Unmet { need: Need::IndexEntry, .. } => {
            Some("choose an entry of the index with `--platform`, or by its digest")
        }
        _ => None,
    };
    Failure::from(error).hint_if(hint)
}
