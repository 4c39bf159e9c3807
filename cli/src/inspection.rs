//! The lines of `inspect`.

use ocikit::spec::History;
use ocikit::{Annotations, FormatFacts, Inspection};

use crate::output::{self, Lines};

/// Adds the lines about an image or index, and the manifests below it.
pub(crate) fn describe(inspection: &Inspection, lines: &mut Lines) {
    describe_at(1, inspection, lines);
}

fn describe_at(depth: usize, inspection: &Inspection, lines: &mut Lines) {
    let mut line = |depth: usize, key: &str, value: &str| {
        lines.push(format!("{:indent$}{key:<width$} {value}", "", indent = 2 * depth, width = 12));
    };
    line(depth, "kind", &inspection.kind);
    line(depth, "digest", &inspection.digest.to_string());
    line(depth, "media type", inspection.media_type.as_str());
    let size = inspection.total_size.map(|size| {
        let beyond = inspection.total_uncompressed_size.map(|size| format!(", {} decompressed", output::bytes(size)));
        format!("{} in {} layers{}", output::bytes(size), inspection.layers.len(), beyond.unwrap_or_default())
    });
    for (key, value) in [
        ("artifact", inspection.artifact_type.as_ref().map(ToString::to_string)),
        ("platform", inspection.platform.as_ref().map(ToString::to_string)),
        ("size", size),
        ("subject", inspection.subject.as_ref().map(ToString::to_string)),
        ("attests", inspection.attests.clone()),
    ] {
        value.iter().for_each(|value| line(depth, key, value));
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
        describe_at(depth + 1, manifest, lines);
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
