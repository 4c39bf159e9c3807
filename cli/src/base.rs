//! The base image that annotations name, and `inspect --check-base`: whether it has changed since the image was built.

use ocikit::image::{BaseImage, base_of};
use ocikit::{Location, Platform, Reference, Root};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// Prints whether the base image that the annotations name has changed, and fails with the exit code 5 if it has.
pub(crate) async fn check_base(context: &Context, location: &Location, platform: Option<&Platform>) -> Result {
    let root = context.session(&[location])?.open(location).await?;
    let platforms: Vec<_> = platform.cloned().into_iter().collect();
    let base = base_of(&root, &platforms).await?;
    let name = reference_of(&base)?;
    let missing = || Failure::new(Code::Missing, format_args!("{location} has no digest of its base image {name}"));
    let digest = base.digest.ok_or_else(missing)?;
    let there = Location::Registry(without_digest(&name));
    let current = context.session(&[&there])?.open(&there).await?;
    // Some builders record the digest of the image for the platform, others that of the index.
    let is_listed = match &current {
        Root::Index(index) => index.manifests().iter().any(|entry| entry.digest == digest),
        Root::Image(_) | Root::Other(_) => false,
    };
    let moved = current.digest() != digest && !is_listed;
    let result = json!({
        "location": location.to_string(),
        "base": base.name,
        // The digest of the base image when the image was built, and the one that the reference leads to now.
        "digest": digest,
        "current": current.digest(),
        "moved": moved,
    });
    context.output.result(&result, || match moved {
        true => format!("{}: was {digest}, is {}", base.name, current.digest()),
        false => format!("{}: unchanged, {digest}", base.name),
    })?;
    match moved {
        true => Err(Failure::new(Code::Unverified, "the base image has changed").silent()),
        false => Ok(()),
    }
}

/// Returns the reference of the base image that annotations name.
pub(crate) fn reference_of(base: &BaseImage) -> Result<Reference> {
    base.name.parse().map_err(|error| {
        Failure::usage(format_args!("cannot use the base image `{}` of the annotations: {error}", base.name))
    })
}

/// Returns the reference by its tag, if it has one.
pub(crate) fn without_digest(reference: &Reference) -> Reference {
    match reference.tag() {
        Some(tag) => Reference::tagged(reference.repository().clone(), tag.clone()),
        None => reference.clone(),
    }
}
