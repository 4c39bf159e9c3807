//! Copying, as several commands do it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures::future::{join, join_all};
use futures::{StreamExt, TryStreamExt, stream};
use ocikit::image::{ReferrerTag, copy_all, tagged_referrers};
use ocikit::layout::{OutputFile, TarWriter};
use ocikit::{
    Copied, Digest, Error, Location, MediaType, Name, Naming, Platform, Present, Reference, Referrers, Root, Session,
    SessionOptions, Sink, SourceExt, Tag,
};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::file::writes_to_stdout;
use crate::policy::{Gate, GateArguments};
use crate::report::{Facts, partial, report, say};

/// What is copied, and under which conditions: for commands that copy images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copying")]
pub(crate) struct Transfer {
    /// Only the image for this platform; of several named an index of those, which is a new one
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<Platform>,
    /// With --platform, leave the index as it is although it names what is not copied
    #[arg(long, requires = "platform")]
    sparse: bool,
    /// Look for every part of an image though the target has it by this name: a copy with --sparse left some out
    #[arg(long)]
    recheck: bool,
    /// Leave signatures, attestations and whatever else is about the image where they are
    #[arg(long, conflicts_with = "referrers")]
    no_referrers: bool,
    /// Of what is about the image, only this artifact type goes along
    #[arg(long, value_name = "TYPE", conflicts_with = "no_referrers")]
    referrers_type: Vec<MediaType>,
    /// Copy layers that may not be distributed, which stay where their descriptors say otherwise
    #[arg(long)]
    foreign_layers: bool,
    /// Do not overwrite or change existing tags, those of signatures and attestations included
    #[arg(long)]
    no_clobber: bool,
    /// Say what would be copied, and copy nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Write the digest to this file as well
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
    #[command(flatten)]
    gate: GateArguments,
}

impl Transfer {
    /// The options of a session with these in them.
    pub(crate) fn options(&self, options: SessionOptions) -> SessionOptions {
        let referrers = match (self.no_referrers, &self.referrers_type[..]) {
            (true, _) => Referrers::None,
            (false, []) => Referrers::All,
            (false, types) => Referrers::OfTypes(types.to_vec()),
        };
        let only = if self.sparse { self.platform.clone() } else { Vec::new() };
        let foreign_layers = self.foreign_layers;
        SessionOptions { referrers, only, recheck: self.recheck, keep_tags: self.no_clobber, foreign_layers, ..options }
    }

    /// What is copied of a root.
    pub(crate) async fn narrow(&self, root: Root) -> Result<Root> {
        match self.sparse {
            true => Ok(root),
            false => Ok(ocikit::image::narrow(&root, &self.platform).await?),
        }
    }

    /// Opens an image, which the policy has to let through if there is one. From here on it is known by its digest: a tag that
    /// moves meanwhile moves nothing. Of an archive by `docker save` that is what it holds, unless platforms were named.
    /// Returns it with the referrers that may be copied.
    pub(crate) async fn open(
        &self,
        context: &Context,
        session: &Session,
        source: &Location,
        gate: Option<&Gate>,
    ) -> Result<(Root, Referrers)> {
        let (root, present) = match (pipe(source).await?, self.platform.is_empty()) {
            (Some(pipe), _) => session.open_pipe(source, pipe).await?,
            (None, true) => session.open_present(source).await?,
            (None, false) => (session.open(source).await?, None),
        };
        if let Some(Present { listed, platforms, .. }) = present {
            let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            context.output.say(format!("{source} lists {listed} manifests and does not hold all; copying {names}"));
        }
        let wanted = session.options().referrers.clone();
        let Some(gate) = gate else { return Ok((root, wanted)) };
        gate.check(source, &root).await?;
        let referrers = gate.referrers(context, source, &root, wanted).await?;
        Ok((root, referrers))
    }

    /// The policy that every image has to pass, if there is one.
    pub(crate) async fn gate(&self) -> Result<Option<Gate>> {
        self.gate.gate().await
    }

    /// Refuses what cannot be done with an image that can be read only once.
    pub(crate) fn check_pipe(&self) -> Result {
        if self.gate.is_given() {
            return Err(Failure::usage(
                "an archive that comes through a pipe is copied while it comes, before it could be verified",
            )
            .hint("write it to a file first, and copy that with --verify"));
        }
        if !self.platform.is_empty() || self.dry_run || self.no_clobber {
            return Err(Failure::usage("an archive that comes through a pipe is copied as it comes, all of it")
                .hint("write it to a file first to choose platforms, to plan, or to compare"));
        }
        Ok(())
    }

    /// Fails if a copy would let the target's name mean another image.
    pub(crate) async fn check_target(&self, session: &Session, root: Digest, target: &Location) -> Result {
        if !self.no_clobber || *target == Location::Stdio || is_stream(target) {
            return Ok(());
        }
        let found = match session.source(target).await {
            Ok(place) => place.find(&target.name()).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) if found.digest == root => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Ok(found) => {
                let message = format!("{target} is {} already", found.digest);
                Err(Failure::new(Code::Other, message).hint("leave out --no-clobber to replace it"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the digest where it was asked for.
    pub(crate) fn write_digest(&self, digest: Digest) -> Result {
        let Some(path) = &self.digest_file else { return Ok(()) };
        crate::file::write(path, format!("{digest}\n").as_bytes())
    }
}

/// Whether a target is a device or pipe, which holds nothing.
fn is_stream(target: &Location) -> bool {
    target.path().is_some_and(OutputFile::is_stream)
}

/// Copies an image to all targets at the same time, each tried even if another fails.
pub(crate) async fn copy_to_all(
    context: &Context,
    session: &Session,
    source: &Location,
    targets: &[Location],
    transfer: &Transfer,
) -> Result {
    session.expect_transfer();
    // An image with a name is looked up in the whole archive.
    if source.name() == Name::Only
        && !matches!(source, Location::DockerArchive { .. })
        && let Some(pipe) = pipe(source).await?
    {
        transfer.check_pipe()?;
        let copied = session.receive_to_each(pipe, targets).await?;
        let facts = targets.iter().zip(copied).map(|(target, copied)| Ok(Facts::of(target, &copied?))).collect();
        return report_all(context, targets, facts, transfer);
    }
    let (root, referrers) = transfer.open(context, session, source, transfer.gate().await?.as_ref()).await?;
    let session = &session.with_referrers(referrers);
    let root = transfer.narrow(root).await?;
    let facts = if transfer.dry_run {
        join_all(targets.iter().map(|target| copy_to_one(session, &root, source, target, transfer))).await
    } else {
        copy_together(session, &root, source, targets, transfer).await
    };
    report_all(context, targets, facts, transfer)
}

/// What can be read once and forward: standard input, or a pipe, socket or device that a path leads to, as `<(command)` does.
async fn pipe(source: &Location) -> Result<Option<Box<dyn Read + Send>>> {
    let path = match source {
        Location::Stdio => return Ok(Some(Box::new(std::io::stdin()))),
        Location::Path { path, .. } | Location::Archive { path, .. } | Location::DockerArchive { path, .. } => {
            path.clone()
        }
        Location::Layout { .. } | Location::Registry(_) => return Ok(None),
    };
    Ok(ocikit::image::bridge::blocking(move || {
        // What is not there is told by whoever opens it.
        if std::fs::metadata(&path).map_or(true, |found| found.is_file() || found.is_dir()) {
            return Ok(None);
        }
        let file = File::open(&path).map_err(|error| Error::failed("open", path.display(), error))?;
        Ok(Some(Box::new(file) as Box<dyn Read + Send>))
    })
    .await?)
}

/// Copies an image to targets, reading it once for all but standard output, where nothing can be tried again.
async fn copy_together(
    session: &Session,
    root: &Root,
    source: &Location,
    targets: &[Location],
    transfer: &Transfer,
) -> Vec<Result<Facts>> {
    let checks = join_all(targets.iter().map(|target| transfer.check_target(session, root.digest(), target))).await;
    let wanted = targets.iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(target, _)| target);
    let (streams, places): (Vec<_>, Vec<_>) = wanted.cloned().partition(|target| *target == Location::Stdio);
    let stream = join_all(streams.iter().map(|stream| copy_out(session, root, source, stream)));
    let (copied, streamed) = join(session.copy_root_to_each(root, source, &places), stream).await;
    let (mut copied, mut streamed) = (copied.into_iter(), streamed.into_iter());
    let fact = |(target, check): (&Location, Result)| {
        check?;
        let lost = || Failure::new(Code::Other, format_args!("nothing was heard of {target}"));
        let copied = match target {
            Location::Stdio => streamed.next().ok_or_else(lost)??,
            _ => copied.next().ok_or_else(lost)??,
        };
        Ok(Facts::of(target, &copied))
    };
    targets.iter().zip(checks).map(fact).collect()
}

/// States what became of each target; one that failed is the failure of all, partly if others succeeded.
fn report_all(context: &Context, targets: &[Location], facts: Vec<Result<Facts>>, transfer: &Transfer) -> Result {
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for (target, outcome) in targets.iter().zip(facts) {
        match outcome {
            Ok(facts) => done.push((target, facts)),
            Err(failure) => failures.push((target, failure)),
        }
    }
    if let Some((_, facts)) = done.first() {
        transfer.write_digest(facts.digest)?;
    }
    let succeeded = done.len();
    let facts: Vec<_> = done.into_iter().map(|(_, facts)| facts).collect();
    match targets.iter().any(writes_to_stdout) {
        true => say(context, &facts),
        false => report(context, facts)?,
    }
    partial(failures, succeeded, "targets")
}

/// Copies an image to one target, or plans to.
pub(crate) async fn copy_to_one(
    session: &Session,
    root: &Root,
    source: &Location,
    target: &Location,
    transfer: &Transfer,
) -> Result<Facts> {
    transfer.check_target(session, root.digest(), target).await?;
    if transfer.dry_run {
        return Ok(Facts::of_plan(target, &session.plan(root, source, target).await?));
    }
    Ok(Facts::of(target, &copy_out(session, root, source, target).await?))
}

/// How many images are opened at the same time.
const AT_ONCE: usize = 8;

/// One of several images that go to one place, and its name there.
#[derive(Clone)]
pub(crate) struct Named {
    location: Location,
    naming: Naming,
}

impl Named {
    /// An image of a registry.
    pub(crate) fn of_reference(reference: &Reference) -> Named {
        Named { location: Location::Registry(reference.clone()), naming: naming(reference) }
    }

    /// An image that an archive or layout lists under this name: a tag or a full name.
    pub(crate) fn listed(place: &Location, name: &str) -> Named {
        if let Ok(tag) = name.parse::<Tag>() {
            let location = place.with_name(Name::Tag(tag.clone()));
            return Named { location, naming: Naming { tag: Some(tag), ..Naming::default() } };
        }
        let tag = name.parse::<Reference>().ok().and_then(|reference| reference.tag().cloned());
        let naming = Naming { tag, full: Some(name.to_owned()), replaces: None };
        Named { location: place.with_name(Name::Full(name.to_owned())), naming }
    }
}

/// Copies several images to one place, each under its own name. Nothing is named before all are there.
pub(crate) async fn copy_several(
    context: &Context,
    session: &Session,
    images: Vec<Named>,
    target: &Location,
    transfer: &Transfer,
) -> Result {
    let gate = &transfer.gate().await?;
    let open = |Named { location, naming }: Named| async move {
        if let Some(tag) = &naming.tag
            && let Some(kind) = ReferrerTag::of(tag)
        {
            // With a policy they are copied with the images that they are about, if at all.
            if gate.is_some() {
                return Ok((Vec::new(), Referrers::None));
            }
            let source = session.source(&location).await?;
            let wanted = session.options().referrers.clone();
            let found = tagged_referrers(&source, tag, kind, &wanted).await?;
            let found = found.into_iter().map(|(root, naming)| (its_name(target, &root, &naming), root, naming));
            return Ok((found.collect(), wanted));
        }
        let (root, referrers) = transfer.open(context, session, &location, gate.as_ref()).await?;
        let root = transfer.narrow(root).await?;
        let target = own_name(target, &location, &naming)?;
        transfer.check_target(session, root.digest(), &target).await?;
        Ok::<_, Failure>((vec![(target, root, naming)], referrers))
    };
    let roots = stream::iter(images).map(open).buffered(AT_ONCE);
    let roots: Vec<(Vec<_>, Referrers)> = roots.try_collect().await?;
    let (roots, referrers): (Vec<_>, Vec<_>) = roots.into_iter().unzip();
    let roots: Vec<_> = roots.into_iter().flatten().collect();
    check_distinct(&roots)?;
    let session = &session.with_referrers(Referrers::of_any(referrers));
    let mut facts = Vec::new();
    if transfer.dry_run {
        for (target, root, _) in &roots {
            facts.push(Facts::of_plan(target, &session.plan(root, target, target).await?));
        }
        return report(context, facts);
    }
    let sink = session.sink(target).await?;
    let named: Vec<_> = roots.iter().map(|(_, root, naming)| (root.clone(), vec![naming.clone()])).collect();
    let copied = copy_all(&named, &sink, &session.copy_options(Vec::new())).await?;
    let facts: Vec<_> = roots.iter().zip(&copied).map(|((target, ..), copied)| Facts::of(target, copied)).collect();
    match writes_to_stdout(target) {
        true => say(context, &facts),
        false => report(context, facts)?,
    }
    Ok(())
}

/// The name that an image of a registry has in a place that keeps names.
fn naming(reference: &Reference) -> Naming {
    let tag = reference.tag().cloned();
    let full = tag.clone().map(|tag| Reference::tagged(reference.repository().clone(), tag).to_string());
    Naming { tag, full, replaces: None }
}

/// One of several images that go to the same place.
fn own_name(target: &Location, source: &Location, naming: &Naming) -> Result<Location> {
    match (target, &naming.tag) {
        (Location::Registry(target), Some(tag)) => {
            Ok(Location::Registry(Reference::tagged(target.repository().clone(), tag.clone())))
        }
        (Location::Registry(target), None) => {
            let repository = target.repository();
            let failure = Failure::usage(format_args!("cannot copy {source} to {repository}: its name has no tag"));
            Err(failure.hint("copy it alone, with a tag in the target"))
        }
        _ => Ok(target.clone()),
    }
}

/// Fails if two different images get one tag of a registry: the second would overwrite the first.
fn check_distinct(images: &[(Location, Root, Naming)]) -> Result {
    let mut digests: HashMap<String, (Digest, String)> = HashMap::new();
    for (target, root, naming) in images {
        let Location::Registry(reference) = target else { continue };
        let name = naming.full.clone().unwrap_or_else(|| root.digest().to_string());
        let Some((digest, first)) = digests.insert(reference.to_string(), (root.digest(), name.clone())) else {
            continue;
        };
        if digest != root.digest() {
            return Err(Failure::usage(format_args!("cannot copy {first} and {name}: both go to {target}"))
                .hint("copy each alone, with a tag in the target"));
        }
    }
    Ok(())
}

/// The name that something said about an image has at a target, where one without a tag is known by its digest.
fn its_name(target: &Location, root: &Root, naming: &Naming) -> Location {
    match (target, &naming.tag) {
        (Location::Registry(target), Some(tag)) => {
            Location::Registry(Reference::tagged(target.repository().clone(), tag.clone()))
        }
        (Location::Registry(target), None) => {
            Location::Registry(Reference::digested(target.repository().clone(), root.digest()))
        }
        _ => target.clone(),
    }
}

/// Copies a root to a place, standard output included.
pub(crate) async fn copy_out(session: &Session, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
    if *to != Location::Stdio {
        return Ok(session.copy_root(root, from, to).await?);
    }
    let stream: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", std::io::stdout(), session.options().archive.clone()));
    Ok(session.copy_to(root, &stream, vec![Naming::default()]).await?)
}
