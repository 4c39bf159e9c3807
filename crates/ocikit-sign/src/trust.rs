//! Trusted signers, and the content that a signature must have.

use ocikit_spec::{Reference, Repository};

use crate::key::PublicKey;
use crate::notation::{Level, NotationTrust};
use crate::refusal::Refusal;
use crate::sigstore::CertificateTrust;

/// A trusted signer.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The owner of a key.
    Key {
        /// The name of the signer in reports.
        name: String,
        /// The public key.
        key: PublicKey,
    },
    /// An identity in a certificate.
    Certificate(Box<CertificateTrust>),
    /// Any signer that a Notary Project trust policy trusts.
    Notation(NotationTrust),
}

/// The kind of a trusted signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignerKind {
    Key,
    Certificate,
    Notation,
}

impl Trust {
    /// Returns the name of the signer.
    pub fn name(&self) -> &str {
        match self {
            Trust::Key { name, .. } => name,
            Trust::Certificate(trust) => &trust.name,
            Trust::Notation(trust) => trust.name(),
        }
    }

    pub(crate) fn kind(&self) -> SignerKind {
        match self {
            Trust::Key { .. } => SignerKind::Key,
            Trust::Certificate(_) => SignerKind::Certificate,
            Trust::Notation(_) => SignerKind::Notation,
        }
    }

    /// Returns whether the trust policy skips verification.
    pub(crate) fn skips(&self) -> bool {
        matches!(self, Trust::Notation(trust) if trust.level() == Level::Skip)
    }
}

/// The expected content of a signature.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expected<'a> {
    /// The expected statement, in formats that sign statements.
    pub(crate) statement: Statement<'a>,
    /// The repository under which it was signed, in formats that record one.
    pub(crate) signed_as: Option<&'a Repository>,
}

/// The kind of a signed statement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Statement<'a> {
    /// A plain signature.
    #[default]
    Signature,
    /// An attestation with this predicate type.
    Attestation(&'a str),
    /// Any statement.
    Any,
}

impl<'a> Expected<'a> {
    /// Expects an attestation if a predicate type is given, and a plain signature otherwise.
    pub(crate) fn of(predicate_type: Option<&'a str>, signed_as: Option<&'a Repository>) -> Expected<'a> {
        Expected { statement: predicate_type.map_or(Statement::Signature, Statement::Attestation), signed_as }
    }

    /// Checks the name under which an image was signed.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let Some(wanted) = self.signed_as else { return Ok(()) };
        match name.parse::<Reference>() {
            Ok(reference) if reference.repository() == wanted => Ok(()),
            Ok(reference) => Err(Refusal::OtherName(reference.repository().to_string())),
            Err(_) => Err(Refusal::OtherName("no repository".to_owned())),
        }
    }
}
