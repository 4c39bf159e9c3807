use clap::Args;
use ocikit::image::annotate_images;
use ocikit::{AnnotateOn, AnnotateOptions, Location};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::values::{key_value, one_of};

const EXAMPLES: &str = "\
Examples:
  ocikit annotate app.tar org.opencontainers.image.revision=6c22711
  ocikit annotate --on index ghcr.io/acme/app:1 team=web
  ocikit annotate --remove team --platform linux/amd64 oci:layout:1
  ocikit annotate -o annotated.tar app.tar team=web";

/// Change annotations of an image, for one platform or for all
///
/// Changes a local archive or layout in place in constant time, and moves a tag in a registry. Prints the new digest. Signatures and other referrers apply to the old digest; a warning says how many
/// there are.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Annotate {
    /// Image to annotate
    location: Location,
    /// Annotations to set; values are taken byte for byte
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Remove this annotation; repeatable
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Annotate these documents; default: manifests and their index
    #[arg(long, value_name = "DOCUMENTS", value_parser = one_of(DOCUMENTS))]
    on: Option<AnnotateOn>,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

/// The names of the documents to annotate.
pub(super) const DOCUMENTS: [(&str, AnnotateOn); 4] = [
    ("index", AnnotateOn::Index),
    ("manifests", AnnotateOn::Manifests),
    ("descriptors", AnnotateOn::Descriptors),
    ("all", AnnotateOn::All),
];

impl Annotate {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if self.set.is_empty() && self.remove.is_empty() {
            return Err(Failure::usage("cannot annotate: give KEY=VALUE or --remove KEY"));
        }
        let options = AnnotateOptions::default()
            .set(self.set.clone())
            .remove(self.remove.clone())
            .on(self.on.unwrap_or_default())
            .platforms(self.platforms.platform.clone());
        let change = self.change.prepare(context, &self.location, &[])?;
        let is_partial = !options.platforms.is_empty();
        change.run(is_partial, async |root| annotate_images(&root, &options).await).await
    }
}
