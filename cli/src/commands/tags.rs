use clap::Args;
use ocikit::registry::ListOptions;
use ocikit::{Location, Name, Repository, Tag};
use serde::Serialize;

use super::remote;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

/// List the tags of a repository, an archive or a layout, all of them unless --limit says how many
///
/// Examples:
///   ocikit tags ghcr.io/acme/app
///   ocikit tags app.tar
///   ocikit tags oci:layout
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Tags {
    /// The repository, or an archive or layout
    #[arg(value_parser = place)]
    place: Place,
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

/// What has tags.
#[derive(Debug, Clone)]
enum Place {
    Repository(Repository),
    Local(Location),
}

fn place(text: &str) -> std::result::Result<Place, String> {
    match text.parse::<Location>() {
        Ok(Location::Registry(_)) => Ok(Place::Repository(remote::repository(text)?)),
        Ok(location) if location.name() != Name::Only => {
            Err("it names one image; leave out the tag or digest".to_owned())
        }
        Ok(location) => Ok(Place::Local(location)),
        // A repository is not always a reference, and what is wrong with a path is said by its own grammar.
        Err(error) => remote::repository(text).map(Place::Repository).map_err(|_| error.to_string()),
    }
}

#[derive(Serialize)]
struct Facts {
    repository: String,
    tags: Vec<String>,
}

impl Tags {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let facts = match &self.place {
            Place::Repository(repository) => {
                let client = context.client_of([repository.registry()])?;
                let remote = client.repository(repository.clone())?;
                let options = ListOptions { limit: self.limit.map(|limit| limit as usize), after: self.after.clone() };
                let listed = remote.tags_part(&options).await?;
                Facts { repository: repository.to_string(), tags: listed.iter().map(Tag::to_string).collect() }
            }
            Place::Local(location) => {
                let location = context.expand(location);
                let names = context.session(&[&location])?.names(&location).await?;
                let after = self.after.as_ref().and_then(|after| names.iter().position(|name| name == after));
                let names = names.into_iter().skip(after.map_or(0, |at| at + 1));
                let limit = self.limit.map_or(usize::MAX, |limit| limit as usize);
                Facts { repository: location.to_string(), tags: names.take(limit).collect() }
            }
        };
        let wanted = |tag: &String| !(self.omit_digest_tags && tag.parse().is_ok_and(|tag| stands_for_a_digest(&tag)));
        let facts = Facts { tags: facts.tags.into_iter().filter(wanted).collect(), ..facts };
        context.output.facts(&facts, || facts.tags.iter().collect::<Lines>())
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
