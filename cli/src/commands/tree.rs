use clap::Args;
use ocikit::{Location, Relation, spec};

use crate::context::Context;
use crate::failure::Result;
use crate::output;

/// Show what hangs together: index, manifests, layers, and the attestations and referrers of each
#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// What to look at
    location: Location,
}

impl Tree {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let root = context.session(&[&location])?.open(&location).await?;
        let tree = ocikit::tree(&root).await?;
        context.output.facts(&tree, || {
            let mut text = format!("{location}\n{}\n", line(&tree));
            branches(&tree, "", &mut text);
            text
        })
    }
}

fn branches(tree: &ocikit::Tree, indent: &str, text: &mut String) {
    for (position, child) in tree.children.iter().enumerate() {
        let (branch, below) = match position + 1 == tree.children.len() {
            true => ("└── ", "    "),
            false => ("├── ", "│   "),
        };
        text.push_str(&format!("{indent}{branch}{}\n", line(child)));
        branches(child, &format!("{indent}{below}"), text);
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
