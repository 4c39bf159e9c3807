//! `inspect --check-base`: whether the base image of an image has changed since it was built.

use ocikit::image::base_of;
use ocikit::{Location, Platform, Reference, Root};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// Prints whether the base image that the annotations name has changed, and fails with the exit code 5 if it has.
pub(crate) async fn check_base(context: &Context, location: &Location, platform: Option<&Platform>) -> Result {
    let root = context.session(&[location])?.open(location).await?;
    let platforms: Vec<_> = platform.cloned().into_iter().collect();
    let base = base_of(&root, &platforms).await?;
    let name: Reference = base.name.parse().map_err(|error| {
        Failure::usage(format_args!("cannot use the base image `{}` of the annotations: {error}", base.name))
    })?;
    let missing = || Failure::new(Code::Missing, format_args!("{location} has no digest of its base image {name}"));
    let digest = base.digest.ok_or_else(missing)?;
    let name = match name.tag() {
        Some(tag) => Reference::tagged(name.repository().clone(), tag.clone()),
        None => name,
    };
    let there = Location::Registry(name);
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
