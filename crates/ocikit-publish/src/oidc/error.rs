/// Why a caller is not authorized. No message has a part of the token except claims that are public by nature: issuer,
/// audience, workflow reference and the claims that the configuration names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OidcError {
    /// It is not a signed token.
    #[error("cannot read the token: {problem}")]
    Malformed {
        /// The problem.
        problem: &'static str,
    },
    /// No issuer is configured.
    #[error("cannot verify the token: the configuration has no `trusted-issuers`")]
    NoIssuers,
    /// The issuer is not trusted.
    #[error("the token is refused: wrong issuer: expected {expected}, provided `{provided}`")]
    Issuer {
        /// The trusted issuers.
        expected: String,
        /// The issuer of the token.
        provided: String,
    },
    /// The algorithm is not allowed.
    #[error("the token is refused: wrong algorithm: expected {expected}, provided `{provided}`")]
    Algorithm {
        /// The allowed algorithms.
        expected: String,
        /// The algorithm of the token.
        provided: String,
    },
    /// No key of the issuer made the signature.
    #[error("the token is refused: {problem}")]
    Signature {
        /// The problem.
        problem: &'static str,
    },
    /// The token is for another service.
    #[error("the token is refused: wrong audience: expected {expected}, provided {provided}")]
    Audience {
        /// The accepted audiences.
        expected: String,
        /// Those of the token.
        provided: String,
    },
    /// The token is of another workflow, or another claim differs.
    #[error("the token is refused: wrong `{claim}`: expected {expected}, provided {provided}")]
    Claim {
        /// The name of the claim.
        claim: String,
        /// The accepted values.
        expected: String,
        /// The value of the token.
        provided: String,
    },
    /// The token is not valid now.
    #[error("the token is refused: {problem}")]
    Time {
        /// The problem, with the times.
        problem: String,
    },
    /// The keys of an issuer cannot be used.
    #[error("cannot use the keys of the issuer: {problem}")]
    Keys {
        /// The problem.
        problem: String,
    },
    /// The keys of an issuer cannot be read from a file.
    #[error("cannot read the keys {path}: {source}")]
    KeyFile {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The keys of an issuer cannot be requested.
    #[error("cannot get the keys of {issuer}: {problem}")]
    Fetch {
        /// The issuer.
        issuer: String,
        /// The problem.
        problem: String,
    },
    /// The entry of an issuer in a configuration is not valid.
    #[error("the issuer `{name}`: {problem}")]
    Configuration {
        /// The name of the entry.
        name: String,
        /// The problem.
        problem: String,
    },
}

impl OidcError {
    /// Returns whether the token was read and is not accepted, rather than the check being impossible.
    pub fn is_refusal(&self) -> bool {
        match self {
            OidcError::Malformed { .. }
            | OidcError::Issuer { .. }
            | OidcError::Algorithm { .. }
            | OidcError::Signature { .. }
            | OidcError::Audience { .. }
            | OidcError::Claim { .. }
            | OidcError::Time { .. } => true,
            OidcError::NoIssuers
            | OidcError::Keys { .. }
            | OidcError::KeyFile { .. }
            | OidcError::Fetch { .. }
            | OidcError::Configuration { .. } => false,
        }
    }
}
