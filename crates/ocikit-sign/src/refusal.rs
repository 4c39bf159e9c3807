/// Why a signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The signature or its manifest is malformed.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// The signature is not by the expected key or certificate.
    #[error("it is not by the expected signer")]
    OtherSigner,
    /// The signature does not verify. It names the expected key or names none, and either the key or the signed bytes
    /// differ.
    #[error("its signature is wrong")]
    WrongSignature,
    /// The signature is about another subject.
    #[error("it is about {0}")]
    OtherSubject(String),
    /// The signature was made under another name.
    #[error("it was made for {0}")]
    OtherName(String),
    /// The statement has another predicate type.
    #[error("it is a statement of type {0}")]
    OtherPredicate(String),
    /// A certificate is not valid.
    #[error("its certificates are not valid: {0}")]
    Certificates(String),
    /// The timestamp is missing, malformed, about something else, or not by a trusted authority.
    #[error("its timestamp is not valid: {0}")]
    Timestamp(String),
    /// A certificate was revoked by its issuer.
    #[error("the certificate {subject} was revoked at {time}")]
    Revoked {
        /// The subject of the certificate.
        subject: String,
        /// The time of revocation.
        time: String,
    },
    /// The revocation status is unknown: no usable certificate revocation list is available.
    #[error("the revocation status of its certificates is unknown: {0}")]
    Revocation(String),
    /// The certificate has another identity or issuer.
    #[error("it is by {0}")]
    OtherIdentity(String),
    /// The transparency log entry is missing, malformed, about something else, or not proven to be in the log.
    #[error("its entry in a transparency log is not valid: {0}")]
    Log(String),
    /// The verification plugin refused the signature or failed.
    #[error("the verification plugin {name} does not agree: {why}")]
    Plugin {
        /// The name of the plugin.
        name: String,
        /// The reason it gives.
        why: String,
    },
    /// The signature has expired.
    #[error("it expired at {0}")]
    Expired(String),
    /// The signature requires something that is not supported, such as a plugin or an unknown critical attribute.
    #[error("it requires {0}, which is not supported")]
    NotUnderstood(String),
}

/// Returns the refusal of a signature by its certificates.
pub(crate) fn certificates(why: impl ToString) -> Refusal {
    Refusal::Certificates(why.to_string())
}

/// Returns the refusal of a malformed signature.
pub(crate) fn malformed(why: impl ToString) -> Refusal {
    Refusal::Malformed(why.to_string())
}

impl Refusal {
    /// Shortens all texts. Most of them come from the signature, which is untrusted, and many refusals are kept.
    pub(crate) fn shortened(self) -> Refusal {
        match self {
            Refusal::Malformed(text) => Refusal::Malformed(short(text)),
            Refusal::OtherSubject(text) => Refusal::OtherSubject(short(text)),
            Refusal::OtherName(text) => Refusal::OtherName(short(text)),
            Refusal::OtherPredicate(text) => Refusal::OtherPredicate(short(text)),
            Refusal::Certificates(text) => Refusal::Certificates(short(text)),
            Refusal::Timestamp(text) => Refusal::Timestamp(short(text)),
            Refusal::Revoked { subject, time } => Refusal::Revoked { subject: short(subject), time: short(time) },
            Refusal::Revocation(text) => Refusal::Revocation(short(text)),
            Refusal::OtherIdentity(text) => Refusal::OtherIdentity(short(text)),
            Refusal::Log(text) => Refusal::Log(short(text)),
            Refusal::Plugin { name, why } => Refusal::Plugin { name: short(name), why: short(why) },
            Refusal::Expired(text) => Refusal::Expired(short(text)),
            Refusal::NotUnderstood(text) => Refusal::NotUnderstood(short(text)),
            Refusal::OtherSigner => Refusal::OtherSigner,
            Refusal::WrongSignature => Refusal::WrongSignature,
        }
    }
}

/// Returns the first characters of a text in a new allocation.
fn short(text: String) -> String {
    const MAX_CHARACTERS: usize = 300;
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
