use clap::{Args, ValueEnum};
use ocikit::image::orphans;
use ocikit::{AnnotateOn, AnnotateOptions, Location, Platform};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};

/// Change annotations of an image, of one platform or of all
///
/// A local archive or layout is changed where it is, at a cost that does not depend on its size; a tag in a registry is
/// moved. Prints the digest of the result. Signatures and other referrers apply to the old digest: says how many there are.
#[derive(Debug, Args)]
pub(crate) struct Annotate {
    /// The image
    location: Location,
    /// Annotations to set. Values are taken byte for byte
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Remove an annotation
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Where: the manifests and the index above them, if this is not given
    #[arg(long, value_enum)]
    on: Option<On>,
    /// Only the image for this platform; may be repeated
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<Platform>,
    /// Write the result there and leave the original as it is
    #[arg(long, short, value_name = "LOCATION")]
    output: Option<Location>,
    /// Remove signatures and other referrers that do not apply to the new digest
    #[arg(long, conflicts_with = "output")]
    drop_referrers: bool,
    /// Only print what the digest would be
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum On {
    Index,
    Manifests,
    Descriptors,
    All,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    location: String,
    before: ocikit::Digest,
    digest: ocikit::Digest,
    changed: bool,
    /// Signatures and other referrers that do not apply to the new digest.
    #[serde(skip_serializing_if = "is_zero")]
    orphaned_referrers: usize,
    /// How many of them were removed.
    #[serde(skip_serializing_if = "is_zero")]
    dropped_referrers: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Annotate {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        if self.set.is_empty() && self.remove.is_empty() {
            return Err(Failure::usage("nothing to change: give KEY=VALUE or --remove KEY"));
        }
        let location = context.expand(&self.location);
        let output = self.output.as_ref().map(|output| context.expand_output(output));
        let session = context.session(&[&location, output.as_ref().unwrap_or(&location)])?;
        let options = AnnotateOptions {
            set: self.set.clone(),
            remove: self.remove.clone(),
            on: match self.on {
                None => AnnotateOn::ManifestsAndIndex,
                Some(On::Index) => AnnotateOn::Index,
                Some(On::Manifests) => AnnotateOn::Manifests,
                Some(On::Descriptors) => AnnotateOn::Descriptors,
                Some(On::All) => AnnotateOn::All,
            },
            platforms: self.platform.clone(),
        };
        let (before, digest, orphans) = if self.dry_run || output.is_some() {
            let root = session.open(&location).await?;
            let after = ocikit::image::annotate(&root, &options).await?;
            if let Some(output) = output.as_ref().filter(|_| !self.dry_run) {
                crate::transfer::copy_out(&session, &after, &location, output).await?;
            }
            (root.digest(), after.digest(), orphans(&root, &after).await?)
        } else {
            let annotated = session.annotate(&location, &options).await?;
            (annotated.before, annotated.after.digest(), annotated.orphans)
        };
        let dropped = match self.drop_referrers && !self.dry_run {
            true => session.drop_referrers(&location, &orphans).await?,
            false => 0,
        };
        if orphans.len() > dropped {
            let what = "signatures or other referrers do not apply to the new digest";
            context.output.say(format!("warning: {} {what}", orphans.len() - dropped));
            if output.is_none() && !self.drop_referrers {
                context.output.say("hint: sign the new digest, and add --drop-referrers to remove the old referrers");
            }
        }
        if output.as_ref().is_some_and(crate::file::writes_to_stdout) {
            return Ok(());
        }
        let changed = digest != before;
        let location = output.as_ref().unwrap_or(&location).to_string();
        let facts =
            Facts { location, before, digest, changed, orphaned_referrers: orphans.len(), dropped_referrers: dropped };
        context.output.facts(&facts, || digest.to_string())
    }
}

/// The first `=` ends the key; whatever follows, other such signs included, is the value.
pub(crate) fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not of the form KEY=VALUE".to_owned()),
    }
}
