use clap::Args;
use ocikit::{Location, Relation, spec};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::output::{self, Lines};

/// Show what hangs together: index, manifests, layers, and the attestations and referrers of each
#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// What to look at
    location: Location,
}

impl Tree {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let mut images = Vec::new();
        for (location, root) in context.session(&[&location])?.open_each(&location).await? {
            images.push(ImageTree { location: location.to_string(), tree: ocikit::tree(&root).await? });
        }
        let lines = || {
            let mut lines = Lines::default();
            for ImageTree { location, tree } in &images {
                lines.push(location);
                lines.push(line(tree));
                branches(tree, "", &mut lines);
            }
            lines
        };
        match &images[..] {
            [image] => context.output.facts(&image.tree, lines),
            _ => context.output.facts(&Trees { images: &images }, lines),
        }
    }
}

/// All images of a place.
#[derive(Serialize)]
struct Trees<'a> {
    images: &'a [ImageTree],
}

#[derive(Serialize)]
struct ImageTree {
    location: String,
    #[serde(flatten)]
    tree: ocikit::Tree,
}

fn branches(tree: &ocikit::Tree, indent: &str, lines: &mut Lines) {
    for (position, child) in tree.children.iter().enumerate() {
        let (branch, below) = match position + 1 == tree.children.len() {
            true => ("└── ", "    "),
            false => ("├── ", "│   "),
        };
        lines.push(format!("{indent}{branch}{}", line(child)));
        branches(child, &format!("{indent}{below}"), lines);
    }
}

fn line(tree: &ocikit::Tree) -> String {
    let word = match (tree.relation, &tree.kind) {
        (Relation::Config, _) => "config",
        (Relation::Layer, _) => "layer",
        (_, Some(kind)) => kind,
        (_, None) => "manifest",
    };
    let predicate = tree.annotations.get(spec::annotations::PREDICATE_TYPE);
    let size = match (&tree.missing, tree.relation) {
        (Some(_), _) => "not here".to_owned(),
        (None, Relation::Config | Relation::Layer) => output::bytes(tree.size),
        (None, _) => output::bytes(tree.total_size),
    };
    let relation = (tree.relation == Relation::Referrer).then(|| "refers to it".to_owned());
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
