use clap::Args;
use ocikit::spec::annotations;
use ocikit::{Descriptor, Location};
use serde_json::json;

use super::changed::open;
use crate::context::Context;
use crate::failure::Result;
use crate::output::{self, Lines};

const EXAMPLES: &str = "\
Examples:
  ocikit index list alpine:3.22
  ocikit index list --json app.tar";

/// List the entries of an index
///
/// Prints one line for each entry: digest, platform, media type and size. An attestation manifest is shown with the digest of
/// the image that it describes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct List {
    /// Index to list
    location: Location,
}

impl List {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let index = open(context, &context.session(&[&location])?, &location, "list").await?;
        let result = json!({
            "location": location.to_string(),
            "digest": index.digest(),
            "mediaType": index.descriptor().media_type,
            "manifests": index.manifests(),
        });
        context.output.result(&result, || index.manifests().iter().map(line).collect::<Lines>())
    }
}

fn line(entry: &Descriptor) -> String {
    let size = output::bytes(entry.size);
    let what = match (&entry.platform, entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST)) {
        (_, Some(image)) if entry.is_attestation() => format!("attestation of {image}"),
        (Some(platform), _) => platform.to_string(),
        (None, _) => entry.artifact_type.as_ref().map_or("-".to_owned(), ToString::to_string),
    };
    format!("{} {what} {} {size}", entry.digest, entry.media_type)
}
