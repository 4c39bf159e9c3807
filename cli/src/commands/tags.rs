use clap::Args;
use ocikit::registry::ListOptions;
use ocikit::{Repository, Tag};
use serde::Serialize;

use super::remote;
use crate::context::Context;
use crate::failure::Result;

/// List the tags of a repository, all of them unless --limit says how many
#[derive(Debug, Args)]
pub(crate) struct Tags {
    /// The repository
    #[arg(value_parser = remote::repository)]
    repository: Repository,
    /// List no more than this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// List only what the registry lists after this one
    #[arg(long, value_name = "TAG")]
    after: Option<String>,
    /// Leave out tags that stand for digests: `sha256-…`, which hold signatures and the like
    #[arg(long)]
    omit_digest_tags: bool,
}

#[derive(Serialize)]
struct Facts {
    repository: String,
    tags: Vec<String>,
}

impl Tags {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let client = context.client_of([self.repository.registry()])?;
        let repository = client.repository(self.repository.clone())?;
        let options = ListOptions { limit: self.limit.map(|limit| limit as usize), after: self.after.clone() };
        let listed = repository.tags_part(&options).await?;
        let wanted = listed.iter().filter(|tag| !(self.omit_digest_tags && stands_for_a_digest(tag)));
        let facts = Facts { repository: self.repository.to_string(), tags: wanted.map(Tag::to_string).collect() };
        context.output.facts(&facts, || facts.tags.join("\n"))
    }
}

/// `sha256-<hex>`, with or without `.sig` and the like.
fn stands_for_a_digest(tag: &Tag) -> bool {
    let hex = tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-"));
    let hex = hex.map(|rest| rest.split('.').next().unwrap_or_default());
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tag_that_stands_for_a_digest_is_known_by_its_form() {
        let hex = "0123456789abcdef".repeat(4);
        for (tag, stands) in [
            (format!("sha256-{hex}"), true),
            (format!("sha256-{hex}.sig"), true),
            (format!("sha512-{hex}"), true),
            (format!("sha256-{}", &hex[1..]), false),
            ("sha256-x".to_owned(), false),
            (format!("v{hex}"), false),
        ] {
            assert_eq!(super::stands_for_a_digest(&tag.parse().unwrap()), stands, "{tag}");
        }
    }
}
