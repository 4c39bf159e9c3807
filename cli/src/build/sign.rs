use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use ocikit::image::{Memory, Result as ImageResult};
use ocikit::{Copied, CopyOptions, Location, Reference, Root, Session, Sink};
use ocikit_sign::{Format, SignOptions, Signature, Signer, VerificationMaterial};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::keys::{self, SignerArguments};
use crate::sigstore::VerificationMaterialArguments;

/// Signing a built image. The flags are those of `sign`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub(crate) struct SignBuildArguments {
    #[command(flatten)]
    signer: SignerArguments,
    /// Sign in this format; repeatable
    #[arg(long, value_parser = keys::format_parser(), value_name = "FORMAT", default_values = ["cosign"])]
    sign_format: Vec<Format>,
    #[command(flatten)]
    material: VerificationMaterialArguments,
}

/// What signs the image, if it is read before the build.
pub(crate) type Key = (Arc<dyn Signer>, Option<VerificationMaterial>);

impl SignBuildArguments {
    /// Returns whether the image is signed.
    pub(crate) fn is_given(&self) -> bool {
        self.signer.is_given() || self.material.flags().any(|(_, is_given)| is_given)
    }

    /// Reads the key, so that a wrong one fails before the build. A certificate for keyless signing is valid for minutes only,
    /// so it is requested after the build.
    pub(crate) async fn key(&self, context: &Context) -> Result<Option<Key>> {
        match self.signer.is_given() {
            true => Ok(Some(self.material.signer(&self.signer, context, false).await?)),
            false => Ok(None),
        }
    }

    /// Signs an image, before it is visible anywhere. The location of the first output names it in cosign-legacy signatures. With a
    /// session, no format is signed in which all outputs have a signature of the key from an earlier run.
    pub(crate) async fn sign(
        &self,
        context: &Context,
        key: Option<Key>,
        root: &Root,
        earlier: Option<&Session>,
        images: &[Location],
    ) -> Result<Vec<Signature>> {
        if !self.is_given() {
            return Ok(Vec::new());
        }
        let (signer, material) = match key {
            Some(key) => key,
            None => self.material.signer(&self.signer, context, false).await?,
        };
        let mut formats = self.sign_format.clone();
        formats.sort_unstable();
        formats.dedup();
        let reference = images.iter().find(|image| image.reference().is_some()).map(keys::repository);
        let mut options = SignOptions::new(formats, keys::now(context.epoch)?)
            .reference(reference.unwrap_or_default())
            .material(material);
        // Each keyless signature has a key of its own.
        if let Some(session) = earlier.filter(|_| options.material.is_none()) {
            options.formats = missing_formats(&options, &*signer, root, session, images).await;
        }
        if options.formats.is_empty() {
            return Ok(Vec::new());
        }
        Ok(ocikit_sign::sign(root, &*signer, &options).await?)
    }
}

/// Returns the formats in which an image has no signature of the signer in some output: another run may have signed it in all
/// repositories. Files are written anew.
async fn missing_formats(
    options: &SignOptions,
    signer: &dyn Signer,
    root: &Root,
    session: &Session,
    images: &[Location],
) -> Vec<Format> {
    let mut repositories = BTreeSet::new();
    for image in images {
        let Location::Registry(reference) = image else { return options.formats.clone() };
        repositories.insert(reference.repository());
    }
    let mut missing = BTreeSet::new();
    for repository in repositories {
        let stored = Location::Registry(Reference::digested(repository.clone(), root.digest()));
        let Ok(stored) = session.open(&stored).await else { return options.formats.clone() };
        missing
            .extend(ocikit_sign::missing_formats(&stored, signer.public_key(), &options.formats, options.depth).await);
    }
    missing.into_iter().collect()
}

/// Returns a root with signatures beside it, which are copied with it and stored before its names change.
pub(crate) async fn with_signatures(root: Root, signatures: &[Signature]) -> Result<Root> {
    if signatures.is_empty() {
        return Ok(root);
    }
    let memory = Arc::new(Memory::over(root.source().clone()));
    let place: Arc<dyn Sink> = memory.clone();
    ocikit_sign::attach(signatures, &place, &CopyOptions::default()).await?;
    Ok(Root::at(memory, root.descriptor().clone()).await?)
}

/// Returns the outcome of a copy of a root with these signatures. It has failed if the place has something else under their
/// tags, or has the root without them.
pub(crate) fn signed(
    copied: ImageResult<Copied>,
    root: &Root,
    signatures: &[Signature],
    place: &Location,
) -> Result<Copied> {
    let copied = copied?;
    if signatures.is_empty() {
        return Ok(copied);
    }
    if let Some(kept) = copied.kept.first() {
        let what = format!("{} ({})", kept.tag, kept.there);
        return Err(ocikit::Error::Exists { what, place: place.to_string() }.into());
    }
    if copied.root.digest == root.digest() && copied.referrers.is_empty() {
        let message = format!("{place} has the image, but cannot hold its signatures");
        return Err(Failure::new(Code::Other, message).hint("write an OCI archive"));
    }
    Ok(copied)
}
