use std::sync::Mutex;

use clap::{Args, ValueEnum};
use ocikit::Location;
use ocikit::image::{ConvertOptions, Dropped, Format, UnsupportedParts, convert};

use crate::change::ChangeArguments;
use crate::context::Context;
use crate::failure::Result;

const EXAMPLES: &str = "\
Examples:
  ocikit convert --to oci registry.example.com/app:1
  ocikit convert --to docker -o docker.tar app.tar
  ocikit convert --to docker --drop-unsupported ghcr.io/acme/app:1";

/// Convert an image between the formats of OCI and Docker
///
/// Applies to an index and all of its images. Configs and layers are the same blobs. Docker's format has no annotations: a warning lists those that are left out.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Convert {
    /// Image to convert
    location: Location,
    /// Format of the result
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: FormatName,
    /// Leave out attestations and subjects, which Docker's format lacks
    #[arg(long)]
    drop_unsupported: bool,
    #[command(flatten)]
    change: ChangeArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Oci,
    Docker,
}

impl Convert {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let mut options = ConvertOptions::default();
        options.to = match self.to {
            FormatName::Oci => Format::Oci,
            FormatName::Docker => Format::Docker,
        };
        if self.drop_unsupported {
            options.unsupported = UnsupportedParts::Drop;
        }
        let dropped = Mutex::new(Vec::new());
        let change = self.change.prepare(context, &self.location, &[])?;
        let changed = change
            .make(false, async |root| {
                let converted = convert(&root, &options).await?;
                if let Ok(mut dropped) = dropped.lock() {
                    dropped.clone_from(&converted.dropped);
                }
                Ok(converted)
            })
            .await?;
        for part in dropped.into_inner().unwrap_or_default() {
            context.output.say(format!("warning: {}", text(&part)));
        }
        change.report(&changed).await
    }
}

fn text(part: &Dropped) -> String {
    match part {
        Dropped::Annotations { document, keys } => {
            format!("left out {} annotations of {document}: {}", keys.len(), keys.join(", "))
        }
        Dropped::Subject { document } => format!("left out the subject of {document}"),
        Dropped::ArtifactType { document } => format!("left out the artifact type of {document}"),
        Dropped::Attestation { manifest } => format!("left out the attestation manifest {manifest}"),
        other => format!("left out a part of {}", other.document()),
    }
}
