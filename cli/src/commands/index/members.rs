//! The images that become entries of an index, as arguments of `index create` and `index add`.

use clap::Args;
use clap::builder::{PossibleValue, TypedValueParser};
use ocikit::image::Need;
use ocikit::{
    Annotations, ComposeOptions, Composed, Descriptor, Error, IndexFormat, IndexSource, Location, OnDuplicate,
    Platform, Referrers, SessionOptions,
};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;
use crate::values::{key_value, one_of};

#[derive(Debug, Args)]
pub(super) struct MemberArguments {
    /// Take only this platform from a source that is an index; repeatable
    ///
    /// The attestation manifests of the selected images are taken too.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", help_heading = "Entries")]
    platform: Vec<Platform>,
    /// Use this platform instead of that of the config; once per source
    ///
    /// Given once, it applies to the only source. Given several times, the first one applies to the first source, and so
    /// on.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", help_heading = "Entries", conflicts_with = "platform")]
    set_platform: Vec<Platform>,
    /// Add the entries of a source that is an index instead of the index
    #[arg(long, help_heading = "Entries")]
    flatten: bool,
    /// What to do with two entries for one platform or with one digest
    #[arg(long, value_parser = duplicate(), value_name = "ACTION", default_value = "refuse", help_heading = "Entries")]
    on_duplicate: OnDuplicate,
    /// Set an annotation of the index; repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,
    /// Set an annotation of the new entries; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Entries")]
    entry_annotation: Vec<(String, String)>,
    /// Format of the index
    ///
    /// Default: a Docker manifest list if all entries are Docker manifests and nothing else needs an OCI index; `index add`
    /// keeps the format.
    #[arg(long, value_name = "FORMAT", value_parser = one_of([("oci", IndexFormat::Oci), ("docker", IndexFormat::Docker)]))]
    format: Option<IndexFormat>,
    /// Do not copy signatures and other referrers of the sources
    #[arg(long)]
    no_referrers: bool,
}

fn duplicate() -> impl TypedValueParser<Value = OnDuplicate> {
    one_of([
        (PossibleValue::new("refuse").help("Fail"), OnDuplicate::Refuse),
        (PossibleValue::new("replace").help("Replace the earlier entry"), OnDuplicate::Replace),
        (PossibleValue::new("keep").help("List both"), OnDuplicate::Keep),
    ])
}

impl MemberArguments {
    /// Returns the sources with their platforms.
    pub(super) fn sources(&self, locations: &[Location]) -> Result<Vec<IndexSource>> {
        if !self.set_platform.is_empty() && self.set_platform.len() != locations.len() {
            let counts = format!("{} sources and {} platforms", locations.len(), self.set_platform.len());
            return Err(Failure::usage(format_args!("cannot set platforms: there are {counts}"))
                .hint("add `--set-platform` once for each source"));
        }
        let source = |(position, location): (usize, &Location)| {
            let mut source = IndexSource::new(location.clone());
            source.platforms.clone_from(&self.platform);
            source.platform = self.set_platform.get(position).cloned();
            source.annotations = self.entry_annotation.iter().cloned().collect();
            source
        };
        Ok(locations.iter().enumerate().map(source).collect())
    }

    pub(super) fn options(&self) -> ComposeOptions {
        let mut options = ComposeOptions::default();
        options.flatten = self.flatten;
        options.annotations = self.annotation.iter().cloned().collect::<Annotations>();
        options.on_duplicate = self.on_duplicate;
        options.format = self.format;
        options
    }

    /// Returns session options with these arguments applied.
    pub(super) fn session(&self, options: SessionOptions) -> SessionOptions {
        let referrers = if self.no_referrers { Referrers::None } else { Referrers::All };
        options.referrers(referrers)
    }
}

/// Adds the flags that solve a problem with an entry to an error.
pub(super) fn explain(error: Error) -> Failure {
    let hint = match &error {
        Error::Exists { .. } => Some("add `--on-duplicate replace` or `--on-duplicate keep`"),
        Error::Unmet { need: Need::EntryPlatform, .. } => Some("add `--set-platform OS/ARCH`, once for each source"),
        Error::Unmet { need: Need::OciIndex, .. } => Some("add `--format oci`"),
        _ => None,
    };
    Failure::from(error).hint_if(hint)
}

/// Says which attestation manifests were removed, and which entries are indexes.
pub(super) fn say_notes(context: &Context, composed: &Composed) {
    let mut lines = Lines::default();
    for entry in &composed.removed {
        let what = if entry.is_attestation() { "removed the attestation manifest" } else { "removed the entry" };
        lines.push(format!("{what} {}", summary(entry)));
    }
    for entry in composed.added.iter().filter(|entry| entry.media_type.is_index()) {
        lines.push(format!("note: the entry {} is an index; --flatten adds its entries instead", entry.digest));
    }
    context.output.say(lines);
}

/// Returns the digest and the platform of an entry.
pub(super) fn summary(entry: &Descriptor) -> String {
    match &entry.platform {
        Some(platform) if !platform.is_unknown() => format!("{} ({platform})", entry.digest),
        _ => entry.digest.to_string(),
    }
}
