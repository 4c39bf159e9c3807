use clap::Args;
use ocikit::Repository;
use ocikit::registry::Capabilities;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;
use crate::probe_result::ProbeResult;
use crate::remote;

const EXAMPLES: &str = "\
Examples:
  ocikit probe registry.example.com/scratch
  ocikit probe --cached registry.example.com/scratch";

/// Test which features a registry supports
///
/// Uploads a few bytes to the repository and to a second one with `-from` appended to its name, and deletes them as far
/// as the registry allows. The result is cached for 30 days, and later pushes to the registry use it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Probe {
    /// Unused repository for the test: REGISTRY/REPOSITORY
    #[arg(value_parser = remote::repository)]
    repository: Repository,
    /// Print the cached result without contacting the registry
    #[arg(long)]
    cached: bool,
}

impl Probe {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let registry = self.repository.registry();
        let known = if self.cached {
            let unknown = || {
                Failure::new(Code::Missing, format_args!("no cached result for {registry} from the last 30 days"))
                    .hint("run the command without --cached")
            };
            ProbeResult::read(registry).ok_or_else(unknown)?
        } else {
            let capabilities = context.client_of([registry])?.probe(&self.repository).await?;
            let known = ProbeResult::new(registry, capabilities);
            if let Err(failure) = known.write(registry) {
                context.output.say(format!("warning: cannot cache the result: {}", failure.message));
            }
            known
        };
        context.output.result(&known, || words(&known.capabilities))
    }
}

fn words(found: &Capabilities) -> Lines {
    let word = |answer: Option<bool>| match answer {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "unknown".to_owned(),
    };
    let lines = [
        ("referrers API", word(found.referrers_api)),
        ("`OCI-Subject` header", word(found.subject_header)),
        ("mount from a repository", word(found.mount)),
        ("mount without source", word(found.anonymous_mount)),
        ("mount from same repository", word(found.mount_from_itself)),
        ("minimum chunk size", found.chunk_minimum.map_or("none".to_owned(), crate::output::bytes)),
        ("status of a chunk upload", found.patch_status.map_or_else(|| word(None), |status| status.to_string())),
        ("upload progress", word(found.upload_progress)),
        ("blob location header", word(found.put_location)),
        ("range requests", word(found.ranges)),
        ("sparse indexes", word(found.sparse_index)),
        ("delete tags", word(found.delete_tag)),
        ("delete manifests", word(found.delete_manifest)),
        ("delete blobs", word(found.delete_blob)),
    ];
    lines.map(|(what, answer)| format!("{what:<26} {answer}")).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_has_the_same_words() {
        let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/registries.md");
        let documented = std::fs::read_to_string(documented).unwrap();
        let lines = words(&Capabilities::default());
        let names: Vec<_> = lines.text().lines().map(|line| line[..26].trim()).collect();
        assert_eq!(names.len(), 14);
        for name in names {
            assert!(documented.contains(&format!("\n| {name} | ")), "docs/registries.md has no row `{name}`");
        }
    }
}
