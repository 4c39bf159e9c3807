use std::sync::Arc;

use clap::Args;
use ocikit::layout::TarWriter;
use ocikit::{Copied, Location, Naming, Put, Root, Session, Sink};
use serde::Serialize;

use crate::archive::Archive;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::output;

/// Copy an image from one place to others
///
/// Every platform is copied and every byte kept, so the digest stays the same. Prints each target with its digest.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Where it is
    source: Location,
    /// Where to copy it to
    #[arg(required = true)]
    target: Vec<Location>,
    #[command(flatten)]
    archive: Archive,
}

/// What became of one target.
#[derive(Serialize)]
pub(crate) struct Facts {
    target: String,
    digest: ocikit::Digest,
    sent: Count,
    mounted: Count,
    present: Count,
}

#[derive(Serialize)]
struct Count {
    blobs: usize,
    bytes: u64,
}

impl Copy {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let source = context.expand(&self.source);
        let targets: Vec<_> = self.target.iter().map(|target| context.expand(target)).collect();
        let locations: Vec<_> = [&source].into_iter().chain(&targets).collect();
        let session = context.session_with(&locations, self.archive.options())?;
        copy_to_all(context, &session, &source, &targets).await
    }
}

/// Copies an image to all targets, each tried even if another fails.
pub(crate) async fn copy_to_all(
    context: &Context,
    session: &Session,
    source: &Location,
    targets: &[Location],
) -> Result {
    if *source == Location::Stdio {
        let [target] = targets else {
            return Err(Failure::usage("what comes through a pipe can be read only once: name one target"));
        };
        let copied = session.receive(std::io::stdin(), target).await?;
        return report(context, vec![Facts::of(target, &copied)]);
    }
    let root = session.open(source).await?;
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for target in targets {
        match copy_out(session, &root, source, target).await {
            Ok(copied) => done.push((target, copied)),
            Err(failure) => failures.push((target, failure)),
        }
    }
    let facts = done.iter().filter(|(target, _)| **target != Location::Stdio);
    report(context, facts.map(|(target, copied)| Facts::of(target, copied)).collect())?;
    partial(failures, done.len())
}

/// Copies a root to a place, standard output included.
pub(crate) async fn copy_out(session: &Session, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
    if *to != Location::Stdio {
        return Ok(session.copy_root(root, from, to).await?);
    }
    let stream: Arc<dyn Sink> = Arc::new(TarWriter::stream("-", std::io::stdout(), session.options().archive.clone()));
    Ok(session.copy_to(root, &stream, vec![Naming::default()]).await?)
}

/// One failure of one target is that failure; some of several are a partial success.
pub(crate) fn partial(mut failures: Vec<(&Location, Failure)>, succeeded: usize) -> Result {
    if failures.len() == 1 && succeeded == 0 {
        return Err(failures.remove(0).1);
    }
    let codes: Vec<_> = failures.iter().map(|(_, failure)| failure.code).collect();
    let Some(first) = codes.first() else { return Ok(()) };
    let same = codes.iter().all(|code| code == first);
    let code = if succeeded == 0 && same { *first } else { Code::Partial };
    let lines: Vec<_> = failures.iter().map(|(target, failure)| format!("  {target}: {}", failure.message)).collect();
    let message = format!("{} of {} targets failed\n{}", failures.len(), failures.len() + succeeded, lines.join("\n"));
    let hint = failures.into_iter().find_map(|(_, failure)| failure.hint);
    Err(Failure { code, message, hint })
}

/// States what became of the targets that succeeded.
pub(crate) fn report(context: &Context, facts: Vec<Facts>) -> Result {
    #[derive(Serialize)]
    struct All {
        targets: Vec<Facts>,
    }
    for fact in &facts {
        context.output.say(&fact.words());
    }
    let all = All { targets: facts };
    context.output.facts(&all, || {
        let lines = all.targets.iter().map(|fact| match fact.target.contains('@') {
            true => fact.target.clone(),
            false => format!("{}@{}", fact.target, fact.digest),
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

impl Facts {
    fn words(&self) -> String {
        let mut parts = Vec::new();
        for (count, what) in [(&self.sent, "sent"), (&self.mounted, "mounted"), (&self.present, "there already")] {
            if count.blobs > 0 {
                parts.push(format!("{} blobs {what} ({})", count.blobs, output::bytes(count.bytes)));
            }
        }
        match parts.is_empty() {
            true => format!("{}: it was all there already", self.target),
            false => format!("{}: {}", self.target, parts.join(", ")),
        }
    }

    pub(crate) fn of(target: &Location, copied: &Copied) -> Facts {
        let count = |put| {
            let (blobs, bytes) = copied.count(put);
            Count { blobs, bytes }
        };
        Facts {
            target: target.to_string(),
            digest: copied.root.digest,
            sent: count(Put::Copied),
            mounted: count(Put::Mounted),
            present: count(Put::Present),
        }
    }
}
