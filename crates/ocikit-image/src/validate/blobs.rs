use std::sync::Arc;

use futures::StreamExt;
use ocikit_archive::layer::Budget;
use ocikit_spec::Algorithm;

use super::contents::{Check, Contents, look_into};
use super::options::{ValidateDepth, ValidateOptions};
use super::part::{Blob, fault_of};
use super::report::{Fault, Problem, Report};
use crate::bridge::consume;
use crate::error::{Error, Result};
use crate::event::{Event, Progress};
use crate::root::Layer;
use crate::source::{Source, SourceExt};
use crate::tasks::Tasks;

/// Reads all blobs, several in parallel, and reports their problems in order.
pub(super) async fn check_all(
    source: &Arc<dyn Source>,
    blobs: Vec<Blob>,
    options: &ValidateOptions,
    report: &mut Report,
) -> Result<()> {
    let progress = Progress(options.observer.clone());
    progress.planned(blobs.iter().map(|blob| &blob.descriptor));
    let source = &progress.of_reads(source);
    let budget = Budget::new();
    let task = |blob: Blob| {
        let (source, progress, budget) = (source.clone(), progress.clone(), budget.clone());
        let (depth, most) = (options.depth, options.max_uncompressed_bytes);
        async move {
            progress.event(Event::Started { blob: &blob.descriptor });
            let problems = check(&source, &blob, depth, most, &budget).await?;
            progress.event(Event::Checked { blob: &blob.descriptor });
            Ok::<_, Error>((blob.descriptor.size, problems))
        }
    };
    for (size, problems) in Tasks::new().run(blobs, options.jobs, |_| false, task).await? {
        if !problems.iter().any(|problem| problem.fault == Fault::Missing) {
            report.blobs += 1;
            report.bytes = report.bytes.saturating_add(size);
        }
        for problem in problems {
            report.add(problem, options.max_problems);
        }
    }
    Ok(())
}

async fn check(
    source: &Arc<dyn Source>,
    blob: &Blob,
    depth: ValidateDepth,
    most: Option<u64>,
    budget: &Budget,
) -> Result<Vec<Problem>> {
    let digest = blob.descriptor.digest;
    let at_first = |fault| Problem { place: blob.at.to_string(), digest: Some(digest), fault };
    let contents = match read(source, blob, depth, most, budget).await {
        Ok(contents) => contents,
        Err(error) => {
            let fault = fault_of(error)?;
            let allowed = fault == Fault::Missing && blob.may_be_missing;
            return Ok(if allowed { Vec::new() } else { vec![at_first(fault)] });
        }
    };
    let mut problems: Vec<_> = contents.faults.into_iter().map(at_first).collect();
    for (expected, at) in &blob.diff_ids {
        let actual = contents.digests.iter().find(|found| found.algorithm() == expected.algorithm());
        if let Some(actual) = actual.filter(|actual| *actual != expected) {
            let fault = Fault::DiffId { expected: *expected, actual: *actual };
            problems.push(Problem { place: at.to_string(), digest: Some(digest), fault });
        }
    }
    Ok(problems)
}

/// Reads a blob to its end and checks the contents of a layer.
async fn read(
    source: &Arc<dyn Source>,
    blob: &Blob,
    depth: ValidateDepth,
    most: Option<u64>,
    budget: &Budget,
) -> Result<Contents> {
    let descriptor = &blob.descriptor;
    let mut body = source.open(descriptor).await?;
    if !descriptor.media_type.is_tar_layer() {
        while let Some(chunk) = body.next().await {
            chunk?;
        }
        // A blob that is no tar is never decompressed, so its digest is that of its contents.
        return Ok(Contents { digests: vec![descriptor.digest], faults: Vec::new() });
    }
    let mut wanted: Vec<Algorithm> = blob.diff_ids.iter().map(|(digest, _)| digest.algorithm()).collect();
    wanted.sort();
    wanted.dedup();
    let limit = match depth {
        ValidateDepth::Digests => None,
        ValidateDepth::Contents => Some(most.unwrap_or_else(|| Layer::inflates_to(descriptor))),
    };
    // Other tars, such as files that oras labels as layers, need not be file systems.
    let check = Check { wanted, limit, entries: !blob.diff_ids.is_empty() };
    // With a limit for each layer set by the user, the shared budget does not apply.
    let budget = if most.is_some() { Budget::new() } else { budget.clone() };
    budget.layer(most.unwrap_or(descriptor.size));
    let layer = descriptor.clone();
    consume(body, move |chunks| look_into(chunks, &layer, &check, &budget)).await
}
