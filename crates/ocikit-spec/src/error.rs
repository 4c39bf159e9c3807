//! What can be wrong with a text that claims to be one of the specification's words.

/// The result of parsing in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text is not what it was taken for.
///
/// Every variant carries the text, or its beginning, so that a caller can show what was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not of the form `algorithm:hex`, or of the wrong length for its algorithm.
    #[error("`{text}` is not a digest: {problem}")]
    Digest {
        /// What was parsed.
        text: String,
        /// What it lacks.
        problem: &'static str,
    },
    /// A well-formed digest of an algorithm other than sha256 and sha512.
    #[error("digest algorithm `{algorithm}` is not supported")]
    Algorithm {
        /// The text before the colon.
        algorithm: String,
    },
    /// Not a tag by the distribution specification's grammar.
    #[error("`{text}` is not a tag: {problem}")]
    Tag {
        /// What was parsed.
        text: String,
        /// What it lacks.
        problem: &'static str,
    },
    /// Not a registry, repository or reference by the grammar that docker and the distribution specification share.
    #[error("`{text}` is not an image reference: {problem}")]
    Reference {
        /// What was parsed.
        text: String,
        /// What it lacks.
        problem: &'static str,
    },
    /// Not of the form `os/architecture[/variant]`.
    #[error("`{text}` is not a platform: {problem}")]
    Platform {
        /// What was parsed.
        text: String,
        /// What it lacks.
        problem: &'static str,
    },
    /// Bytes that are not the document they were taken for.
    #[error("not a valid {document}: {problem}")]
    Document {
        /// Which document was expected: `manifest`, `index` or `config`.
        document: &'static str,
        /// Where it departs from the specification.
        problem: String,
    },
}

/// The beginning of a text, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
