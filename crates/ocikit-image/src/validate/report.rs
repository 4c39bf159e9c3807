use std::fmt;

use ocikit_spec::{Digest, MAX_DOCUMENT_SIZE, MediaType, Platform};

use crate::graph::DEEPEST;

/// What a validation found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What is wrong, in the order of the documents that lead there, then of the blobs.
    pub problems: Vec<Problem>,
    /// How many more there are than [`ValidateOptions::most_problems`](crate::ValidateOptions::most_problems), which
    /// are counted and not told.
    pub omitted: usize,
    /// How many of all are errors.
    pub errors: usize,
    /// How many documents were read: indexes, manifests and configs.
    pub documents: usize,
    /// How many other blobs were.
    pub blobs: usize,
    /// How many bytes these and those have together.
    pub bytes: u64,
}

impl Report {
    /// Whether there is no error; warnings there may be.
    pub fn is_valid(&self) -> bool {
        self.errors == 0
    }

    /// How many of all problems are warnings.
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

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The way there from the root: `index.json > manifests[1] > layers[0]`.
    pub place: String,
    /// The blob or document that it is about.
    pub digest: Option<Digest>,
    /// What it is.
    pub fault: Fault,
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.fault.severity()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)?;
        match &self.digest {
            // A blob that nothing leads to is named by its digest already.
            Some(digest) if self.place != digest.blob_path() => write!(f, " ({digest})"),
            _ => Ok(()),
        }
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Somebody who pulls or runs the image will fail, or get something else than was meant.
    Error,
    /// It works today, or is allowed; still somebody may want to know.
    Warning,
}

impl Severity {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A document names something that is not there.
    #[error("it is missing")]
    Missing,
    /// The descriptor gives another size than the blob has.
    #[error("it has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// As the descriptor says.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// The bytes are not those that their digest promises.
    #[error("it is damaged: its bytes have digest {actual}")]
    Digest {
        /// What they have instead.
        actual: Digest,
    },
    /// It is there and cannot be read.
    #[error("it cannot be read: {problem}")]
    Unreadable {
        /// Why.
        problem: String,
    },
    /// A document is longer than any that is read.
    #[error("it has {size} bytes, and no document beyond {MAX_DOCUMENT_SIZE} is read")]
    TooLong {
        /// As its descriptor says.
        size: u64,
    },
    /// A document makes no sense, or calls itself something else than its descriptor does.
    #[error("{problem}")]
    Senseless {
        /// Why.
        problem: String,
    },
    /// Indexes are nested deeper than anybody follows them; what lies deeper was not looked at.
    #[error("indexes are nested more than {DEEPEST} deep; what lies deeper was not looked at")]
    TooDeep,
    /// A media type that does not go with the document it is in.
    #[error("its media type is `{found}`, which {problem}")]
    MediaType {
        /// What it says.
        found: MediaType,
        /// Why it does not fit.
        problem: &'static str,
    },
    /// A layer is compressed in another way than its media type says.
    #[error("it is {actual}, its media type is `{stated}`")]
    Compression {
        /// What its descriptor says.
        stated: MediaType,
        /// What it is, in a word.
        actual: &'static str,
    },
    /// A layer cannot be decompressed.
    #[error("it cannot be decompressed: {problem}")]
    Undecodable {
        /// Why.
        problem: String,
    },
    /// A layer inflates to more than the [limit](crate::ValidateOptions::most_inflated), and was not followed further.
    #[error("it inflates to more than {limit} bytes and was not read further")]
    Inflates {
        /// What was allowed.
        limit: u64,
    },
    /// A layer is not what the config says of it.
    #[error("its contents hash to {actual}, the config says {expected}")]
    DiffId {
        /// As the config says.
        expected: Digest,
        /// As it is.
        actual: Digest,
    },
    /// Manifest and config do not agree how many layers there are.
    #[error("there are {layers} layers and {diff_ids} entries in the config's `diff_ids`")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// The history of the config does not speak of as many layers as there are.
    #[error("there are {layers} layers, the config's history tells of {history}")]
    HistoryCount {
        /// In the manifest.
        layers: usize,
        /// Steps of the history that made one.
        history: usize,
    },
    /// The descriptor promises another platform than the config has.
    #[error("its descriptor says {stated}, its config {actual}")]
    Platform {
        /// As the descriptor says.
        stated: Platform,
        /// As the config says.
        actual: Platform,
    },
    /// What a referrer is about is not here, which is allowed.
    #[error("what it is about is not here: {subject}")]
    Subject {
        /// What is missing.
        subject: Digest,
    },
    /// An attestation of BuildKit speaks of a manifest that is not in the same index.
    #[error("it attests `{text}`, which the same index does not list")]
    Attestation {
        /// What its annotation says.
        text: String,
    },
    /// Nothing leads to a blob.
    #[error("nothing refers to it; `gc` would free {size} bytes")]
    Unreferenced {
        /// How long it is.
        size: u64,
    },
    /// The `oci-layout` file does not say version 1.
    #[error("{problem}")]
    LayoutVersion {
        /// What it says instead.
        problem: String,
    },
    /// A file among the blobs whose name is no digest.
    #[error("its name is not a digest, so nothing can refer to it")]
    Stray,
}

impl Fault {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            // Not what the specification wants, and understood by everybody.
            Fault::MediaType { .. } | Fault::HistoryCount { .. } => Severity::Warning,
            // Allowed by the specification: whoever is referred to may come later, or never.
            Fault::Subject { .. } => Severity::Warning,
            // Costs room and nothing else.
            Fault::Unreferenced { .. } | Fault::Stray => Severity::Warning,
            // Everything else stops a pull, or gives what was not meant.
            _ => Severity::Error,
        }
    }

    /// What it is in one word, for programs; stays as it is.
    pub fn as_str(&self) -> &'static str {
        match self {
            Fault::Missing => "missing",
            Fault::Size { .. } => "size",
            Fault::Digest { .. } => "digest",
            Fault::Unreadable { .. } => "unreadable",
            Fault::TooLong { .. } => "too-long",
            Fault::Senseless { .. } => "senseless",
            Fault::TooDeep => "too-deep",
            Fault::MediaType { .. } => "media-type",
            Fault::Compression { .. } => "compression",
            Fault::Undecodable { .. } => "undecodable",
            Fault::Inflates { .. } => "inflates",
            Fault::DiffId { .. } => "diff-id",
            Fault::LayerCount { .. } => "layer-count",
            Fault::HistoryCount { .. } => "history-count",
            Fault::Platform { .. } => "platform",
            Fault::Subject { .. } => "subject",
            Fault::Attestation { .. } => "attestation",
            Fault::Unreferenced { .. } => "unreferenced",
            Fault::LayoutVersion { .. } => "layout-version",
            Fault::Stray => "stray",
        }
    }
}
