//! Validates stored images: every document, every blob, and the relations between them.
//!
//! A document counts only if its digest is right. A damaged document is reported and not followed, because its contents
//! are not trustworthy and further problems below it would hide the cause.

mod blobs;
mod contents;
mod documents;
mod formats;
mod options;
mod part;
mod report;

use std::sync::Arc;

pub use options::{Inventory, Scope, ValidateDepth, ValidateOptions};
pub use report::{Fault, Problem, Report, Severity};

use crate::error::Result;
use crate::event::Event;
use crate::source::Source;

/// Validates a root or a whole place. Continues after a problem and reports all of them.
///
/// Documents are read first, at most 4 MiB of them at a time. Then every other blob is read once, several in parallel,
/// and hashed both compressed and decompressed in one pass. Memory use does not depend on the size of the images. Layers in one
/// of the further [formats](ValidateOptions::formats) are read again for the comparison with their tables.
///
/// # Errors
///
/// Only if the source fails, so that the rest cannot be checked.
pub async fn validate(source: &Arc<dyn Source>, scope: &Scope, options: &ValidateOptions) -> Result<Report> {
    let mut documents = documents::DocumentCheck::new(&**source, options.max_problems);
    match scope {
        Scope::Root(root) => documents.root(root).await?,
        Scope::Everything(inventory) => documents.everything(inventory).await?,
    }
    let (mut report, blobs, manifests) = documents.finish();
    blobs::check_all(source, blobs, options, &mut report).await?;
    formats::check_all(source, manifests, options, &mut report).await?;
    if let Some(observer) = &options.observer {
        observer.event(Event::Ended);
    }
    Ok(report)
}
