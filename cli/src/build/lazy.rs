//! The lazily pulled images of a build: made from the plain image where it was stored.

use ocikit::layout::DockerList;
use ocikit::{Location, Root, Session};
use ocikit_lazy::Format;
use ocikit_publish::{LazyImage, LazyPlacement, LazyRequest};
use ocikit_sign::Signature;

use super::lazy_output::LazyOutput;
use super::outputs::Outputs;
use super::sign::{Key, SignBuildArguments, signed, with_signatures};
use crate::context::Context;
use crate::failure::{Code, FailedItem, Failure, Result};
use crate::lazy::{beside, check_places, failure_of, names, say_warnings};
use crate::output::counted;
use crate::report::{self, TargetOutput};

/// What the lazily pulled images of a build need.
pub(crate) struct LazyBuild<'a> {
    pub(crate) context: &'a Context,
    pub(crate) session: &'a Session,
    pub(crate) request: &'a LazyRequest,
    pub(crate) outputs: &'a Outputs,
    pub(crate) sign: &'a SignBuildArguments,
    pub(crate) key: Option<Key>,
}

impl LazyBuild<'_> {
    /// Makes the images from the one that was written to these places: those that are complete, and the failures.
    ///
    /// Returns the root that is in the places afterwards: the given one, or the index with all.
    pub(crate) async fn make(&self, root: Root, written: &[Location]) -> (Root, Vec<LazyOutput>, Vec<FailedItem>) {
        let (mut root, mut done, mut failed) = (root, Vec::new(), Vec::new());
        for format in self.request.formats.iter().filter(|_| !written.is_empty()) {
            match self.one(format, written, &mut failed).await {
                // Every place has failed, each with its own reason.
                Ok(None) => {}
                Ok(Some((image, output))) => {
                    done.push(output);
                    root = if self.request.placement == LazyPlacement::Index { image } else { root };
                }
                Err(Failure { code, message, .. }) => {
                    let missing = written.iter().map(|place| self.name(format, place));
                    failed.extend(missing.map(|name| FailedItem { name, code, message: message.clone() }));
                }
            }
        }
        (root, done, failed)
    }

    /// Returns the name of an image that is missing beside a place, for messages.
    fn name(&self, format: &Format, place: &Location) -> String {
        let missing = match self.request.placement {
            LazyPlacement::Tag => beside(self.request, format, place, true).unwrap_or_else(|_| place.clone()),
            LazyPlacement::Index | LazyPlacement::Referrer => place.clone(),
        };
        format!("{missing} ({})", format.name())
    }

    /// Returns the session that writes the images: an archive needs no `manifest.json` if docker cannot load the format.
    fn session(&self) -> Session {
        let options = self.session.options().clone();
        let docker = match options.archive.docker.clone() {
            DockerList::For(platform) => DockerList::IfLoadable(platform),
            docker => docker,
        };
        let archive = options.archive.clone().docker(docker);
        Session::new(self.session.client().clone(), options.archive(archive))
    }

    /// Makes the image of a format and stores it; `None` if no place has it.
    async fn one(
        &self,
        format: &Format,
        written: &[Location],
        failed: &mut Vec<FailedItem>,
    ) -> Result<Option<(Root, LazyOutput)>> {
        // A file is nearer than a registry.
        let source = written.iter().find(|place| place.path().is_some()).or(written.first());
        let source = source.ok_or_else(|| Failure::new(Code::Other, "the plain image is stored nowhere"))?;
        let root = self.session.open(source).await?;
        let image = self.request.convert(&root, format).await.map_err(failure_of)?;
        say_warnings(self.context, &image.warnings);
        let others = failed.len();
        let output = match self.request.placement {
            LazyPlacement::Referrer => self.refer(format, written, &image, failed).await?,
            LazyPlacement::Tag | LazyPlacement::Index => self.write(format, written, &image.root, failed).await?,
        };
        let is_stored = failed.len() < others + written.len();
        Ok(is_stored.then_some((image.root, output)))
    }

    /// Writes an image to its own places, or over the plain one.
    async fn write(
        &self,
        format: &Format,
        written: &[Location],
        root: &Root,
        failed: &mut Vec<FailedItem>,
    ) -> Result<LazyOutput> {
        let is_named = !self.outputs.names.is_empty();
        let (places, names) = match self.request.placement {
            LazyPlacement::Tag => {
                let places = written.iter().map(|to| beside(self.request, format, to, is_named));
                (places.collect::<Result<Vec<_>>>()?, names(self.request, format, &self.outputs.names)?)
            }
            LazyPlacement::Index | LazyPlacement::Referrer => (written.to_vec(), self.outputs.names.clone()),
        };
        let signatures = self.sign.sign(self.context, self.key.clone(), root, self.session, &places).await?;
        let root = with_signatures(root.clone(), &signatures).await?;
        let session = self.session();
        let mut targets = session.targets(&places, None).await;
        targets.check()?;
        let copied = targets.publish(&root, &names).await;
        let mut outputs = Vec::new();
        for (place, copied) in places.iter().zip(copied) {
            match signed(self.context, copied, &root, &signatures, place) {
                Ok(copied) => outputs.push(TargetOutput::of(place, &copied)),
                Err(Failure { code, message, .. }) => {
                    failed.push(FailedItem { name: format!("{place} ({})", format.name()), code, message });
                }
            }
        }
        report::say(self.context, &outputs);
        Ok(LazyOutput {
            format: format.name(),
            placement: self.request.placement.name(),
            digests: vec![root.digest()],
            targets: outputs,
            signatures: signatures.iter().map(|signature| signature.root.digest()).collect(),
        })
    }

    /// Stores referrers in the places of the plain image.
    async fn refer(
        &self,
        format: &Format,
        written: &[Location],
        image: &LazyImage,
        failed: &mut Vec<FailedItem>,
    ) -> Result<LazyOutput> {
        let mut signatures = Vec::new();
        for referrer in &image.referrers {
            signatures.extend(self.sign.sign(self.context, self.key.clone(), referrer, self.session, written).await?);
        }
        for place in written {
            if let Err(Failure { code, message, .. }) = self.store(place, image, &signatures).await {
                failed.push(FailedItem { name: self.name(format, place), code, message });
            }
        }
        Ok(LazyOutput {
            format: format.name(),
            placement: self.request.placement.name(),
            digests: image.referrers.iter().map(Root::digest).collect(),
            targets: Vec::new(),
            signatures: signatures.iter().map(|signature| signature.root.digest()).collect(),
        })
    }

    /// Stores the referrers of an image in a place, after their signatures.
    async fn store(&self, place: &Location, image: &LazyImage, signatures: &[Signature]) -> Result {
        if !signatures.is_empty() {
            let sink = self.session.edit(place).await?;
            ocikit_sign::attach(signatures, &sink, &self.session.copy_options(Vec::new())).await?;
        }
        Ok(self.session.store_referrers(place, &image.referrers).await?)
    }
}

/// Checks before the build that every place can have the images.
pub(crate) fn check(request: &LazyRequest, outputs: &Outputs) -> Result {
    if request.is_empty() {
        return Ok(());
    }
    if outputs.images.is_empty() {
        return Err(Failure::usage("cannot make a lazily pulled image: the build has no image as its output"));
    }
    if request.placement == LazyPlacement::Tag {
        return check_places(request, &outputs.images, &outputs.names);
    }
    for image in &outputs.images {
        match image {
            Location::Stdio | Location::DockerArchive { .. } => {
                return Err(Failure::usage(format_args!(
                    "cannot add a lazily pulled image to {image}: it holds one plain image"
                )));
            }
            Location::Registry(_) | Location::Layout { .. } | Location::Archive { .. } | Location::Path { .. } => {}
        }
    }
    Ok(())
}

/// Returns the failure for images that are missing beside plain ones that are stored.
pub(crate) fn missing(failed: Vec<FailedItem>) -> Result {
    match failed.len() {
        0 => Ok(()),
        count => {
            let images = counted(count, "lazily pulled image", "lazily pulled images");
            let message = format!("the plain image is complete; {images} could not be made");
            let failure = Failure::new(Code::Partial, message);
            Err(Failure { failed, ..failure }
                .hint("`ocikit convert` makes one of the stored image: see `ocikit convert --help`"))
        }
    }
}
