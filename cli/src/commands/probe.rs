use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use ocikit::registry::Capabilities;
use ocikit::{Registry, Repository};
use serde::{Deserialize, Serialize};

use super::remote;
use crate::context::{Context, cache_directory};
use crate::failure::{Code, Failure, Result};
use crate::file;
use crate::output::Lines;

/// Find out what a registry can do, by trying it
///
/// Puts a few bytes into the repository, and into one with `-from` at the end of its name, and removes them again as far as
/// the registry allows. What is found is kept for a month, and later pushes to the registry make use of it.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// A repository that nobody needs: REGISTRY/REPOSITORY
    #[arg(value_parser = remote::repository)]
    repository: Repository,
    /// Print what was found before and ask nothing
    #[arg(long)]
    cached: bool,
}

/// What was found out, and when.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Known {
    registry: String,
    /// Seconds since 1970.
    probed: u64,
    pub(crate) capabilities: Capabilities,
}

/// How long it is believed: registries are upgraded.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Known {
    /// What was found out about a registry some time ago. It is an aid: what cannot be read is not known.
    pub(crate) fn read(registry: &Registry) -> Option<Known> {
        let known: Known = serde_json::from_slice(&std::fs::read(Known::path(registry)?).ok()?).ok()?;
        let age = now().checked_sub(known.probed)?;
        (known.registry == registry.as_str() && age < LIFETIME.as_secs()).then_some(known)
    }

    fn path(registry: &Registry) -> Option<PathBuf> {
        let name = registry.as_str().replace([':', '[', ']'], "_");
        Some(cache_directory()?.join("registries").join(format!("{name}.json")))
    }

    fn write(&self, registry: &Registry) -> Result {
        let Some(path) = Known::path(registry) else { return Ok(()) };
        let text = serde_json::to_vec(self).map_err(|error| Failure::new(Code::Other, error))?;
        let directory = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(directory).map_err(|error| Failure::io("create", directory.display(), &error))?;
        file::write(&path, &text)
    }
}

impl Probe {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let registry = self.repository.registry();
        let known = if self.cached {
            let unknown = || {
                Failure::new(Code::Missing, format_args!("nothing was found out about {registry} within a month"))
                    .hint("find it out without --cached")
            };
            Known::read(registry).ok_or_else(unknown)?
        } else {
            let capabilities = context.client_of([registry])?.probe(&self.repository).await?;
            let known = Known { registry: registry.to_string(), probed: now(), capabilities };
            if let Err(failure) = known.write(registry) {
                context.output.say(format!("not kept: {}", failure.message));
            }
            known
        };
        context.output.facts(&known, || words(&known.capabilities))
    }
}

fn words(found: &Capabilities) -> Lines {
    let said = |answer: Option<bool>| match answer {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "not found out".to_owned(),
    };
    let lines = [
        ("lists referrers", said(found.referrers_api)),
        ("says that it lists them", said(found.subject_header)),
        ("mounts from a repository", said(found.mount)),
        ("mounts from anywhere", said(found.anonymous_mount)),
        ("mounts what it has", said(found.mount_from_itself)),
        ("least size of chunks", found.chunk_minimum.map_or("none".to_owned(), crate::output::bytes)),
        ("status of a chunk", found.patch_status.map_or_else(|| said(None), |status| status.to_string())),
        ("says how far an upload is", said(found.upload_progress)),
        ("says where a blob is", said(found.put_location)),
        ("sends ranges", said(found.ranges)),
        ("takes sparse indexes", said(found.sparse_index)),
        ("removes tags", said(found.delete_tag)),
        ("removes manifests", said(found.delete_manifest)),
        ("removes blobs", said(found.delete_blob)),
    ];
    lines.map(|(what, answer)| format!("{what:<25} {answer}")).into_iter().collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
