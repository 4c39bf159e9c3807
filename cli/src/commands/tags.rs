use std::error::Error;

use clap::Args;
use ocikit::registry::ListOptions;
use ocikit::{Location, Name, Repository, Tag};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit tags ghcr.io/acme/app
  ocikit tags --omit-digest-tags --limit 100 ghcr.io/acme/app
  ocikit tags app.tar
  ocikit tags oci:layout";

/// List the tags of a repository, an archive or a layout
///
/// Lists all tags unless `--limit` is given.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tags {
    /// Repository, archive or layout
    #[arg(value_name = "LOCATION", value_parser = place)]
    place: Place,
    /// List at most this many tags
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// List only the tags that follow this one in the list of the registry
    #[arg(long, value_name = "TAG")]
    after: Option<String>,
    /// Leave out tags such as `sha256-…`, which hold signatures and referrers
    #[arg(long)]
    omit_digest_tags: bool,
}

/// A location that has tags.
#[derive(Debug, Clone)]
enum Place {
    Repository(Repository),
    Local(Location),
}

fn place(text: &str) -> std::result::Result<Place, Box<dyn Error + Send + Sync>> {
    match text.parse::<Location>() {
        Ok(Location::Registry(_)) => Ok(Place::Repository(remote::repository(text)?)),
        Ok(location) if location.name() != Name::Only => Err("it names one image; leave out the tag or digest".into()),
        Ok(location) => Ok(Place::Local(location)),
        // A repository is not always a valid reference. For a path, the error of the location grammar is the useful one.
        Err(error) => remote::repository(text).map(Place::Repository).map_err(|_| error.into()),
    }
}

impl Tags {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let (repository, mut tags) = match &self.place {
            Place::Repository(repository) => {
                let client = context.client_of([repository.registry()])?;
                let remote = client.repository(repository.clone())?;
                let options =
                    ListOptions::default().limit(self.limit.map(|limit| limit as usize)).after(self.after.clone());
                let listed = remote.tags_part(&options).await?;
                (repository.to_string(), listed.iter().map(Tag::to_string).collect::<Vec<_>>())
            }
            Place::Local(location) => {
                let location = context.expand(location);
                let names = context.session(&[&location])?.names(&location).await?;
                let after = self.after.as_ref().and_then(|after| names.iter().position(|name| name == after));
                let names = names.into_iter().skip(after.map_or(0, |at| at + 1));
                let limit = self.limit.map_or(usize::MAX, |limit| limit as usize);
                (location.to_string(), names.take(limit).collect())
            }
        };
        tags.retain(|tag| !(self.omit_digest_tags && tag.parse().is_ok_and(|tag| is_digest_tag(&tag))));
        context.output.result(&json!({ "repository": repository, "tags": tags }), || tags.iter().collect::<Lines>())
    }
}

/// Returns whether a tag is `sha256-<hex>` or `sha512-<hex>`, optionally with a suffix such as `.sig`.
fn is_digest_tag(tag: &Tag) -> bool {
    let hex = tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-"));
    let hex = hex.map(|rest| rest.split('.').next().unwrap_or_default());
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn digest_tags_have_64_hex_digits() {
        let hex = "0123456789abcdef".repeat(4);
        for (tag, expected) in [
            (format!("sha256-{hex}"), true),
            (format!("sha256-{hex}.sig"), true),
            (format!("sha512-{hex}"), true),
            (format!("sha256-{}", &hex[1..]), false),
            ("sha256-x".to_owned(), false),
            (format!("v{hex}"), false),
        ] {
            assert_eq!(super::is_digest_tag(&tag.parse().unwrap()), expected, "{tag}");
        }
    }
}
