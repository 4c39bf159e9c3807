use jiff::Timestamp;
use x509_cert::der;
use x509_cert::der::asn1::ObjectIdentifier;

use crate::key::KeyKind;
use crate::refusal::Refusal;

/// A rule that a certificate violates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {rule}")]
pub(crate) struct Violation {
    /// The subject of the certificate.
    pub(crate) subject: String,
    pub(crate) rule: Rule,
}

/// A rule of RFC 5280 or of a profile of it, in terms of the certificate that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rule {
    #[error("the signature is wrong")]
    WrongSignature,
    #[error("it is issued by `{0}`")]
    OtherIssuer(String),
    #[error("no trusted certificate authority issued it")]
    NoPath,
    #[error("the search for its certificate authority was given up after {0} signatures")]
    TooManySignatures(usize),
    #[error("the signature algorithm {0} is not supported")]
    SignatureAlgorithm(ObjectIdentifier),
    #[error("{0}")]
    Key(String),
    #[error("a key of type {0} is not supported")]
    KeyKind(KeyKind),
    #[error("it is not valid at {0}")]
    NotValidAt(Timestamp),
    #[error("the extension {0} is malformed: {1}")]
    MalformedExtension(ObjectIdentifier, der::Error),
    #[error("the critical extension {0} is not supported")]
    UnknownCriticalExtension(ObjectIdentifier),
    #[error("its subject is empty and its subject alternative names are not critical")]
    NoSubject,
    #[error("it is a certificate authority")]
    Authority,
    #[error("it is not a certificate authority")]
    NoAuthority,
    #[error("its basic constraints are not critical")]
    BasicConstraintsNotCritical,
    #[error("its path length constraint allows {0} certificate authorities below it")]
    PathLength(u8),
    #[error("its key usage is missing")]
    NoKeyUsage,
    #[error("its key usage is not critical")]
    KeyUsageNotCritical,
    #[error("its key usage does not include {0}")]
    KeyUsageLacks(&'static str),
    #[error("its key usage includes more than signing")]
    KeyUsageExcess,
    #[error("its extended key usage does not include {0}")]
    ExtendedKeyUsageLacks(&'static str),
    #[error("its extended key usage is missing")]
    NoExtendedKeyUsage,
    #[error("its extended key usage is empty")]
    EmptyExtendedKeyUsage,
    #[error("its extended key usage is not critical")]
    ExtendedKeyUsageNotCritical,
    #[error("its extended key usage includes more than {0}")]
    ExtendedKeyUsageExcess(&'static str),
    #[error("it has name constraints and is not a certificate authority")]
    NameConstraintsInLeaf,
    #[error("its name constraints are malformed: {0}")]
    MalformedNameConstraints(&'static str),
    #[error("`{name}` is malformed, and name constraints of `{authority}` apply to it")]
    MalformedName { name: String, authority: String },
    #[error("`{name}` is not within the names that `{authority}` may certify")]
    NameNotPermitted { name: String, authority: String },
    #[error("`{name}` is among the names that `{authority}` must not certify")]
    NameExcluded { name: String, authority: String },
    #[error("name constraints of `{authority}` apply to a {kind}, which is not supported")]
    NameKind { kind: &'static str, authority: String },
    #[error("it takes more than {0} comparisons to check name constraints")]
    TooManyNames(usize),
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Refusal {
        Refusal::Certificates(violation.to_string())
    }
}
