use ocikit_image::Root;
use ocikit_spec::Digest;

use crate::refusal::Refusal;

/// The result of signing and verifying.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of signing or verifying. A signature that does not verify is not an error but a
/// [`Refusal`](crate::Refusal).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key file is malformed, or its key is of an unsupported kind.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// A key is encrypted, and the password is missing or wrong.
    #[error("the key is encrypted and {0}")]
    Password(&'static str),
    /// Certificates are malformed or not valid for their use.
    #[error("the certificates cannot be used: {0}")]
    Certificates(String),
    /// The signer failed, or signed with another key than the one it was opened with.
    #[error("the signer failed: {0}")]
    Signer(String),
    /// A service failed or returned an unexpected response.
    #[error("{place}: {problem}")]
    Service {
        /// The address of the service, without credentials and query.
        place: String,
        /// What went wrong.
        problem: String,
    },
    /// A tag points to another digest than the caller expects.
    #[error("it is {actual}, not {expected}")]
    Moved {
        /// The digest that the caller expects.
        expected: Box<Digest>,
        /// The digest that the tag points to.
        actual: Box<Digest>,
    },
    /// A signature that was about to be stored does not verify.
    #[error("the signature is not stored: {0}")]
    Refused(Refusal),
    /// BuildKit statements name other digests than the images that their index entries name.
    #[error("{}", other_statements(.0))]
    OtherStatement(Vec<OtherStatement>),
    /// The options contradict each other, or the request is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// A configuration file, such as a trust policy, breaks the rules of its format.
    #[error("{what} is not valid: {problem}")]
    Policy {
        /// The kind of file.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The location of the image failed.
    #[error(transparent)]
    Image(#[from] ocikit_image::Error),
}

/// Checks that a root has the digest that the caller expects, if there is one. Operations with an option `expect`
/// call this before anything else.
///
/// # Errors
///
/// [`Error::Moved`].
pub fn expect_digest(root: &Root, expected: Option<Digest>) -> Result<()> {
    match expected.filter(|expected| *expected != root.digest()) {
        Some(expected) => Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) }),
        None => Ok(()),
    }
}

/// A statement that names another digest than the image that its index entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherStatement {
    /// The image that the index entry names.
    pub image: Digest,
    /// The digest in the statement, as written there.
    pub named: String,
    /// Whether the two are known to differ in annotations only.
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
