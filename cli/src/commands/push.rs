use clap::Args;
use ocikit::{Location, Name, Reference, Root, Session, SessionOptions};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::report::{partial, report};
use crate::transfer::{TransferArguments, copy_to_all, copy_together};

const EXAMPLES: &str = "\
Examples:
  ocikit push app.tar ghcr.io/acme/app:1 ghcr.io/acme/app:latest
  ocikit push oci:layout:1 ghcr.io/acme/app:1
  ocikit push one.tar two.tar ghcr.io/acme/app
  ocikit push - localhost:5000/app:1 < app.tar";

/// Push images from archives and layouts to registries
///
/// Reads an archive in place, without unpacking it. `-` reads an archive from standard input and starts to upload while
/// it is still being written. Prints each reference with its digest.
#[derive(Debug, Args)]
#[command(override_usage = "ocikit push [OPTIONS] <ARCHIVE>... <REFERENCE>...", after_help = EXAMPLES)]
pub(crate) struct Push {
    /// Archives or layouts, then references to push to
    ///
    /// One archive is pushed to every reference. Several archives are pushed to one repository, each under its own tag.
    #[arg(required = true, num_args = 2.., value_names = ["ARCHIVE", "REFERENCE"])]
    locations: Vec<Location>,
    // The flags that `copy` and `pull` have too, and how they become options of a copy: `transfer.rs`.
    #[command(flatten)]
    transfer: TransferArguments,
}

impl Push {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let locations: Vec<_> = self.locations.iter().map(|location| context.expand_input(location)).collect();
        let is_local = |location: &Location| location.reference().is_none();
        let sources = locations.iter().take_while(|location| is_local(location)).count();
        let (sources, targets) = locations.split_at(sources);
        if sources.is_empty() {
            return Err(Failure::usage(format_args!(
                "cannot push {}: it is a registry reference, not an archive",
                locations[0]
            ))
            .hint("write a file name as `./NAME` or `NAME.tar`; to copy between registries, use `ocikit copy`"));
        }
        if let Some(local) = targets.iter().find(|location| is_local(location)) {
            return Err(Failure::usage(format_args!("cannot push to {local}: it is not a registry reference"))
                .hint("give archives first, then references; to copy to an archive or layout, use `ocikit copy`"));
        }
        let options = self.transfer.options(SessionOptions::default());
        let session = context.session_with(&locations.iter().collect::<Vec<_>>(), options)?;
        match (sources, targets) {
            (_, []) => Err(Failure::usage("cannot push: no reference is given")),
            ([source], targets) => copy_to_all(context, &session, source, targets, &self.transfer).await,
            (sources, [Location::Registry(reference)]) => {
                // All tags are determined first, so that an untagged archive fails before anything is pushed.
                let (mut opened, gate) = (Vec::new(), self.transfer.gate().await?);
                for source in sources {
                    let (root, referrers) = self.transfer.open(context, &session, source, gate.as_ref()).await?;
                    let (target, session) = (own_tag(source, &root, reference)?, session.with_referrers(referrers));
                    opened.push((source, target, self.transfer.select_platforms(root).await?, session));
                }
                check_distinct(&opened)?;
                let mut done = Vec::new();
                let mut failures = Vec::new();
                for (source, target, root, session) in &opened {
                    let target = std::slice::from_ref(target);
                    for result in copy_together(session, root, source, target, &self.transfer).await {
                        match result {
                            Ok(result) => done.push(result),
                            Err(failure) => failures.push((&target[0], failure)),
                        }
                    }
                }
                let succeeded = done.len();
                report(context, done)?;
                partial(failures, succeeded, "targets")
            }
            _ => Err(Failure::usage("cannot push several archives to several references: give one repository")),
        }
    }
}

/// Fails if two archives with different images lead to one tag: the second would overwrite the first.
fn check_distinct(opened: &[(&Location, Location, Root, Session)]) -> Result {
    for (at, (source, target, root, _)) in opened.iter().enumerate() {
        let same = opened[..at].iter().find(|(_, other, first, _)| other == target && first.digest() != root.digest());
        if let Some((first, ..)) = same {
            return Err(Failure::usage(format_args!("cannot push {first} and {source}: both go to {target}"))
                .hint("push each alone, with the tag in the reference"));
        }
    }
    Ok(())
}

/// Returns the reference for one of several archives: with the tag in its location, or else the tag in its `index.json`.
fn own_tag(source: &Location, root: &Root, reference: &Reference) -> Result<Location> {
    let named = root.descriptor().annotations.get(ocikit::spec::annotations::REF_NAME);
    let tag = match source.name() {
        Name::Tag(tag) => Some(tag),
        _ => named.and_then(|name| name.parse().ok().or_else(|| name.parse::<Reference>().ok()?.tag().cloned())),
    };
    let untagged = || {
        Failure::usage(format_args!("cannot push {source}: the image has no tag"))
            .hint("push this archive separately, with the tag in the reference")
    };
    Ok(Location::Registry(Reference::tagged(reference.repository().clone(), tag.ok_or_else(untagged)?)))
}
