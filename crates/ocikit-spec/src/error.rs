//! Errors of parsing texts and documents.

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text or document is invalid.
///
/// Every variant carries the text or its start, so that a caller can show what was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not of the form `algorithm:hex`, or of the wrong length for the algorithm.
    #[error("`{text}` is not a digest: {problem}")]
    Digest {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// A well-formed digest of an algorithm other than sha256 and sha512.
    #[error("digest algorithm `{algorithm}` is not supported")]
    Algorithm {
        /// The text before the colon.
        algorithm: String,
    },
    /// Not a tag by the grammar of the distribution specification.
    #[error("`{text}` is not a tag: {problem}")]
    Tag {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// Not a registry, repository or reference by the common grammar of Docker and the distribution specification.
    #[error("`{text}` is not an image reference: {problem}")]
    Reference {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// The transport of another tool, which locations do not have.
    #[error("the transport `{transport}` is not supported")]
    Transport {
        /// The prefix, with its colon.
        transport: &'static str,
        /// What to write instead, as an imperative sentence.
        instead: &'static str,
    },
    /// Not of the form `os/architecture[/variant]`.
    #[error("`{text}` is not a platform: {problem}")]
    Platform {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// Not a valid document.
    #[error("not a valid {document}: {problem}")]
    Document {
        /// The expected document: `document`, `manifest`, `index`, `config` or `statement`.
        document: &'static str,
        /// The violation of the specification.
        problem: String,
    },
}

/// Returns the start of a text, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_EXCERPT_CHARS: usize = 200;
    match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
