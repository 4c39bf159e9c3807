use ocikit_spec::Digest;

use crate::refusal::Refusal;

/// The result of signing and verifying.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Signing or verifying could not be done. That a signature does not count is no error but a [`Refusal`](crate::Refusal).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key file is not what it should be, or of a kind that is not used.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// A key is encrypted, and there was no password or a wrong one.
    #[error("the key is encrypted and {0}")]
    Password(&'static str),
    /// Certificates cannot be used for what was asked.
    #[error("the certificates cannot be used: {0}")]
    Certificates(String),
    /// Whoever signs for us did not, or not with the key that was named.
    #[error("the signer failed: {0}")]
    Signer(String),
    /// A service that was asked did not answer, or not as it should have.
    #[error("{place}: {problem}")]
    Service {
        /// Its address, without what could be secret.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A tag does not lead to what the caller expects.
    #[error("it is {actual}, not {expected}")]
    Moved {
        /// What the caller expects.
        expected: Box<Digest>,
        /// What is there.
        actual: Box<Digest>,
    },
    /// A signature that was to be stored does not count.
    #[error("the signature is not stored: {0}")]
    Refused(Refusal),
    /// Statements of BuildKit name other digests than those of the images that their entries name.
    #[error("{}", other_statements(.0))]
    OtherStatement(Vec<OtherStatement>),
    /// What was asked for does not go together.
    #[error("{0}")]
    Unsupported(String),
    /// A file of rules, a trust policy for one, is not what its format demands.
    #[error("{what} is not valid: {problem}")]
    Policy {
        /// Which file.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The place of the image failed.
    #[error(transparent)]
    Image(#[from] ocikit_image::Error),
}

/// A statement that names another digest than that of the image that its entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherStatement {
    /// The image, by the index.
    pub image: Digest,
    /// What the statement names, in its words.
    pub named: String,
    /// Whether it is shown that the two differ in nothing but annotations.
    pub is_annotated: bool,
}

fn other_statements(statements: &[OtherStatement]) -> String {
    let Some(first) = statements.first() else { return "cannot promote attestations".to_owned() };
    let OtherStatement { image, named, is_annotated } = first;
    let why = if *is_annotated { ", the digest of that image before it was annotated" } else { "" };
    let more = match statements.len() - 1 {
        0 => String::new(),
        more => format!("; the same holds for {more} more"),
    };
    format!("cannot promote the attestations of {image}: the statement names {named}{why}{more}")
}
