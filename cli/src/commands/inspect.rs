use bytes::Bytes;
use clap::Args;
use ocikit::spec::History;
use ocikit::{Annotations, Error, Inspection, Location, Platform, Root, SourceExt};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::output::{self, Lines};

/// Show what there is to know about an image, an index or an artifact
///
/// Annotations of the index, of its entries and of the manifests are always shown; of an image in an index what else there
/// is with --platform, or with --json.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// What to look at
    location: Location,
    /// Print the exact bytes of the manifest or index
    #[arg(long, conflicts_with = "config")]
    raw: bool,
    /// Print the exact bytes of the image's config
    #[arg(long)]
    config: bool,
    /// Look at the image for this platform instead of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Also say how large the layers are decompressed, which takes reading them
    #[arg(long, conflicts_with_all = ["raw", "config"])]
    sizes: bool,
}

impl Inspect {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        if !self.config && !self.raw {
            return self.each(context, session.open_each(&location).await?).await;
        }
        let mut root = session.open(&location).await?;
        if self.config {
            return context.output.bytes(&config(root, self.platform.as_ref()).await?);
        }
        if let Some(platform) = &self.platform {
            root = for_platform(root, platform).await?;
        }
        context.output.bytes(&root.source().read(root.descriptor()).await?)
    }

    /// Shows what was opened: one image, or all of a place.
    async fn each(&self, context: &Context, roots: Vec<(Location, Root)>) -> Result {
        let mut images = Vec::new();
        for (location, mut root) in roots {
            if let Some(platform) = &self.platform {
                root = for_platform(root, platform).await?;
            }
            let mut facts = ocikit::inspect(&root).await?;
            if self.sizes {
                facts.measure(&root).await?;
            }
            images.push(ImageFacts { location: location.to_string(), facts });
        }
        let lines = || {
            let mut lines = Lines::default();
            for (position, image) in images.iter().enumerate() {
                if position > 0 {
                    lines.push("");
                }
                lines.push(&image.location);
                describe(&image.facts, 1, &mut lines);
            }
            lines
        };
        match &images[..] {
            [image] => context.output.facts(&image.facts, lines),
            _ => context.output.facts(&Images { images: &images }, lines),
        }
    }
}

/// All images of a place.
#[derive(Serialize)]
struct Images<'a> {
    images: &'a [ImageFacts],
}

#[derive(Serialize)]
struct ImageFacts {
    location: String,
    #[serde(flatten)]
    facts: Inspection,
}

/// The exact bytes of a config. It belongs to one platform: of an index it is that of this machine if none is given.
pub(crate) async fn config(root: Root, platform: Option<&Platform>) -> Result<Bytes> {
    let root = match (platform, &root) {
        (Some(platform), _) => for_platform(root, platform).await?,
        (None, Root::Index(_)) => for_platform(root, &Platform::of_this_machine()).await?,
        (None, _) => root,
    };
    let document = root.document();
    let config = match &document {
        Some(ocikit::spec::Document::Manifest(manifest)) => manifest.config(),
        _ => None,
    };
    let config = config.ok_or_else(|| Error::not_found("config", root.source()))?;
    Ok(root.source().read(config).await?)
}

/// The image for a platform: of an index the entry, of an image itself if it is for that platform.
pub(crate) async fn for_platform(root: Root, platform: &Platform) -> Result<Root> {
    let missing =
        |found: Option<Platform>| Error::no_platform(std::slice::from_ref(platform), found, root.source()).into();
    match &root {
        Root::Index(index) => Ok(Root::Image(index.image_for(platform).await?)),
        Root::Image(image) => {
            let config = image.config().await?;
            match config.platform().is_some_and(|found| platform.accepts(found)) {
                true => Ok(root),
                false => Err(missing(config.platform().cloned())),
            }
        }
        Root::Other(_) => Err(missing(None)),
    }
}

fn describe(facts: &Inspection, depth: usize, lines: &mut Lines) {
    let mut line = |depth: usize, key: &str, value: &str| {
        lines.push(format!("{:indent$}{key:<width$} {value}", "", indent = 2 * depth, width = 12));
    };
    line(depth, "kind", &facts.kind);
    line(depth, "digest", &facts.digest.to_string());
    line(depth, "media type", facts.media_type.as_str());
    if let Some(artifact_type) = &facts.artifact_type {
        line(depth, "artifact", artifact_type.as_str());
    }
    if let Some(platform) = &facts.platform {
        line(depth, "platform", &platform.to_string());
    }
    if let Some(size) = facts.total_size {
        let beyond = facts.total_uncompressed_size.map(|size| format!(", {} decompressed", output::bytes(size)));
        let (size, beyond) = (output::bytes(size), beyond.unwrap_or_default());
        line(depth, "size", &format!("{size} in {} layers{beyond}", facts.layers.len()));
    }
    if let Some(subject) = &facts.subject {
        line(depth, "subject", &subject.to_string());
    }
    if let Some(attests) = &facts.attests {
        line(depth, "attests", attests);
    }
    for predicate in &facts.predicate_types {
        line(depth, "predicate", predicate);
    }
    if let Some(missing) = &facts.missing {
        line(depth, "missing", missing);
    }
    if let Some(config) = facts.config.as_ref().filter(|_| depth == 1) {
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
    annotations("annotation", &facts.annotations);
    annotations("listed with", &facts.descriptor_annotations);
    for layer in facts.layers.iter().filter(|_| depth == 1) {
        let beyond = layer.uncompressed_size.map(|size| format!(", {} decompressed,", output::bytes(size)));
        let (size, beyond) = (output::bytes(layer.size), beyond.unwrap_or_default());
        line(depth, "layer", &format!("{} {size}{beyond} {}", layer.digest, layer.media_type));
    }
    for step in facts.config.iter().filter(|_| depth == 1).flat_map(|config| &config.history) {
        line(depth, "history", &told(step));
    }
    for manifest in &facts.manifests {
        lines.push("");
        describe(manifest, depth + 1, lines);
    }
}

/// A step of the history on one line; the whole of a long one is in the JSON.
fn told(step: &History) -> String {
    const MOST: usize = 100;
    let words = step.created_by.as_deref().or(step.comment.as_deref()).unwrap_or_default();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = words.char_indices().nth(MOST).map(|(end, _)| format!("{}…", &words[..end]));
    let empty = if step.empty_layer { ", no layer" } else { "" };
    format!("{}{empty}", cut.unwrap_or(words))
}

fn joined(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}
