use clap::Args;
use ocikit::{Location, Name, Reference, Root, Session, SessionOptions};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::report::{partial, report};
use crate::transfer::{Transfer, copy_to_all, copy_to_one};

/// Push archives or layouts to registries
///
/// The archive is read where it lies; nothing is unpacked. `-` reads it from standard input and begins to upload while it
/// is still being written. Prints each reference with its digest.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// One archive and the references it gets; or several archives and one repository, in which each gets its own tag
    #[arg(required = true, num_args = 2.., value_name = "ARCHIVE… REFERENCE")]
    locations: Vec<Location>,
    #[command(flatten)]
    transfer: Transfer,
}

impl Push {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let locations: Vec<_> = self.locations.iter().map(|location| context.expand_input(location)).collect();
        let is_local = |location: &Location| !matches!(location, Location::Registry(_));
        let sources = locations.iter().take_while(|location| is_local(location)).count();
        let (sources, targets) = locations.split_at(sources);
        if sources.is_empty() {
            return Err(Failure::usage(format_args!("{} is a registry reference, not an archive", locations[0]))
                .hint("a file is written with `./` or ends in `.tar`; between registries use `ocikit copy`"));
        }
        if let Some(local) = targets.iter().find(|location| is_local(location)) {
            return Err(Failure::usage(format_args!("{local} is not a registry reference"))
                .hint("archives come first, then references; between places of other kinds use `ocikit copy`"));
        }
        let options = self.transfer.options(SessionOptions::default());
        let session = context.session_with(&locations.iter().collect::<Vec<_>>(), options)?;
        match (sources, targets) {
            (_, []) => Err(Failure::usage("no reference says where to push to")),
            ([source], targets) => copy_to_all(context, &session, source, targets, &self.transfer).await,
            (sources, [Location::Registry(reference)]) => {
                // Nothing is pushed before it is clear that everything has a name.
                let (mut opened, gate) = (Vec::new(), self.transfer.gate().await?);
                for source in sources {
                    let (root, referrers) = self.transfer.open(context, &session, source, gate.as_ref()).await?;
                    let (target, session) = (own_tag(source, &root, reference)?, session.with_referrers(referrers));
                    opened.push((source, target, self.transfer.narrow(root).await?, session));
                }
                check_distinct(&opened)?;
                let mut done = Vec::new();
                let mut failures = Vec::new();
                for (source, target, root, session) in &opened {
                    match copy_to_one(session, root, source, target, &self.transfer).await {
                        Ok(facts) => done.push(facts),
                        Err(failure) => failures.push((target, failure)),
                    }
                }
                let succeeded = done.len();
                report(context, done)?;
                partial(failures, succeeded, "targets")
            }
            _ => Err(Failure::usage("several archives go to one repository, each under its own tag")),
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

/// The reference of one archive of several: the tag it was asked for by, or that its `index.json` gives it.
fn own_tag(source: &Location, root: &Root, reference: &Reference) -> Result<Location> {
    let named = root.descriptor().annotations.get(ocikit::spec::annotations::REF_NAME);
    let tag = match source.name() {
        Name::Tag(tag) => Some(tag),
        _ => named.and_then(|name| name.parse().ok().or_else(|| name.parse::<Reference>().ok()?.tag().cloned())),
    };
    let untagged = || {
        Failure::usage(format_args!("the image in {source} has no tag of its own"))
            .hint("push it alone, with the tag in the reference")
    };
    Ok(Location::Registry(Reference::tagged(reference.repository().clone(), tag.ok_or_else(untagged)?)))
}
