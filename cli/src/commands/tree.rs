use clap::Args;
use ocikit::{ImageTree, Location, Relation, spec};

use crate::context::Context;
use crate::failure::Result;
use crate::output::{self, Lines, LocatedImage};

const EXAMPLES: &str = "\
Examples:
  ocikit tree app.tar
  ocikit tree ghcr.io/acme/app:1";

/// Show an image as a tree of index, manifests, layers and referrers
///
/// Prints one line for each document, layer and referrer, with its digest and size, below the document that it is part of.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tree {
    /// Image, index or artifact
    location: Location,
}

impl Tree {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let mut images = Vec::new();
        for (location, root) in context.session(&[&location])?.open_each(&location).await? {
            images.push(LocatedImage { location: location.to_string(), facts: ocikit::tree(&root).await? });
        }
        let lines = || {
            let mut lines = Lines::default();
            for LocatedImage { location, facts } in &images {
                lines.push(location);
                lines.push(line(facts));
                branches(facts, "", &mut lines);
            }
            lines
        };
        context.output.images(&images, lines)
    }
}

fn branches(tree: &ImageTree, indent: &str, lines: &mut Lines) {
    for (position, child) in tree.children.iter().enumerate() {
        let (branch, below) = match position + 1 == tree.children.len() {
            true => ("└── ", "    "),
            false => ("├── ", "│   "),
        };
        lines.push(format!("{indent}{branch}{}", line(child)));
        branches(child, &format!("{indent}{below}"), lines);
    }
}

fn line(tree: &ImageTree) -> String {
    let word = match (tree.relation, &tree.kind) {
        (Relation::Config, _) => "config",
        (Relation::Layer, _) => "layer",
        (_, Some(kind)) => kind,
        (_, None) => "manifest",
    };
    let predicate = tree.annotations.get(spec::annotations::PREDICATE_TYPE);
    let size = match (&tree.missing, tree.relation) {
        (Some(_), _) => "missing".to_owned(),
        (None, Relation::Config | Relation::Layer) => output::bytes(tree.size),
        (None, _) => output::bytes(tree.total_size),
    };
    let relation = (tree.relation == Relation::Referrer).then(|| "(referrer)".to_owned());
    let words = [
        Some(word.to_owned()),
        tree.platform.as_ref().map(ToString::to_string),
        Some(tree.digest.to_string()),
        Some(size),
        tree.artifact_type.as_ref().map(ToString::to_string),
        predicate.map(str::to_owned),
        relation,
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
