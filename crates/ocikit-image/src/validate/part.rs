//! What the checks of documents and of blobs share.

use std::fmt;
use std::sync::Arc;

use ocikit_spec::{Descriptor, Digest};

use super::report::Fault;
use crate::error::{Error, Mismatch, Result};
use crate::walk::{Edge, Path};

/// The position of a descriptor: its document, and the field in it.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) parent: Option<Arc<Path>>,
    pub(super) edge: Edge,
}

impl At {
    pub(super) fn below(parent: &Arc<Path>, edge: Edge) -> At {
        At { parent: Some(parent.clone()), edge }
    }

    pub(super) fn of(path: &Path) -> At {
        At { parent: path.parent.clone(), edge: path.edge.clone() }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parent {
            Some(parent) => write!(f, "{parent} > {}", self.edge),
            None => self.edge.fmt(f),
        }
    }
}

/// A manifest that could be read.
#[derive(Debug)]
pub(super) struct FoundManifest {
    pub(super) descriptor: Descriptor,
    pub(super) path: Arc<Path>,
}

/// A blob to read, and what to check.
#[derive(Debug)]
pub(super) struct Blob {
    /// The first descriptor with its digest.
    pub(super) at: At,
    pub(super) descriptor: Descriptor,
    /// Non-distributable layers may be missing, because clients fetch them from their `urls`.
    pub(super) may_be_missing: bool,
    /// The `diff_ids` that configs state for it, and where.
    pub(super) diff_ids: Vec<(Digest, At)>,
}

/// Returns the fault of a document or blob for an error; an error of the place is passed on.
pub(super) fn fault_of(error: Error) -> Result<Fault> {
    Ok(match error {
        Error::NotFound { .. } => Fault::Missing,
        Error::Mismatch { mismatch, .. } => match *mismatch {
            Mismatch::Digest(actual) => Fault::Digest { actual },
            Mismatch::Size { expected, actual } => Fault::Size { expected, actual },
        },
        Error::Document { source, .. } => Fault::InvalidDocument { problem: source.to_string() },
        Error::Failed { source, .. } => Fault::Unreadable { problem: source.to_string() },
        Error::Broken { source, .. } => Fault::Unreadable { problem: source.to_string() },
        Error::Protocol { problem, .. } => Fault::Unreadable { problem },
        Error::Unsupported { what, .. } => Fault::Unreadable { problem: what },
        error => return Err(error),
    })
}
