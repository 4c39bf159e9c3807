//! The lazily pulled images of a publication.

use ocikit::{Digest, Root, Session};
use ocikit_publish::report::LazyReport;
use ocikit_publish::{ImageSigner, LazyPlacement, LazyRequest, Plan, Published, PublishedLazy, publish_lazy};

use crate::context::Context;
use crate::failure::{Code, FailedItem, Failure, Result};
use crate::lazy::say_warnings;
use crate::output::counted;

/// Adds the images that are in one index with the plain one. A format that fails leaves the index without it.
pub(crate) async fn in_index(context: &Context, request: &LazyRequest, root: &Root) -> (Root, Vec<LazyReport>) {
    let (mut root, mut reports) = (root.clone(), Vec::new());
    if request.placement != LazyPlacement::Index {
        return (root, reports);
    }
    for format in &request.formats {
        let name = format.name();
        match request.convert(&root, format).await {
            Ok(image) => {
                say_warnings(context, &image.warnings);
                root = image.root;
                reports.push(LazyReport::in_index(name, &image.warnings, None));
            }
            Err(error) => reports.push(LazyReport::in_index(name, &[], Some(&error))),
        }
    }
    (root, reports)
}

/// Returns the digests of the images of a root.
pub(crate) fn images(root: &Root) -> Vec<Digest> {
    match root {
        Root::Index(index) => index.manifests().iter().map(|entry| entry.digest).collect(),
        Root::Image(_) | Root::Other(_) => vec![root.digest()],
    }
}

/// Publishes the images that are at tags of their own, or referrers.
pub(crate) async fn beside(
    context: &Context,
    session: &Session,
    request: &LazyRequest,
    (root, plan, published): (&Root, &Plan, &Published),
    signer: Option<&ImageSigner>,
) -> (Vec<PublishedLazy>, Vec<LazyReport>) {
    let images = publish_lazy(session, root, plan, published, request, signer).await;
    for image in &images {
        say_warnings(context, &image.warnings);
        if request.placement == LazyPlacement::Tag && image.digests.contains(&root.digest()) {
            context
                .output
                .say(format!("warning: no tag has a plain image: it has the format {} already", image.format));
        }
        for reference in image.references() {
            context.output.say(format!("{reference}: {}", image.format));
        }
    }
    let reports = images.iter().map(|image| LazyReport::of(image, request.placement)).collect();
    (images, reports)
}

/// Returns the failure if an image is missing.
pub(crate) fn outcome(reports: &[LazyReport]) -> Result {
    let missing: Vec<_> = reports.iter().filter(|report| report.problem.is_some()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut failed = Vec::new();
    let mut is_elsewhere = false;
    for report in &missing {
        let mut item = |name: &str, message: &str| {
            let name = format!("{name} ({})", report.format);
            failed.push(FailedItem { name, code: Code::Other, message: message.to_owned() });
        };
        if report.failures.is_empty() {
            item("the index", report.problem.as_deref().unwrap_or_default());
        }
        for failure in &report.failures {
            item(&failure.references.join(", "), &failure.problem);
        }
        let known = |name: &String| report.failures.iter().any(|failure| failure.references.contains(name));
        is_elsewhere |= !report.failures.is_empty() && !report.missing.iter().all(known);
    }
    let images = counted(missing.len(), "lazily pulled image", "lazily pulled images");
    let elsewhere = if is_elsewhere { ", so its tags were not put in the other repositories either" } else { "" };
    let message = format!("the plain image is published; {images} could not be made{elsewhere}");
    let failure = Failure { failed, ..Failure::new(Code::Partial, message) };
    Err(match missing.iter().all(|report| report.is_lasting) {
        true => failure,
        false => failure.hint("run the same command again; it finishes what is missing"),
    })
}
