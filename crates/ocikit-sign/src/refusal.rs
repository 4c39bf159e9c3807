/// Why a signature that was found does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It, or the manifest that leads to it, is not of the form that it claims.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// It does not lead to the key or certificate that was asked for.
    #[error("it is by somebody else")]
    OtherSigner,
    /// It names the key that was asked for, or is all there is to try it on, and is not by that key, or not of these bytes.
    #[error("its signature is wrong")]
    WrongSignature,
    /// It is a good signature of something else.
    #[error("it is about {0}")]
    OtherSubject(String),
    /// It is a good signature, made under another name.
    #[error("it was made for {0}")]
    OtherName(String),
    /// It is a good signature of a statement of another type.
    #[error("it is a statement of type {0}")]
    OtherPredicate(String),
    /// Its certificates break a rule.
    #[error("its certificates are not valid: {0}")]
    Certificates(String),
    /// Its timestamp is missing, malformed, of something else, or by nobody who is trusted.
    #[error("its timestamp is not valid: {0}")]
    Timestamp(String),
    /// One of its certificates was revoked by its issuer.
    #[error("the certificate {subject} was revoked at {time}")]
    Revoked {
        /// Whose certificate.
        subject: String,
        /// When.
        time: String,
    },
    /// Its certificates may have been revoked, and nothing that tells is at hand, or good.
    #[error("nobody knows whether its certificates were revoked: {0}")]
    Revocation(String),
    /// It was made by somebody else than was asked for: whom its certificate names, and who says so.
    #[error("it is by {0}")]
    OtherIdentity(String),
    /// Its entry in a transparency log is missing, malformed, about something else, or not shown to be in the log.
    #[error("its entry in a transparency log is not valid: {0}")]
    Log(String),
    /// The plugin that it asks for does not agree, or does not answer.
    #[error("the verification plugin {name} does not agree: {why}")]
    Plugin {
        /// Its name.
        name: String,
        /// What it says.
        why: String,
    },
    /// It is older than its signer wanted it to be trusted.
    #[error("it expired at {0}")]
    Expired(String),
    /// It needs something that is not done here: a plugin, an unknown critical attribute.
    #[error("it asks for {0}, which is not understood")]
    NotUnderstood(String),
}

impl Refusal {
    /// The same with no long text: most of it is written by whoever made the signature, and many are kept.
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

/// The beginning of a text, in memory of its own.
fn short(text: String) -> String {
    const MAX_CHARACTERS: usize = 300;
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
