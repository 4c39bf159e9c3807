//! Arguments and functions that the commands for copying share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures::future::{join, join_all};
use futures::{StreamExt, TryStreamExt, stream};
use ocikit::image::{ReferrerTag, copy_all, tagged_referrers};
use ocikit::layout::{OutputFile, TarWriter};
use ocikit::{
    Copied, Digest, Location, MediaType, Name, Naming, Platform, Reference, Referrers, Repository, Root, Session,
    SessionOptions, Sink, SourceExt, Tag,
};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::pipe;
use crate::policy::{Gate, GateArguments};
use crate::report::{TargetOutput, partial, report, report_beside};

/// Arguments of commands that copy images: what to copy, and under which conditions.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copying")]
pub(crate) struct TransferArguments {
    /// Copy only the image for this platform; repeatable
    ///
    /// With several platforms, the copy is a new index of those images.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<Platform>,
    /// With --platform, keep the index unchanged although it is incomplete
    #[arg(long, requires = "platform")]
    sparse: bool,
    /// Check every blob even if the target already has the manifest
    ///
    /// Use it after a copy with --sparse, which left blobs out.
    #[arg(long)]
    recheck: bool,
    /// Do not copy signatures, attestations and other referrers
    #[arg(long, conflicts_with = "referrers")]
    no_referrers: bool,
    /// Copy only referrers of this artifact type; repeatable
    #[arg(long, value_name = "TYPE", conflicts_with = "no_referrers")]
    referrers_type: Vec<MediaType>,
    /// Copy non-distributable layers instead of referring to their URLs
    #[arg(long)]
    foreign_layers: bool,
    /// Do not overwrite existing tags, including those of signatures
    #[arg(long)]
    no_clobber: bool,
    /// Print what would be copied without copying anything
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Also write the digest to this file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
    #[command(flatten)]
    gate: GateArguments,
}

impl TransferArguments {
    /// Returns session options with these arguments applied.
    pub(crate) fn options(&self, options: SessionOptions) -> SessionOptions {
        let referrers = match (self.no_referrers, &self.referrers_type[..]) {
            (true, _) => Referrers::None,
            (false, []) => Referrers::All,
            (false, types) => Referrers::OfTypes(types.to_vec()),
        };
        let only = if self.sparse { self.platform.clone() } else { Vec::new() };
        let foreign_layers = self.foreign_layers;
        options
            .referrers(referrers)
            .only(only)
            .recheck(self.recheck)
            .keep_tags(self.no_clobber)
            .foreign_layers(foreign_layers)
    }

    /// Returns the part of a root for the chosen platforms; the whole root with `--sparse`.
    pub(crate) async fn select_platforms(&self, root: Root) -> Result<Root> {
        match self.sparse {
            true => Ok(root),
            false => Ok(ocikit::image::select_platforms(&root, &self.platform).await?),
        }
    }

    /// Opens an image, checks it against the policy if there is one, and returns it with the referrers that may be copied.
    ///
    /// The root is pinned to its digest, so a tag that moves during the copy has no effect. For an archive of `docker save`
    /// without `--platform`, the root is the part that the archive holds.
    pub(crate) async fn open(
        &self,
        context: &Context,
        session: &Session,
        source: &Location,
        gate: Option<&Gate>,
    ) -> Result<(Root, Referrers)> {
        let root = pipe::open_image(context, session, source, !self.platform.is_empty()).await?;
        let wanted = session.options().referrers.clone();
        let Some(gate) = gate else { return Ok((root, wanted)) };
        gate.check(source, &root).await?;
        let referrers = gate.referrers(context, source, &root, wanted).await?;
        Ok((root, referrers))
    }

    /// Reads the policy that every image has to pass, if there is one.
    pub(crate) async fn gate(&self) -> Result<Option<Gate>> {
        self.gate.gate().await
    }

    /// Fails for flags that need to read the source more than once, which a pipe does not allow.
    pub(crate) fn check_pipe(&self) -> Result {
        if self.gate.is_given() {
            return Err(Failure::usage("cannot verify an archive from a pipe: it is copied while it is read")
                .hint("write the archive to a file and copy the file with --verify"));
        }
        if !self.platform.is_empty() || self.dry_run || self.no_clobber {
            return Err(Failure::usage(
                "cannot use --platform, --dry-run or --no-clobber with an archive from a pipe: it is copied while it is read",
            )
            .hint("write the archive to a file and copy the file"));
        }
        Ok(())
    }

    /// Fails with `--no-clobber` if the target tag already points to a different image.
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
                let message = format!("cannot overwrite {target}: it already points to {}", found.digest);
                Err(Failure::new(Code::Other, message).hint("leave out --no-clobber to overwrite the tag"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the file of `--digest-file` can be written, before anything is copied.
    fn check_digest_file(&self) -> Result {
        self.digest_file.as_deref().map_or(Ok(()), crate::file::check_writable)
    }

    /// Writes the digest to the file of `--digest-file`.
    pub(crate) fn write_digest(&self, digest: Digest) -> Result {
        let Some(path) = &self.digest_file else { return Ok(()) };
        crate::file::write(path, format!("{digest}\n").as_bytes())
    }
}

/// Returns whether a target is a device or a pipe, which cannot hold an earlier image.
fn is_stream(target: &Location) -> bool {
    target.path().is_some_and(OutputFile::is_stream)
}

/// Reports which platform of an index is copied to a docker archive, which holds one only.
async fn say_fit(context: &Context, session: &Session, root: &Root, targets: &[Location]) {
    for target in targets.iter().filter(|target| target.is_docker_archive()) {
        // A failure is reported by the copy.
        if let Root::Index(_) = root
            && let Ok(Root::Image(image)) = session.fit(root, target).await
            && let Ok(config) = image.config().await
            && let Some(platform) = config.platform()
        {
            context.output.say(format!("{target} holds one platform; copying {platform}"));
        }
    }
}

/// Copies an image to all targets in parallel. A failed target does not stop the others.
pub(crate) async fn copy_to_all(
    context: &Context,
    session: &Session,
    source: &Location,
    targets: &[Location],
    transfer: &TransferArguments,
) -> Result {
    transfer.check_digest_file()?;
    session.expect_transfer();
    // An image with a name is looked up in the whole archive.
    if source.name() == Name::Only
        && !source.is_docker_archive()
        && let Some(pipe) = pipe::reader(source).await?
    {
        transfer.check_pipe()?;
        let (copied, present) = session.receive_present_to_each(pipe, targets).await?;
        pipe::say_present(context, source, present.as_ref());
        let results =
            targets.iter().zip(copied).map(|(target, copied)| Ok(TargetOutput::of(target, &copied?))).collect();
        return report_all(context, targets, results, transfer);
    }
    let (root, referrers) = transfer.open(context, session, source, transfer.gate().await?.as_ref()).await?;
    let session = &session.with_referrers(referrers);
    let root = transfer.select_platforms(root).await?;
    say_fit(context, session, &root, targets).await;
    let results = copy_together(session, &root, source, targets, transfer).await;
    report_all(context, targets, results, transfer)
}

/// Copies an image to targets, or with `--dry-run` plans the copy. The source is read once for all of them; standard
/// output is copied separately, because a write to it cannot be retried.
pub(crate) async fn copy_together(
    session: &Session,
    root: &Root,
    source: &Location,
    targets: &[Location],
    transfer: &TransferArguments,
) -> Vec<Result<TargetOutput>> {
    let checks = join_all(targets.iter().map(|target| transfer.check_target(session, root.digest(), target))).await;
    let wanted = targets.iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(target, _)| target);
    let is_stream = |target: &Location| *target == Location::Stdio && !transfer.dry_run;
    let (streams, places): (Vec<_>, Vec<_>) = wanted.cloned().partition(is_stream);
    let copies = async {
        if transfer.dry_run {
            let planned = session.plan_root_to_each(root, Some(source), &places).await.into_iter().zip(&places);
            return planned.map(|(planned, target)| Ok(TargetOutput::of_plan(target, &planned?))).collect();
        }
        let copied = session.copy_root_to_each(root, Some(source), &places).await.into_iter().zip(&places);
        copied.map(|(copied, target)| Ok(TargetOutput::of(target, &copied?))).collect::<Vec<Result<_>>>()
    };
    let stream = join_all(streams.iter().map(|stream| copy_out(session, root, source, stream)));
    let (copied, streamed) = join(copies, stream).await;
    let (mut copied, mut streamed) = (copied.into_iter(), streamed.into_iter());
    let result = |(target, check): (&Location, Result)| {
        check?;
        let lost = || Failure::new(Code::Other, format_args!("cannot copy to {target}: the copy returned no result"));
        match is_stream(target) {
            true => Ok(TargetOutput::of(target, &streamed.next().ok_or_else(lost)??)),
            false => copied.next().ok_or_else(lost)?,
        }
    };
    targets.iter().zip(checks).map(result).collect()
}

/// Prints the result of each target and returns a failure if any target failed.
fn report_all(
    context: &Context,
    targets: &[Location],
    results: Vec<Result<TargetOutput>>,
    transfer: &TransferArguments,
) -> Result {
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for (target, outcome) in targets.iter().zip(results) {
        match outcome {
            Ok(result) => done.push(result),
            Err(failure) => failures.push((target, failure)),
        }
    }
    // What is copied is printed also if the file cannot be written.
    let written = done.first().map_or(Ok(()), |result| transfer.write_digest(result.digest));
    let succeeded = done.len();
    report_beside(context, targets, done)?;
    written?;
    partial(failures, succeeded, "targets")
}

/// The number of images that are opened concurrently.
const CONCURRENT_OPENS: usize = 8;

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
            return Named { location, naming: Naming::of_tag(tag) };
        }
        let tag = name.parse::<Reference>().ok().and_then(|reference| reference.tag().cloned());
        let naming = Naming::default().tag(tag).full(Some(name.to_owned()));
        Named { location: place.with_name(Name::Full(name.to_owned())), naming }
    }
}

/// Copies several images to one place, each under its own name. Tags are written after all images are complete.
pub(crate) async fn copy_several(
    context: &Context,
    session: &Session,
    images: Vec<Named>,
    target: &Location,
    transfer: &TransferArguments,
) -> Result {
    let gate = &transfer.gate().await?;
    let open = |Named { location, naming }: Named| async move {
        if let Some(tag) = &naming.tag
            && let Some(kind) = ReferrerTag::of(tag)
        {
            // With a policy, referrers are copied together with their subjects, and only if the policy allows it.
            if gate.is_some() {
                return Ok((Vec::new(), Referrers::None));
            }
            let source = session.source(&location).await?;
            let wanted = session.options().referrers.clone();
            let found = tagged_referrers(&source, tag, kind, &wanted).await?;
            let found = found.into_iter().map(|(root, naming)| {
                let target = referrer_target(target, &root, &naming)?;
                Ok::<_, Failure>((target, root, naming))
            });
            return Ok((found.collect::<Result<_>>()?, wanted));
        }
        let (root, referrers) = transfer.open(context, session, &location, gate.as_ref()).await?;
        let root = transfer.select_platforms(root).await?;
        let target = image_target(target, &location, &naming)?;
        transfer.check_target(session, root.digest(), &target).await?;
        Ok::<_, Failure>((vec![(target, root, naming)], referrers))
    };
    let roots = stream::iter(images).map(open).buffered(CONCURRENT_OPENS);
    let roots: Vec<(Vec<_>, Referrers)> = roots.try_collect().await?;
    let (roots, referrers): (Vec<_>, Vec<_>) = roots.into_iter().unzip();
    let roots: Vec<_> = roots.into_iter().flatten().collect();
    check_distinct(&roots)?;
    let session = &session.with_referrers(Referrers::of_any(referrers));
    let mut results = Vec::new();
    if transfer.dry_run {
        for (target, root, _) in &roots {
            results.push(TargetOutput::of_plan(target, &session.plan(root, target).await?));
        }
        return report(context, results);
    }
    let sink = session.sink(target).await?;
    let named: Vec<_> = roots.iter().map(|(_, root, naming)| (root.clone(), vec![naming.clone()])).collect();
    let copied = copy_all(&named, &sink, &session.copy_options(Vec::new())).await?;
    let results: Vec<_> =
        roots.iter().zip(&copied).map(|((target, ..), copied)| TargetOutput::of(target, copied)).collect();
    report_beside(context, std::slice::from_ref(target), results)
}

/// Returns the names of an image of a registry in an archive or layout.
fn naming(reference: &Reference) -> Naming {
    let tag = reference.tag().cloned();
    let full = tag.clone().map(|tag| Reference::tagged(reference.repository().clone(), tag).to_string());
    Naming::default().tag(tag).full(full)
}

/// Returns the target of one of several images: the same tag in the target repository, or the target itself.
fn image_target(target: &Location, source: &Location, naming: &Naming) -> Result<Location> {
    target_in(target, |repository| match &naming.tag {
        Some(tag) => Ok(Reference::tagged(repository.clone(), tag.clone())),
        None => {
            let failure = Failure::usage(format_args!("cannot copy {source} to {repository}: its name has no tag"));
            Err(failure.hint("copy it alone, with a tag in the target"))
        }
    })
}

/// Returns the location of one of several roots: this reference in a repository, or the place itself.
fn target_in(place: &Location, reference: impl FnOnce(&Repository) -> Result<Reference>) -> Result<Location> {
    match place.reference() {
        Some(target) => Ok(Location::Registry(reference(target.repository())?)),
        None => Ok(place.clone()),
    }
}

/// Fails if two different images get one tag of a registry: the second would overwrite the first.
fn check_distinct(images: &[(Location, Root, Naming)]) -> Result {
    let mut digests: HashMap<String, (Digest, String)> = HashMap::new();
    for (target, root, naming) in images {
        let Some(reference) = target.reference() else { continue };
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

/// Returns the target of a referrer: its tag in the target repository, or its digest if it has no tag.
fn referrer_target(target: &Location, root: &Root, naming: &Naming) -> Result<Location> {
    target_in(target, |repository| {
        Ok(match &naming.tag {
            Some(tag) => Reference::tagged(repository.clone(), tag.clone()),
            None => Reference::digested(repository.clone(), root.digest()),
        })
    })
}

/// Copies a root to a location, which may be standard output.
pub(crate) async fn copy_out(session: &Session, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
    if *to != Location::Stdio {
        return Ok(session.copy_root_from(root, from, to).await?);
    }
    let stream: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", std::io::stdout(), session.options().archive.clone()));
    Ok(session.copy_to(root, &stream, vec![Naming::default()]).await?)
}
