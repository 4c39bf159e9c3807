use clap::Args;
use ocikit::{Location, Platform, Root, SourceExt};

use crate::context::Context;
use crate::failure::Result;
use crate::inside::{self, lazy_formats};
use crate::inspection::describe;
use crate::output::{Lines, LocatedImage};

const EXAMPLES: &str = "\
Examples:
  ocikit inspect app.tar
  ocikit inspect --platform linux/arm64 alpine:3.22
  ocikit inspect --raw ghcr.io/acme/app:1
  ocikit inspect --json oci:layout";

/// Show annotations, platforms, config and layers of an image or artifact
///
/// Shows the annotations of the index, of its descriptors and of the manifests. For an image in an index, `--platform`
/// and `--json` also show the config and the layers. For an archive or layout with several images, shows all of them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// Image, index or artifact to inspect
    location: Location,
    /// Print the exact bytes of the manifest or index
    #[arg(long, conflicts_with = "config")]
    raw: bool,
    /// Print the exact bytes of the config
    #[arg(long)]
    config: bool,
    /// Inspect the image for this platform instead of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Also show the decompressed size of each layer; reads all layers
    #[arg(long, conflicts_with_all = ["raw", "config"])]
    sizes: bool,
    /// Check whether the base image changed; exit code 5 if it did
    ///
    /// The annotations `org.opencontainers.image.base.name` and `.digest` name the base image and its digest.
    #[arg(long, conflicts_with_all = ["raw", "config", "sizes"])]
    check_base: bool,
}

impl Inspect {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        if self.check_base {
            return crate::base::check_base(context, &location, self.platform.as_ref()).await;
        }
        let session = context.session(&[&location])?;
        if !self.config && !self.raw {
            return self.each(context, session.open_each(&location).await?).await;
        }
        let root = session.open(&location).await?;
        if self.config {
            return context.output.bytes(&inside::config(root, self.platform.as_ref()).await?);
        }
        let root = inside::for_platform(root, self.platform.as_ref()).await?;
        context.output.bytes(&root.source().read(root.descriptor()).await?)
    }

    /// Prints the opened images.
    async fn each(&self, context: &Context, roots: Vec<(Location, Root)>) -> Result {
        let mut images = Vec::new();
        for (location, root) in roots {
            let root = inside::for_platform(root, self.platform.as_ref()).await?;
            let mut inspection = ocikit::inspect(&root).await?;
            inspection.add_formats(&root, &*lazy_formats()).await?;
            if self.sizes {
                inspection.measure(&root).await?;
            }
            images.push(LocatedImage { location: location.to_string(), facts: inspection });
        }
        let lines = || {
            let mut lines = Lines::default();
            for (position, image) in images.iter().enumerate() {
                if position > 0 {
                    lines.push("");
                }
                lines.push(&image.location);
                describe(&image.facts, &mut lines);
            }
            lines
        };
        context.output.images(&images, lines)
    }
}
