use std::fmt;

use ocikit_spec::{Digest, MAX_DOCUMENT_BYTES, MediaType, Platform};

use crate::walk::limits::MAX_DEPTH;

/// The result of a validation.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// The problems: first those of documents in the order of the walk, then those of blobs.
    pub problems: Vec<Problem>,
    /// The number of further problems beyond [`ValidateOptions::max_problems`](crate::ValidateOptions::max_problems),
    /// which are counted but not listed.
    pub omitted: usize,
    /// The number of problems that are errors, including omitted ones.
    pub errors: usize,
    /// The number of documents that were read: indexes, manifests and configs.
    pub documents: usize,
    /// The number of other blobs that were read.
    pub blobs: usize,
    /// The total size of documents and blobs in bytes.
    pub bytes: u64,
}

impl Report {
    /// Returns whether there are no errors; there may be warnings.
    pub fn is_valid(&self) -> bool {
        self.errors == 0
    }

    /// Returns the number of problems that are warnings, including omitted ones.
    pub fn warnings(&self) -> usize {
        self.problems.len() + self.omitted - self.errors
    }

    pub(super) fn add(&mut self, problem: Problem, most: usize) {
        self.errors += usize::from(problem.severity() == Severity::Error);
        if self.problems.len() < most {
            self.problems.push(problem);
        } else {
            self.omitted += 1;
        }
    }
}

/// A fault and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The path from the root: `index.json > manifests[1] > layers[0]`.
    pub place: String,
    /// The affected blob or document.
    pub digest: Option<Digest>,
    /// The fault.
    pub fault: Fault,
}

impl Problem {
    /// Returns a problem at a place.
    pub fn new(place: impl Into<String>, digest: Option<Digest>, fault: Fault) -> Problem {
        Problem { place: place.into(), digest, fault }
    }

    /// Returns the severity of the fault.
    pub fn severity(&self) -> Severity {
        self.fault.severity()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)?;
        match &self.digest {
            // The path of an unreferenced blob already contains its digest.
            Some(digest) if self.place != digest.blob_path() => write!(f, " ({digest})"),
            _ => Ok(()),
        }
    }
}

/// The severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// A client that pulls or runs the image fails, or gets wrong contents.
    Error,
    /// Clients handle it, or the specification allows it.
    Warning,
}

impl Severity {
    /// Returns the name of the severity.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A fault of an image or of the place that holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A document lists something that does not exist.
    #[error("it is missing")]
    Missing,
    /// The size in the descriptor is wrong.
    #[error("it has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// The size in the descriptor, in bytes.
        expected: u64,
        /// The actual size in bytes.
        actual: u64,
    },
    /// The bytes do not match the digest.
    #[error("it is damaged: its bytes have digest {actual}")]
    Digest {
        /// Their actual digest.
        actual: Digest,
    },
    /// The blob exists but cannot be read.
    #[error("it cannot be read: {problem}")]
    Unreadable {
        /// The reason.
        problem: String,
    },
    /// A document is larger than the limit.
    #[error("it has {size} bytes, which exceeds the limit of {MAX_DOCUMENT_BYTES} bytes for documents")]
    TooLong {
        /// The size in the descriptor, in bytes.
        size: u64,
    },
    /// A document cannot be parsed, or its media type differs from that of its descriptor.
    #[error("{problem}")]
    InvalidDocument {
        /// The reason.
        problem: String,
    },
    /// Indexes are nested deeper than the limit; deeper levels were not checked.
    #[error("indexes are nested more than {MAX_DEPTH} levels deep; deeper levels were not checked")]
    TooDeep,
    /// A media type does not fit the document that lists it.
    #[error("its media type is `{found}`, which {problem}")]
    MediaType {
        /// The media type.
        found: MediaType,
        /// The reason.
        problem: &'static str,
    },
    /// The compression of a layer differs from its media type.
    #[error("it is {actual}, its media type is `{stated}`")]
    Compression {
        /// The media type in the descriptor.
        stated: MediaType,
        /// The actual compression.
        actual: &'static str,
    },
    /// A layer cannot be decompressed.
    #[error("it cannot be decompressed: {problem}")]
    Undecodable {
        /// The reason.
        problem: String,
    },
    /// The decompressed layer of an image is not a valid tar, or has an entry that cannot be unpacked.
    #[error("its contents cannot be unpacked: {problem}")]
    InvalidLayer {
        /// The reason.
        problem: String,
    },
    /// The decompressed size of a layer exceeds the [limit](crate::ValidateOptions::max_uncompressed_bytes); it was not read
    /// further.
    #[error("its decompressed size exceeds {limit} bytes; it was not read further")]
    TooLargeUncompressed {
        /// The limit in bytes.
        limit: u64,
    },
    /// A table of files or a bootstrap is not that of its layers.
    #[error("{problem}")]
    Format {
        /// The difference.
        problem: String,
    },
    /// The digest of the uncompressed layer differs from the `diff_id` in the config.
    #[error("its contents hash to {actual}, the config says {expected}")]
    DiffId {
        /// The digest in the config.
        expected: Digest,
        /// The actual digest.
        actual: Digest,
    },
    /// Manifest and config have different numbers of layers.
    #[error("there are {layers} layers and {diff_ids} entries in the config's `diff_ids`")]
    LayerCount {
        /// The number in the manifest.
        layers: usize,
        /// The number in the config.
        diff_ids: usize,
    },
    /// The history in the config does not match the number of layers.
    #[error("there are {layers} layers, the config's history has {history}")]
    HistoryCount {
        /// The number of layers in the manifest.
        layers: usize,
        /// The number of history entries that created a layer.
        history: usize,
    },
    /// The platform in the descriptor differs from that in the config.
    #[error("its descriptor says {stated}, its config {actual}")]
    Platform {
        /// The platform in the descriptor.
        stated: Platform,
        /// The platform in the config.
        actual: Platform,
    },
    /// The subject of a referrer does not exist, which is allowed.
    #[error("its subject {subject} does not exist")]
    Subject {
        /// The digest of the subject.
        subject: Digest,
    },
    /// A BuildKit attestation manifest refers to a manifest that is not in the same index.
    #[error("it attests `{text}`, which the same index does not list")]
    Attestation {
        /// The value of its annotation.
        text: String,
    },
    /// A blob is unreferenced.
    #[error("it is unreferenced; `gc` would free {size} bytes")]
    Unreferenced {
        /// The size of the blob in bytes.
        size: u64,
    },
    /// The `oci-layout` file does not state version 1.
    #[error("{problem}")]
    LayoutVersion {
        /// Its contents.
        problem: String,
    },
    /// The `manifest.json` of an archive, which docker reads, lists an image that its `index.json` does not have.
    #[error("{problem}")]
    DockerList {
        /// What it lists.
        problem: String,
    },
    /// The name of a file among the blobs is not a digest.
    #[error("its name is not a digest, so nothing can refer to it")]
    UnknownFile,
}

impl Fault {
    /// Returns the severity.
    pub fn severity(&self) -> Severity {
        self.properties().1
    }

    /// Returns a stable identifier of the fault for programs.
    pub fn as_str(&self) -> &'static str {
        self.properties().0
    }

    fn properties(&self) -> (&'static str, Severity) {
        use Severity::{Error, Warning};
        match self {
            // These make a pull fail, or return wrong contents.
            Fault::Missing => ("missing", Error),
            Fault::Size { .. } => ("size", Error),
            Fault::Digest { .. } => ("digest", Error),
            Fault::Unreadable { .. } => ("unreadable", Error),
            Fault::TooLong { .. } => ("too-long", Error),
            Fault::InvalidDocument { .. } => ("invalid-document", Error),
            Fault::TooDeep => ("too-deep", Error),
            Fault::Compression { .. } => ("compression", Error),
            Fault::Undecodable { .. } => ("undecodable", Error),
            Fault::InvalidLayer { .. } => ("invalid-layer", Error),
            Fault::TooLargeUncompressed { .. } => ("too-large-uncompressed", Error),
            Fault::Format { .. } => ("format", Error),
            Fault::DiffId { .. } => ("diff-id", Error),
            Fault::LayerCount { .. } => ("layer-count", Error),
            Fault::Platform { .. } => ("platform", Error),
            Fault::Attestation { .. } => ("attestation", Error),
            Fault::LayoutVersion { .. } => ("layout-version", Error),
            Fault::DockerList { .. } => ("docker-list", Error),
            // These violate the specification, but all clients accept them.
            Fault::MediaType { .. } => ("media-type", Warning),
            Fault::HistoryCount { .. } => ("history-count", Warning),
            // The specification allows a subject that is created later, or never.
            Fault::Subject { .. } => ("subject", Warning),
            // These use disk space only.
            Fault::Unreferenced { .. } => ("unreferenced", Warning),
            Fault::UnknownFile => ("unknown-file", Warning),
        }
    }
}
