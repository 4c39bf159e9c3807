use std::sync::Arc;

use clap::Args;
use ocikit::image::{Memory, Result as ImageResult};
use ocikit::{Copied, CopyOptions, Location, Name, Reference, Root, Session, Sink};
use ocikit_sign::{Format, SignOptions, Signature, Signer, SigningMethod};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::keys;
use crate::signing::Signers;

/// Signing a built image. The flags are those of `sign`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub(crate) struct SignBuildArguments {
    /// Sign in this format; repeatable
    #[arg(long, value_parser = keys::format_parser(), value_name = "FORMAT", default_values = ["cosign"])]
    sign_format: Vec<Format>,
    #[command(flatten)]
    signers: Signers,
}

/// What signs the image, if it is read before the build.
pub(crate) type Key = (SigningMethod, SignOptions);

impl SignBuildArguments {
    /// Returns whether the image is signed.
    pub(crate) fn is_given(&self) -> bool {
        self.signers.is_given()
    }

    /// Reads the key, so that a wrong one fails before the build. A certificate for keyless signing is valid for minutes only,
    /// so it is requested after the build.
    pub(crate) async fn key(&self, context: &Context) -> Result<Option<Key>> {
        self.signers.check_flags(&[], &self.sign_format, "--sign-format")?;
        match self.is_given() && !self.signers.is_keyless() {
            true => Ok(Some(self.signers.method(context, &self.sign_format, false).await?)),
            false => Ok(None),
        }
    }

    /// Signs an image, before it is visible anywhere. The location of the first output names it in cosign-legacy signatures. A
    /// signature of the same key that an earlier run stored in an output is taken instead of a new one.
    pub(crate) async fn sign(
        &self,
        context: &Context,
        key: Option<Key>,
        root: &Root,
        session: &Session,
        images: &[Location],
    ) -> Result<Vec<Signature>> {
        if !self.is_given() {
            return Ok(Vec::new());
        }
        let (by, options) = match key {
            Some(key) => key,
            None => self.signers.method(context, &self.sign_format, false).await?,
        };
        let reference = images.iter().find(|image| image.reference().is_some()).map(keys::repository);
        let mut options = options.reference(reference.unwrap_or_default());
        options.created = keys::now(context.epoch)?;
        let mut signatures = match &by {
            // Each keyless signature has a key of its own.
            SigningMethod::Signer(signer) if options.material.is_none() => {
                earlier(&options, &**signer, root, session, images).await
            }
            SigningMethod::Signer(_) | SigningMethod::Plugin(_) => Vec::new(),
        };
        options.formats.retain(|format| signatures.iter().all(|signature| signature.format != *format));
        if !options.formats.is_empty() {
            signatures.extend(by.sign(root, &options).await?);
        }
        Ok(signatures)
    }
}

/// Returns the signatures of the signer that an earlier run stored beside the same image in an output. Archives are written anew.
async fn earlier(
    options: &SignOptions,
    signer: &dyn Signer,
    root: &Root,
    session: &Session,
    images: &[Location],
) -> Vec<Signature> {
    let (mut found, mut missing, mut asked) = (Vec::new(), options.formats.clone(), Vec::new());
    for image in images {
        let stored = match image {
            Location::Registry(reference) => {
                Location::Registry(Reference::digested(reference.repository().clone(), root.digest()))
            }
            Location::Layout { .. } => image.with_name(Name::Digest(root.digest())),
            Location::Path { path, .. } if path.is_dir() => image.with_name(Name::Digest(root.digest())),
            Location::Path { .. } | Location::Archive { .. } | Location::DockerArchive { .. } | Location::Stdio => {
                continue;
            }
        };
        if missing.is_empty() || asked.contains(&stored) {
            continue;
        }
        if let Ok(stored) = session.open(&stored).await {
            found.extend(ocikit_sign::earlier_signatures(&stored, signer.public_key(), &missing, options.depth).await);
            missing.retain(|format| found.iter().all(|signature: &Signature| signature.format != *format));
        }
        asked.push(stored);
    }
    found
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
    context: &Context,
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
    if copied.root.digest != root.digest() && copied.referrers.is_empty() {
        context.output.say(format!("warning: {place} has one image of the index, without the signature of the index"));
    } else if copied.referrers.is_empty() {
        let message = format!("{place} has the image, but cannot hold its signatures");
        return Err(Failure::new(Code::Other, message).hint("write an OCI archive"));
    }
    Ok(copied)
}
