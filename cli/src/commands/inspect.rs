use clap::Args;
use ocikit::spec::History;
use ocikit::{Annotations, FormatFacts, Inspection, Location, Platform, Root, SourceExt};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::inside::{self, lazy_formats};
use crate::output::{self, Lines};

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
        let mut root = session.open(&location).await?;
        if self.config {
            return context.output.bytes(&inside::config(root, self.platform.as_ref()).await?);
        }
        if let Some(platform) = &self.platform {
            root = root.for_platform(platform).await?;
        }
        context.output.bytes(&root.source().read(root.descriptor()).await?)
    }

    /// Prints the opened images.
    async fn each(&self, context: &Context, roots: Vec<(Location, Root)>) -> Result {
        let mut images = Vec::new();
        for (location, mut root) in roots {
            if let Some(platform) = &self.platform {
                root = root.for_platform(platform).await?;
            }
            let mut inspection = ocikit::inspect(&root).await?;
            inspection.add_formats(&root, &*lazy_formats()).await?;
            if self.sizes {
                inspection.measure(&root).await?;
            }
            images.push(InspectedImage { location: location.to_string(), inspection });
        }
        let lines = || {
            let mut lines = Lines::default();
            for (position, image) in images.iter().enumerate() {
                if position > 0 {
                    lines.push("");
                }
                lines.push(&image.location);
                describe(&image.inspection, 1, &mut lines);
            }
            lines
        };
        match &images[..] {
            [image] => context.output.result(&image.inspection, lines),
            _ => context.output.result(&InspectedImages { images: &images }, lines),
        }
    }
}

/// The output for several images of a location.
#[derive(Serialize)]
struct InspectedImages<'a> {
    images: &'a [InspectedImage],
}

#[derive(Serialize)]
struct InspectedImage {
    location: String,
    #[serde(flatten)]
    inspection: Inspection,
}

fn describe(inspection: &Inspection, depth: usize, lines: &mut Lines) {
    let mut line = |depth: usize, key: &str, value: &str| {
        lines.push(format!("{:indent$}{key:<width$} {value}", "", indent = 2 * depth, width = 12));
    };
    line(depth, "kind", &inspection.kind);
    line(depth, "digest", &inspection.digest.to_string());
    line(depth, "media type", inspection.media_type.as_str());
    if let Some(artifact_type) = &inspection.artifact_type {
        line(depth, "artifact", artifact_type.as_str());
    }
    if let Some(platform) = &inspection.platform {
        line(depth, "platform", &platform.to_string());
    }
    if let Some(size) = inspection.total_size {
        let beyond = inspection.total_uncompressed_size.map(|size| format!(", {} decompressed", output::bytes(size)));
        let (size, beyond) = (output::bytes(size), beyond.unwrap_or_default());
        line(depth, "size", &format!("{size} in {} layers{beyond}", inspection.layers.len()));
    }
    if let Some(subject) = &inspection.subject {
        line(depth, "subject", &subject.to_string());
    }
    if let Some(attests) = &inspection.attests {
        line(depth, "attests", attests);
    }
    for predicate in &inspection.predicate_types {
        line(depth, "predicate", predicate);
    }
    if let Some(missing) = &inspection.missing {
        line(depth, "missing", missing);
    }
    if let Some(config) = inspection.config.as_ref().filter(|_| depth == 1) {
        line(depth, "config", &config.digest.to_string());
        let execution = &config.execution;
        for (key, value) in [
            ("created", config.created.clone()),
            ("author", config.author.clone()),
            ("user", execution.user.clone()),
            ("directory", execution.working_dir.clone()),
            ("entrypoint", joined(&execution.entrypoint)),
            ("command", joined(&execution.cmd)),
            ("ports", joined(&execution.exposed_ports)),
            ("volumes", joined(&execution.volumes)),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line(depth, key, &value);
            }
        }
        execution.env.iter().for_each(|variable| line(depth, "environment", variable));
        execution.labels.iter().for_each(|(key, value)| line(depth, "label", &format!("{key}={value}")));
    }
    let mut annotations = |key: &str, annotations: &Annotations| {
        annotations.iter().for_each(|(name, value)| line(depth, key, &format!("{name}={value}")));
    };
    annotations("annotation", &inspection.annotations);
    annotations("descriptor", &inspection.descriptor_annotations);
    for layer in inspection.layers.iter().filter(|_| depth == 1) {
        let beyond = layer.uncompressed_size.map(|size| format!(", {} decompressed,", output::bytes(size)));
        let (size, beyond) = (output::bytes(layer.size), beyond.unwrap_or_default());
        let format = layer.format.as_ref().map(format_words).unwrap_or_default();
        line(depth, "layer", &format!("{} {size}{beyond} {}{format}", layer.digest, layer.media_type));
    }
    if let Some(formats) = stated_formats(inspection).filter(|_| depth > 1) {
        line(depth, "formats", &formats);
    }
    for step in inspection.config.iter().filter(|_| depth == 1).flat_map(|config| &config.history) {
        line(depth, "history", &history_line(step));
    }
    for manifest in &inspection.manifests {
        lines.push("");
        describe(manifest, depth + 1, lines);
    }
}

/// Returns how many layers of an image have which format; `None` if all are plain.
fn stated_formats(inspection: &Inspection) -> Option<String> {
    const PLAIN: &str = "plain";
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for layer in &inspection.layers {
        let name = layer.format.as_ref().map_or(PLAIN, |format| &format.name);
        match counts.iter_mut().find(|(found, _)| *found == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let words = || counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    counts.iter().any(|(name, _)| *name != PLAIN).then(words)
}

/// Returns the format of a layer, and the size of its table.
fn format_words(format: &FormatFacts) -> String {
    let name = &format.name;
    if let Some(problem) = &format.problem {
        return format!(", not {name} as its annotations say: {problem}");
    }
    let table = format.table_size.map(|size| format!(", table of {}", output::bytes(size))).unwrap_or_default();
    let files = format.files.map(|files| format!(", {files} files")).unwrap_or_default();
    format!(", {name}{table}{files}")
}

/// Returns a step of the history on one line, cut after 100 characters. The JSON output has the full text.
fn history_line(step: &History) -> String {
    const MAX_STEP_CHARS: usize = 100;
    let words = step.created_by.as_deref().or(step.comment.as_deref()).unwrap_or_default();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = words.char_indices().nth(MAX_STEP_CHARS).map(|(end, _)| format!("{}…", &words[..end]));
    let empty = if step.empty_layer { ", no layer" } else { "" };
    format!("{}{empty}", cut.unwrap_or(words))
}

fn joined(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}
