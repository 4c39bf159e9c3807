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
