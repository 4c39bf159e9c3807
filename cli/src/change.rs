//! What the commands that change an image share: in place, to another location, or as a dry run.

use std::sync::Arc;

use clap::Args;
use ocikit::image::{Mapped, Orphan, Selection};
use ocikit::layout::{DockerList, TarOptions};
use ocikit::{Changed, Digest, Error, Location, Platform, Root, Session, SessionOptions};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{counted, is_zero};
use crate::report::{has_zstd_for_docker, say_zstd};

/// Where a changed image is written.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChangeArguments {
    /// Write the result to this location and leave the original unchanged
    #[arg(long, short, value_name = "LOCATION")]
    output: Option<Location>,
    /// Remove referrers that do not apply to the new digest
    #[arg(long, conflicts_with = "output")]
    drop_referrers: bool,
    /// Do not add the list of images that `docker load` needs
    #[arg(long)]
    no_docker: bool,
    /// Print the new digest without changing anything
    #[arg(long)]
    dry_run: bool,
}

/// The platforms that a change is restricted to.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlatformArguments {
    /// Change only the image for this platform; repeatable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Vec<Platform>,
}

impl PlatformArguments {
    pub(crate) fn selection(&self) -> Selection {
        Selection::of(self.platform.clone())
    }

    /// Returns whether some images of an index are not changed.
    pub(crate) fn is_partial(&self) -> bool {
        !self.platform.is_empty()
    }
}

/// A change of one image, with the places opened that it needs.
pub(crate) struct Change<'a> {
    pub(crate) context: &'a Context,
    arguments: &'a ChangeArguments,
    /// The session of the change.
    pub(crate) session: Session,
    pub(crate) location: Location,
    output: Option<Location>,
}

/// The result of a change, for `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangeOutput {
    location: String,
    before: Digest,
    digest: Digest,
    changed: bool,
    /// BuildKit's attestation manifests whose statements name an old digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outdated_attestations: Vec<Digest>,
    /// Signatures and other referrers that do not apply to the new digest.
    #[serde(skip_serializing_if = "is_zero")]
    orphaned_referrers: usize,
    /// The number of removed referrers.
    #[serde(skip_serializing_if = "is_zero")]
    dropped_referrers: usize,
    /// Copies of referrers that have the new digest as their subject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    updated_referrers: Vec<Digest>,
}

impl ChangeArguments {
    /// Returns the arguments with another output.
    pub(crate) fn with_output(&self, output: Location) -> ChangeArguments {
        ChangeArguments { output: Some(output), ..self.clone() }
    }

    /// Prepares a change of the image at a location, which may need other places too.
    pub(crate) fn prepare<'a>(
        &'a self,
        context: &'a Context,
        location: &Location,
        others: &[&Location],
    ) -> Result<Change<'a>> {
        self.prepare_with(context, location, others, SessionOptions::default())
    }

    /// As [`ChangeArguments::prepare`], with options of the session.
    pub(crate) fn prepare_with<'a>(
        &'a self,
        context: &'a Context,
        location: &Location,
        others: &[&Location],
        options: SessionOptions,
    ) -> Result<Change<'a>> {
        let location = context.expand(location);
        let output = self.output.as_ref().map(|output| context.expand_output(output));
        let docker = if self.no_docker { DockerList::None } else { DockerList::default() };
        let archive = TarOptions::default().docker(docker);
        let options = options.archive(archive);
        let locations: Vec<_> =
            [&location, output.as_ref().unwrap_or(&location)].into_iter().chain(others.iter().copied()).collect();
        let session = context.session_with(&locations, options)?;
        Ok(Change { context, arguments: self, session, location, output })
    }
}

impl Change<'_> {
    /// Returns where the result is written; `None` for a dry run and for standard output.
    pub(crate) fn stored_at(&self) -> Option<&Location> {
        let target = self.output.as_ref().unwrap_or(&self.location);
        (!self.arguments.dry_run && *target != Location::Stdio).then_some(target)
    }

    /// Makes the change where the arguments say so, and reports the result.
    ///
    /// An image that an index lists and the place does not hold is left out of an output, unless `is_partial` says that
    /// the change reads only some of them.
    pub(crate) async fn run<F, New, C>(self, is_partial: bool, change: F) -> Result
    where
        F: FnOnce(Root) -> New + Send,
        New: Future<Output = ocikit::Result<C>> + Send,
        C: Into<Mapped>,
    {
        let changed = self.make(is_partial, change).await?;
        self.report(&changed).await
    }

    /// Makes the change where the arguments say so.
    pub(crate) async fn make<F, New, C>(&self, is_partial: bool, change: F) -> Result<Changed>
    where
        F: FnOnce(Root) -> New + Send,
        New: Future<Output = ocikit::Result<C>> + Send,
        C: Into<Mapped>,
    {
        let Change { context, session, location, .. } = self;
        let progress = context.progress.of_change();
        let change = move |root: Root| async move {
            let root = match &progress {
                Some(progress) => root.observed(progress.clone()),
                None => root,
            };
            let changed = change(root).await;
            progress.iter().for_each(|progress| progress.end());
            changed
        };
        if self.is_in_place().await? {
            let changed = session.change(location, change).await;
            return match changed {
                Err(error) if !is_partial => Err(self.with_held_platforms(error).await),
                changed => Ok(changed?),
            };
        }
        // A dry run reports what a change in place would do.
        let is_whole = !is_partial;
        let is_partial = is_partial || self.output.is_none();
        let root = crate::pipe::open_image(context, session, location, is_partial).await?;
        let mapped: Mapped = match change(root.clone()).await {
            Err(error) if is_whole => return Err(self.with_held_platforms(error).await),
            changed => changed?.into(),
        };
        if let Some(output) = self.writes_to() {
            crate::transfer::copy_out(session, &mapped.root, location, output).await?;
        }
        Ok(Changed::planned(&root, mapped).await?)
    }

    /// Adds the platforms that the place has to the error of a change of an index that lists more, as `copy --sparse` leaves it.
    async fn with_held_platforms(&self, error: Error) -> Failure {
        let is_missing = matches!(error, Error::NotFound { .. });
        let failure = Failure::from(error);
        let Some(Root::Index(index)) = (if is_missing { self.session.open(&self.location).await.ok() } else { None })
        else {
            return failure;
        };
        match ocikit::held_platforms(&index).await {
            Ok(Some(platforms)) if !platforms.is_empty() => {
                let flags: Vec<_> = platforms.iter().map(|platform| format!("--platform {platform}")).collect();
                failure.hint(format_args!(
                    "the index lists manifests that do not exist here; change those that do with `{}`",
                    flags.join(" ")
                ))
            }
            _ => failure,
        }
    }

    /// Returns whether the image is changed in its place.
    ///
    /// # Errors
    ///
    /// If it comes through a pipe.
    pub(crate) async fn is_in_place(&self) -> Result<bool> {
        let is_in_place = self.output.is_none() && !self.arguments.dry_run;
        if is_in_place && crate::pipe::is_pipe(&self.location).await? {
            let message = format_args!("cannot change {}: an archive from a pipe has no place", self.location);
            return Err(Failure::usage(message).hint("add `--output LOCATION`"));
        }
        Ok(is_in_place)
    }

    /// Returns the location that the result is written to; `None` in place and for a dry run.
    pub(crate) fn writes_to(&self) -> Option<&Location> {
        self.output.as_ref().filter(|_| !self.arguments.dry_run)
    }

    /// Returns the location of the result, for messages.
    pub(crate) fn target(&self) -> &Location {
        self.output.as_ref().unwrap_or(&self.location)
    }

    /// Removes the referrers that a change left without their subject, if the arguments say so, and says how many are left.
    /// Returns the number of removed ones.
    pub(crate) async fn handle_orphans(
        &self,
        orphans: &[Orphan],
        unknown: Option<&Arc<Error>>,
        updated: usize,
    ) -> Result<usize> {
        let Change { context, session, location, arguments, .. } = self;
        match unknown {
            Some(error) if arguments.drop_referrers => return Err(Error::again(error).into()),
            Some(error) => {
                let why = ocikit::spec::with_causes(&**error);
                context.output.say(format!("warning: the image was changed; its old referrers are not known: {why}"));
            }
            None => {}
        }
        let dropped = match arguments.drop_referrers && !arguments.dry_run {
            true => session.drop_referrers(location, orphans).await?,
            false => 0,
        };
        let left = orphans.len().saturating_sub(dropped.max(updated));
        if left > 0 {
            let verb = if left == 1 { "does" } else { "do" };
            let what = counted(left, "signature or other referrer", "signatures or other referrers");
            context.output.say(format!("warning: {what} {verb} not apply to the new digest"));
            if self.output.is_none() && !arguments.drop_referrers {
                context.output.say("hint: sign the new digest; add --drop-referrers to remove the old referrers");
            }
        }
        Ok(dropped)
    }

    /// Prints the new digest, and says what does not apply to it.
    pub(crate) async fn report(&self, changed: &Changed) -> Result {
        self.report_with(changed, false).await
    }

    /// As [`Change::report`], and first points referrers to the new digest if they are not signatures.
    pub(crate) async fn report_with(&self, changed: &Changed, update_referrers: bool) -> Result {
        let Change { session, location, arguments, context, .. } = self;
        if let Some(error) = changed.orphans_unknown.as_ref().filter(|_| update_referrers) {
            return Err(Error::again(error).into());
        }
        let updated = match update_referrers && !arguments.dry_run {
            true => session.update_referrers(location, changed).await?,
            false => Vec::new(),
        };
        if !updated.is_empty() {
            let what = counted(updated.len(), "referrer", "referrers");
            context.output.say(format!("pointed {what} to the new digest"));
        }
        match changed.attestations.len() {
            0 => {}
            1 => context.output.say(
                "warning: 1 attestation manifest describes the image before the change: its statements name the old digest",
            ),
            count => context.output.say(format!(
                "warning: {count} attestation manifests describe the image before the change: their statements name the old digest"
            )),
        }
        if !changed.docker_annotations.is_empty() {
            let what = counted(changed.docker_annotations.len(), "document", "documents");
            context.output.say(format!(
                "warning: docker ignores the annotations of {what} in its own format; `ocikit convert --to oci` changes the format"
            ));
        }
        if !changed.dropped_soci.is_empty() {
            let what = counted(changed.dropped_soci.len(), "image", "images");
            context.output.say(format!(
                "warning: dropped the SOCI index of {what}, whose layers changed; `ocikit convert --to soci` makes a new one"
            ));
        }
        // A failure to find the image of a docker archive was reported by the copy.
        if !arguments.dry_run
            && let Ok(Root::Image(image)) = session.fit(&changed.after, self.target()).await
            && has_zstd_for_docker(self.target(), image.manifest().layers().iter())
        {
            say_zstd(context, self.target());
        }
        let dropped = self.handle_orphans(&changed.orphans, changed.orphans_unknown.as_ref(), updated.len()).await?;
        if self.output.as_ref().is_some_and(crate::file::writes_to_stdout) {
            return Ok(());
        }
        let digest = changed.after.digest();
        let result = ChangeOutput {
            location: self.target().to_string(),
            before: changed.before,
            digest,
            changed: digest != changed.before,
            outdated_attestations: changed.attestations.clone(),
            orphaned_referrers: changed.orphans.len(),
            dropped_referrers: dropped,
            updated_referrers: updated.iter().map(|referrer| referrer.digest).collect(),
        };
        context.output.result(&result, || digest.to_string())
    }
}
