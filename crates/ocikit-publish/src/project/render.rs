//! The graph of a project as text, DOT and SVG.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use super::dockerfile::Via;
use super::model::{Project, ProjectImage};
use super::place::FilePlace;
use crate::report::html::text as escaped;

/// The graph of a project for JSON.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GraphOutput {
    /// The images, each after those that it depends on.
    pub images: Vec<GraphImage>,
}

/// An image in the graph.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GraphImage {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The directory, relative to the project.
    pub directory: String,
    /// The stage, from 0.
    pub stage: usize,
    /// The platforms of its own; left out if the defaults apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// The references to other images of the project.
    pub dependencies: Vec<GraphDependency>,
    /// The other images that it is built from.
    pub bases: Vec<String>,
}

/// A reference in the graph.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GraphDependency {
    /// The image that it refers to.
    pub name: String,
    /// How it refers to it.
    pub via: Via,
    /// The place.
    pub place: FilePlace,
    /// The tag of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Project {
    /// Returns the graph for JSON.
    pub fn graph(&self) -> GraphOutput {
        let image = |image: &ProjectImage| GraphImage {
            name: image.name.clone(),
            version: image.version.value.clone(),
            directory: image.directory.display().to_string(),
            stage: image.stage,
            platforms: image.platforms.as_ref().map(|all| all.iter().map(ToString::to_string).collect()),
            dependencies: image
                .dependencies
                .iter()
                .map(|dependency| GraphDependency {
                    name: self.images[dependency.image].name.clone(),
                    via: dependency.via,
                    place: dependency.place.clone(),
                    tag: dependency.tag.clone(),
                })
                .collect(),
            bases: image.bases.clone(),
        };
        GraphOutput { images: self.images.iter().map(image).collect() }
    }

    /// Returns the graph as lines: each image with its version and what it depends on, stage by stage.
    pub fn graph_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for stage in 0..self.stages() {
            lines.push(format!("stage {stage}"));
            for image in self.images.iter().filter(|image| image.stage == stage) {
                let parents: Vec<_> = self.parent_names(image).into_iter().collect();
                let from = if parents.is_empty() { String::new() } else { format!(" ← {}", parents.join(", ")) };
                lines.push(format!("  {} {}{from}", image.name, image.version.value));
            }
        }
        lines
    }

    fn parent_names<'a>(&'a self, image: &ProjectImage) -> BTreeSet<&'a str> {
        image.parents().map(|parent| self.images[parent].name.as_str()).collect()
    }

    /// Returns the graph in the language of Graphviz, with an arrow from each image to those that are built from it.
    pub fn graph_dot(&self) -> String {
        let mut dot = String::from("digraph project {\n  rankdir=LR;\n  node [shape=box];\n");
        for image in &self.images {
            let (name, version) = (quoted(&image.name), quoted(&image.version.value));
            // Writing to a string does not fail.
            let _ = writeln!(dot, "  \"{name}\" [label=\"{name}\\n{version}\"];");
            for parent in self.parent_names(image) {
                let _ = writeln!(dot, "  \"{}\" -> \"{name}\";", quoted(parent));
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// Returns the graph as an SVG image: a column per stage, and a line from each image to those that are built from it.
    pub fn graph_svg(&self) -> String {
        let mut rows = vec![0usize; self.stages()];
        let mut places = Vec::with_capacity(self.images.len());
        for image in &self.images {
            places.push((
                image.stage * (BOX_WIDTH + COLUMN_GAP) + MARGIN,
                rows[image.stage] * (BOX_HEIGHT + ROW_GAP) + MARGIN,
            ));
            rows[image.stage] += 1;
        }
        let width = rows.len() * (BOX_WIDTH + COLUMN_GAP) + 2 * MARGIN - COLUMN_GAP.min(rows.len() * COLUMN_GAP);
        let height = rows.iter().max().copied().unwrap_or_default() * (BOX_HEIGHT + ROW_GAP) + 2 * MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        );
        for (image, (x, y)) in self.images.iter().zip(&places) {
            for parent in image.parents().collect::<BTreeSet<_>>() {
                let (from_x, from_y) = (places[parent].0 + BOX_WIDTH, places[parent].1 + BOX_HEIGHT / 2);
                let (to_y, bend) = (y + BOX_HEIGHT / 2, COLUMN_GAP / 2);
                let _ = writeln!(
                    svg,
                    "<path d=\"M{from_x} {from_y} C{} {from_y} {} {to_y} {x} {to_y}\" fill=\"none\" stroke=\"#888\"/>",
                    from_x + bend,
                    x.saturating_sub(bend),
                );
            }
        }
        for (image, (x, y)) in self.images.iter().zip(&places) {
            let (name, version) = (escaped(&image.name), escaped(&image.version.value));
            let _ = writeln!(
                svg,
                "<g><title>{name} {version}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"4\" \
                 fill=\"#fff\" stroke=\"#333\"/><text x=\"{}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\" fill=\"#666\">{}</text></g>",
                x + 8,
                y + 16,
                escaped(&shortened(&image.name)),
                x + 8,
                y + 31,
                escaped(&shortened(&image.version.value)),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Sizes in the SVG image, in pixels.
const BOX_WIDTH: usize = 180;
const BOX_HEIGHT: usize = 40;
const COLUMN_GAP: usize = 80;
const ROW_GAP: usize = 16;
const MARGIN: usize = 16;

/// The letters of a name that fit into a box.
const MAX_NAME_CHARS: usize = 25;

fn shortened(text: &str) -> String {
    match text.chars().count() > MAX_NAME_CHARS {
        true => text.chars().take(MAX_NAME_CHARS - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
