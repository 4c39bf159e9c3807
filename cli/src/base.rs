//! `inspect --check-base`: whether the base image of an image has changed since it was built.

use ocikit::image::base_of;
use ocikit::{Digest, Location, Platform, Reference, Root};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;

/// The result of the check.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedBase {
    location: String,
    /// The reference of the base image.
    base: String,
    /// The digest of the base image when the image was built.
    digest: Digest,
    /// The digest that the reference leads to now.
    current: Digest,
    /// Whether the base image has changed.
    moved: bool,
}

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
    let checked =
        CheckedBase { location: location.to_string(), base: base.name, digest, current: current.digest(), moved };
    context.output.result(&checked, || {
        let mut lines = Lines::default();
        match checked.moved {
            true => lines.push(format!("{}: was {digest}, is {}", checked.base, checked.current)),
            false => lines.push(format!("{}: unchanged, {digest}", checked.base)),
        }
        lines
    })?;
    match moved {
        true => Err(Failure::new(Code::Unverified, "the base image has changed").silent()),
        false => Ok(()),
    }
}
