use clap::{Args, ValueEnum};

use super::arguments::ProjectArguments;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit project graph
  ocikit project graph --format dot
  ocikit project graph --format svg --project-dir images > graph.svg";

/// Print which images of a project depend on which
///
/// Prints the images stage by stage: those of a stage do not depend on each other. With --json, prints every reference
/// with its place.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Graph {
    #[command(flatten)]
    project: ProjectArguments,
    /// Format of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: GraphFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    Text,
    /// The language of Graphviz
    Dot,
    /// An image
    Svg,
}

impl Graph {
    pub(crate) fn run(&self, context: &Context) -> Result {
        let project = self.project.load(&[])?;
        match self.format {
            GraphFormat::Text => {
                context.output.result(&project.graph(), || project.graph_lines().into_iter().collect::<Lines>())
            }
            GraphFormat::Dot => context.output.bytes(project.graph_dot().as_bytes()),
            GraphFormat::Svg => context.output.bytes(project.graph_svg().as_bytes()),
        }
    }
}
