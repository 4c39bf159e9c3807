mod config;
mod healthcheck;

use clap::Args;
use ocikit::image::{CopyKey, EditOptions, edit_images};
use ocikit::{AnnotateOn, AnnotateOptions, Location};

use self::config::ConfigArguments;
use self::healthcheck::HealthcheckArguments;
use super::annotate::DOCUMENTS;
use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::values::{key_value, one_of};

const EXAMPLES: &str = "\
Examples:
  ocikit edit --label team=web --env LANG=C.UTF-8 --user 1000 ghcr.io/acme/app:1
  ocikit edit --remove env --env PATH=/bin --entrypoint /app --cmd serve --cmd --verbose app.tar
  ocikit edit --label-to-annotation --promote org.opencontainers.image.revision app.tar
  ocikit edit --platform linux/arm64 --os-version 6.1 -o edited.tar app.tar";

/// Change annotations and config of an image, for one or all platforms
///
/// Changes a local archive or layout in place in constant time, and moves a tag in a registry; no layer is transferred.
/// Fields are removed first, then set, so that `--remove env --env A=1` replaces all variables. Everything else is kept,
/// including unknown fields. Values are taken byte for byte. Prints the new digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Edit {
    /// Image to change
    location: Location,
    #[command(flatten)]
    annotations: AnnotationArguments,
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    healthcheck: HealthcheckArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
    /// Point referrers other than signatures to the new digest
    ///
    /// Each gets a copy with another subject. Signatures and in-toto attestations name the old digest in what they contain;
    /// they are left as they are and counted.
    #[arg(long, conflicts_with = "output")]
    update_referrers: bool,
}

#[derive(Debug, Args)]
struct AnnotationArguments {
    /// Set this annotation; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,
    /// Remove this annotation; repeatable
    #[arg(long, value_name = "KEY")]
    remove_annotation: Vec<String>,
    /// Annotate these documents; default: manifests and their index
    #[arg(long, value_name = "DOCUMENTS", value_parser = one_of(DOCUMENTS))]
    on: Option<AnnotateOn>,
    /// Copy a label to an annotation; without a key, all labels
    #[arg(long, value_name = "KEY[=NEW]", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = copy_key)]
    label_to_annotation: Vec<CopyKey>,
    /// Copy an annotation to a label; without a key, all annotations
    #[arg(long, value_name = "KEY[=NEW]", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = copy_key)]
    annotation_to_label: Vec<CopyKey>,
    /// Copy this annotation from the manifests to the index; repeatable
    #[arg(long, value_name = "KEY")]
    promote: Vec<String>,
    /// Remove the subject of the image
    #[arg(long)]
    remove_subject: bool,
}

impl Edit {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let options = self.options(context)?;
        if options.is_empty() {
            return Err(Failure::usage("cannot edit: give a flag that changes something, such as --label KEY=VALUE"));
        }
        let change = self.change.prepare(context, &self.location, &[])?;
        let changed = change.make(self.platforms.is_partial(), async |root| edit_images(&root, &options).await).await?;
        change.report_with(&changed, self.update_referrers).await
    }

    fn options(&self, context: &Context) -> Result<EditOptions> {
        let AnnotationArguments { annotation, remove_annotation, on, promote, remove_subject, .. } = &self.annotations;
        let mut options = EditOptions::default();
        options.annotations = AnnotateOptions::default()
            .set(annotation.clone())
            .remove(remove_annotation.clone())
            .on(on.unwrap_or_default())
            .platforms(self.platforms.platform.clone());
        options.labels_to_annotations.clone_from(&self.annotations.label_to_annotation);
        options.annotations_to_labels.clone_from(&self.annotations.annotation_to_label);
        options.promote.clone_from(promote);
        options.remove_subject = *remove_subject;
        options.config = self.config.changes(context)?;
        options.config.extend(self.healthcheck.change());
        Ok(options)
    }
}

/// Parses KEY or KEY=NEW. No text selects all keys.
fn copy_key(text: &str) -> Result<CopyKey, std::convert::Infallible> {
    let (from, to) = text.split_once('=').unwrap_or((text, text));
    Ok(match text.is_empty() {
        true => CopyKey::All,
        false => CopyKey::One { from: from.to_owned(), to: to.to_owned() },
    })
}
