use std::path::PathBuf;

use clap::Args;
use ocikit::{Repository, Tag};
use ocikit_publish::git::GitState;
use ocikit_publish::tags::{Because, PlannedTag, SkippedTag};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::file;
use crate::output::Lines;
use crate::publish::TagArguments;

const EXAMPLES: &str = "\
Examples:
  ocikit publish tags --branch feature/x --commit 6c22711
  ocikit publish tags --config config.yaml --tag 'v{{.ShortSHA}}' --tags-file tags.json
  ocikit publish tags --git-tag v1.2.4 --commit 6c22711 --against ghcr.io/acme/app";

/// Print the tags that an image gets, and why
///
/// Computes the tags from the git state of the CI job, or from the flags. Writes to no registry.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PublishTags {
    #[command(flatten)]
    arguments: TagArguments,
    /// Leave out tags that are newer in this repository
    #[arg(long, value_name = "REPOSITORY")]
    against: Option<Repository>,
    /// Also write the tags as a JSON array of names and values to this file
    #[arg(long, alias = "tags-output-file", value_name = "FILE")]
    tags_file: Option<PathBuf>,
}

/// The tags and the git state that they come from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagsOutput<'a> {
    git: &'a GitState,
    tags: Vec<TagOutput<'a>>,
    skipped: Vec<SkippedOutput<'a>>,
}

/// A tag, with the keys of the tag file of the image builder and the reason.
#[derive(Serialize)]
struct TagOutput<'a> {
    name: &'a str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<&'a str>,
    because: Because,
}

#[derive(Serialize)]
struct SkippedOutput<'a> {
    name: &'a str,
    value: &'a str,
    reason: String,
}

impl PublishTags {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let job = self.arguments.job(context)?;
        let tags = match &self.against {
            Some(repository) if !job.allow_back => {
                let reference = ocikit::Reference::tagged(repository.clone(), Tag::latest());
                let session = context.session(&[&ocikit::Location::Registry(reference)])?;
                let existing = match session.tags(repository).await {
                    Err(error) if error.is_not_found() => Vec::new(),
                    found => found?,
                };
                job.tags.never_back(&existing)
            }
            _ => job.tags,
        };
        if let Some(path) = &self.tags_file {
            file::write(path, tags.file().as_bytes())?;
        }
        let result = TagsOutput {
            git: &job.git,
            tags: tags.tags.iter().map(TagOutput::of).collect(),
            skipped: tags.skipped.iter().map(SkippedOutput::of).collect(),
        };
        for skipped in &result.skipped {
            context.output.say(format!("not used: {} ({}): {}", skipped.value, skipped.name, skipped.reason));
        }
        context.output.result(&result, || {
            let width = result.tags.iter().map(|tag| tag.value.len()).max().unwrap_or_default();
            let line = |tag: &TagOutput<'_>| format!("{:<width$}  {}", tag.value, tag.because.words());
            result.tags.iter().map(line).collect::<Lines>()
        })
    }
}

impl<'a> TagOutput<'a> {
    fn of(planned: &'a PlannedTag) -> TagOutput<'a> {
        let PlannedTag { name, tag, validation, because, .. } = planned;
        TagOutput { name, value: tag.as_str(), validation: validation.as_deref(), because: *because }
    }
}

impl<'a> SkippedOutput<'a> {
    fn of(skipped: &'a SkippedTag) -> SkippedOutput<'a> {
        SkippedOutput { name: &skipped.name, value: skipped.tag.as_str(), reason: skipped.reason.to_string() }
    }
}
