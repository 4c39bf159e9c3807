use std::path::PathBuf;

use ocikit_image::Root;
use ocikit_spec::Digest;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

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
    #[error("{file} is not valid: {}{problem}", in_entry(.entry.as_ref()))]
    Policy {
        /// The kind of file.
        file: PolicyFile,
        /// The entry with the problem, if it is in one.
        entry: Option<PolicyEntry>,
        /// What is wrong with it.
        problem: String,
    },
    /// The location of the image failed.
    #[error(transparent)]
    Image(#[from] ocikit_image::Error),
}

/// A kind of configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFile {
    /// A policy: the signers that images require.
    #[error("the policy")]
    Policy,
    /// A trust policy of the Notary Project.
    #[error("the trust policy")]
    TrustPolicy,
    /// A trust store of the Notary Project.
    #[error("the trust store {kind}:{name}")]
    TrustStore {
        /// The type of trust store.
        kind: String,
        /// The name of the trust store.
        name: String,
    },
    /// A trusted root of sigstore.
    #[error("the trusted root")]
    TrustedRoot,
    /// A signing configuration of sigstore.
    #[error("the signing configuration")]
    SigningConfig,
}

/// An entry of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyEntry {
    /// A signer of a policy, by name.
    #[error("the signer `{0}`")]
    Signer(String),
    /// A rule of a policy, by scope.
    #[error("the rule for `{0}`")]
    Rule(String),
    /// A statement of a trust policy, by name.
    #[error("the statement `{0}`")]
    Statement(String),
    /// A file of a trust store.
    #[error("{}", .0.display())]
    File(PathBuf),
}

fn in_entry(entry: Option<&PolicyEntry>) -> String {
    entry.map(|entry| format!("{entry}: ")).unwrap_or_default()
}

impl Error {
    pub(crate) fn policy(file: PolicyFile, problem: impl ToString) -> Error {
        Error::Policy { file, entry: None, problem: problem.to_string() }
    }

    /// Adds the entry of the configuration file that has the problem.
    pub(crate) fn in_entry(self, entry: PolicyEntry) -> Error {
        match self {
            Error::Policy { file, entry: None, problem } => Error::Policy { file, entry: Some(entry), problem },
            other => other,
        }
    }
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
#[non_exhaustive]
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

/// Encodes a part of a signature as JSON that is put into another part.
pub(crate) fn to_raw_json(value: &impl Serialize) -> Result<Box<RawValue>> {
    to_raw_value(value).map_err(|error| Error::Signer(error.to_string()))
}

/// Encodes a part of a signature as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Signer(error.to_string()))
}

/// Returns the problem of a YAML document, with its position. The default messages name options of the parser.
pub(crate) fn yaml_problem(error: &serde_saphyr::Error) -> String {
    error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter)
}
