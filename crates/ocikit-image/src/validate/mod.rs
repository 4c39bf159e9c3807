//! Whether what is stored is what it claims to be: every document, every blob, and what they say of each other.
//!
//! A document is believed only once its digest is right. One that is damaged is reported and not followed: what it says is
//! nobody's statement, and a list of what is wrong below it would only hide what is wrong with it.

mod blobs;
mod contents;
mod report;
mod walk;

use std::sync::Arc;

use ocikit_spec::{Descriptor, Digest, Index};

pub use report::{Fault, Problem, Report, Severity};

use crate::error::Result;
use crate::event::{Event, Observer};
use crate::source::Source;

/// How to validate.
#[derive(Debug, Clone)]
pub struct ValidateOptions {
    /// How many blobs are read at the same time, at least one.
    pub jobs: usize,
    /// How far layers are looked into.
    pub depth: ValidateDepth,
    /// How many bytes a layer may inflate to; a layer that goes beyond is reported and not read further. `None` allows
    /// 1 GiB and a hundred times its compressed size.
    pub most_inflated: Option<u64>,
    /// How many problems are told one by one.
    pub most_problems: usize,
    /// Whoever wants to see progress.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for ValidateOptions {
    /// As many at a time as there are processors, layers decompressed, 10,000 problems, nobody watching.
    fn default() -> ValidateOptions {
        ValidateOptions {
            jobs: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            depth: ValidateDepth::Contents,
            most_inflated: None,
            most_problems: 10_000,
            observer: None,
        }
    }
}

/// How far layers are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValidateDepth {
    /// Every blob is read and hashed.
    Digests,
    /// And every layer is decompressed, to compare it with the config.
    Contents,
}

/// What is validated.
#[derive(Debug, Clone)]
pub enum Scope {
    /// What a descriptor leads to, and the referrers of all manifests and indexes there.
    Root(Box<Descriptor>),
    /// Everything that lies in a place.
    Everything(Inventory),
}

/// What lies in a place at rest, as whoever listed it found it.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The list of roots.
    pub roots: Index,
    /// Manifests that the list does not have and that have a subject, each behind the digest of that: what is about
    /// something that the roots lead to belongs to it.
    pub referrers: Vec<(Digest, Descriptor)>,
    /// Every blob by its name, and how long it is.
    pub blobs: Vec<(Digest, u64)>,
    /// What is wrong with the place itself.
    pub problems: Vec<Problem>,
}

/// Validates what is in a place. It goes on after a problem and tells of all.
///
/// Documents are read first, at most 4 MiB of them at a time; then every other blob is read once, many at the same time,
/// and hashed as it is and decompressed side by side. Memory does not depend on the size of anything that is read.
///
/// # Errors
///
/// Only where the place can no longer be asked, so that nothing can be said about the rest.
pub async fn validate(source: &Arc<dyn Source>, scope: &Scope, options: &ValidateOptions) -> Result<Report> {
    let mut walk = walk::Walk::new(source.clone(), options.most_problems);
    match scope {
        Scope::Root(root) => walk.root(root).await?,
        Scope::Everything(inventory) => walk.everything(inventory).await?,
    }
    let (mut report, blobs) = walk.finish();
    blobs::check_all(source, blobs, options, &mut report).await?;
    if let Some(observer) = &options.observer {
        observer.event(Event::Ended);
    }
    Ok(report)
}
