use std::path::PathBuf;

use clap::Args;
use ocikit::{Location, Reference};

use crate::archive::ArchiveArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::transfer::{Named, TransferArguments, copy_several, copy_to_all};

const EXAMPLES: &str = "\
Examples:
  ocikit pull ghcr.io/acme/app:1
  ocikit pull ghcr.io/acme/app:1 -o image.tar.gz
  ocikit pull --platform linux/arm64 alpine:3.22 -o ./alpine
  ocikit pull alpine:3.22 busybox:1.37 -o images.tar";

/// Pull images from registries into an archive or a layout
///
/// Pulls every platform and keeps every byte. Prints the location and the digest of each image.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pull {
    /// Images to pull
    #[arg(required = true)]
    reference: Vec<Reference>,
    /// Write to this archive or layout; default: NAME.tar
    ///
    /// A name that ends in `.tar`, `.tar.gz`, `.tgz` or `.tar.zst` is an archive, any other name is a layout, and `-` is
    /// standard output. The NAME of the default is the last part of the repository.
    #[arg(long, short, value_name = "LOCATION", value_parser = Location::parse_path)]
    output: Option<Location>,
    #[command(flatten)]
    transfer: TransferArguments,
    #[command(flatten)]
    archive: ArchiveArguments,
}

impl Pull {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let output = match (&self.output, &self.reference[..]) {
            (Some(output), _) => context.expand_output(output),
            (None, [reference]) => default_output(reference),
            (None, _) => return Err(Failure::usage("cannot pull several images without --output")),
        };
        if let Some(reference) = output.reference() {
            return Err(Failure::usage(format_args!(
                "cannot pull to {reference}: it is a registry reference, not a file"
            ))
            .hint(
                "write a directory as `./NAME` and an archive as `NAME.tar`; to copy to a registry, use `ocikit copy`",
            ));
        }
        let sources: Vec<_> = self.reference.iter().cloned().map(Location::Registry).collect();
        let session =
            context.session_with(&sources.iter().collect::<Vec<_>>(), self.transfer.options(self.archive.options()))?;
        if let [source] = &sources[..] {
            return copy_to_all(context, &session, source, &[output], &self.transfer).await;
        }
        let images = self.reference.iter().map(Named::of_reference).collect();
        copy_several(context, &session, images, &output, &self.transfer).await
    }
}

/// Returns the default output: an archive in the current directory, named by the last part of the repository.
fn default_output(reference: &Reference) -> Location {
    let path = reference.repository().path();
    let name = path.rsplit('/').next().unwrap_or(path);
    Location::Path { path: PathBuf::from(format!("{name}.tar")), name: ocikit::Name::Only }
}
