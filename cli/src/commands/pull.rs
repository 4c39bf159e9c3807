use std::path::PathBuf;

use clap::Args;
use ocikit::{Location, Reference};

use crate::archive::Archive;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::transfer::{Named, Transfer, copy_several, copy_to_all};

/// Pull images from registries into an archive or a layout
///
/// Every platform is pulled and every byte kept. Prints where each image is and its digest.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The images
    #[arg(required = true)]
    reference: Vec<Reference>,
    /// Where to: a name that ends in `.tar` is an archive, any other a layout, `-` standard output. NAME.tar if not given
    #[arg(long, short, value_name = "LOCATION", value_parser = Location::parse_path)]
    output: Option<Location>,
    #[command(flatten)]
    transfer: Transfer,
    #[command(flatten)]
    archive: Archive,
}

impl Pull {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let output = match (&self.output, &self.reference[..]) {
            (Some(output), _) => context.expand_output(output),
            (None, [reference]) => default_output(reference),
            (None, _) => return Err(Failure::usage("several images need --output to say where they go")),
        };
        if let Location::Registry(reference) = &output {
            return Err(Failure::usage(format_args!("{reference} is a registry reference, not a file")).hint(
                "a directory is written with `./`, an archive ends in `.tar`; for a registry use `ocikit copy`",
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

/// The last part of the repository, as an archive in the current directory.
fn default_output(reference: &Reference) -> Location {
    let path = reference.repository().path();
    let name = path.rsplit('/').next().unwrap_or(path);
    Location::Path { path: PathBuf::from(format!("{name}.tar")), name: ocikit::Name::Only }
}
