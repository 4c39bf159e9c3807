use std::fmt;

use regex::{Regex, RegexBuilder};
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode, oid::AssociatedOid};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::error::{Error, Result};
use crate::pki::Certificate;
use crate::refusal::{Refusal, certificates};

/// A pattern for an identity or issuer.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// This text.
    Exact(String),
    /// Texts that the regular expression matches from the first to the last character.
    Matching(Regex),
    /// Any text.
    Any,
}

impl Pattern {
    /// Returns the pattern for a regular expression, which must match the whole text.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the expression is malformed or takes too much memory.
    pub fn matching(expression: &str) -> Result<Pattern> {
        let whole = RegexBuilder::new(&format!(r"\A(?:{expression})\z")).size_limit(1 << 20).build();
        // An expression such as `a)|(b` is valid only inside of the added group, so it is checked alone as well.
        let alone = RegexBuilder::new(expression).size_limit(1 << 20).build();
        match (whole, alone) {
            (Ok(whole), Ok(_)) => Ok(Pattern::Matching(whole)),
            (Err(error), _) | (_, Err(error)) => {
                Err(Error::Unsupported(format!("`{expression}` is not a supported regular expression: {error}")))
            }
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact == text,
            Pattern::Matching(expression) => expression.is_match(text),
            Pattern::Any => true,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(exact) => f.write_str(exact),
            Pattern::Any => f.write_str("any identity"),
            Pattern::Matching(expression) => {
                let text = expression.as_str();
                let inner = text.strip_prefix(r"\A(?:").and_then(|text| text.strip_suffix(r")\z"));
                write!(f, "/{}/", inner.unwrap_or(text))
            }
        }
    }
}

/// The identity in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateIdentity {
    /// Mail addresses, URIs and user names.
    pub(crate) subjects: Vec<String>,
    /// The OIDC issuer, if the certificate has Fulcio's extension.
    pub(crate) issuer: Option<String>,
}

impl CertificateIdentity {
    /// Reads the identity from a certificate.
    ///
    /// # Errors
    ///
    /// The part of the certificate that is malformed.
    pub(crate) fn of(certificate: &Certificate) -> Result<CertificateIdentity, Refusal> {
        let mut named = CertificateIdentity { subjects: Vec::new(), issuer: None };
        let (mut old, mut new) = (None, None);
        let malformed = |_| certificates("its identity or issuer is malformed");
        let not_text = |_| certificates("its issuer is not text");
        for extension in certificate.parsed().tbs_certificate().extensions().into_iter().flatten() {
            let value = extension.extn_value.as_bytes();
            match extension.extn_id {
                SubjectAltName::OID => {
                    for name in SubjectAltName::from_der(value).map_err(malformed)?.0 {
                        named.subjects.extend(text_of(&name)?);
                    }
                }
                ISSUER_OLD => old = Some(String::from_utf8(value.to_vec()).map_err(not_text)?),
                ISSUER => new = Some(Utf8StringRef::from_der(value).map_err(malformed)?.to_string()),
                _ => {}
            }
        }
        if let (Some(old), Some(new)) = (&old, &new)
            && old != new
        {
            return Err(certificates("it names two issuers"));
        }
        named.issuer = new.or(old);
        Ok(named)
    }
}

impl fmt::Display for CertificateIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects = self.subjects.join(", ");
        f.write_str(if self.subjects.is_empty() { "no identity" } else { &subjects })?;
        match &self.issuer {
            Some(issuer) => write!(f, ", as {issuer} says"),
            None => Ok(()),
        }
    }
}

fn text_of(name: &GeneralName) -> Result<Option<String>, Refusal> {
    Ok(match name {
        GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
        GeneralName::OtherName(other) if other.type_id == USER_NAME => {
            let text = other.value.decode_as::<Utf8StringRef<'_>>();
            Some(text.map_err(|_| certificates("its user name is not text"))?.to_string())
        }
        // No pattern can ask for other names.
        _ => None,
    })
}

/// Fulcio, `docs/oid-info.md`.
const ISSUER_OLD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
const ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
const USER_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.7");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_as_a_whole() {
        for (expression, text, expected) in [
            ("a@b", "a@b", true),
            ("a", "a@b", false),
            ("a|b", "ab", false),
            ("^a$|^b$", "b", true),
            ("https://github\\.com/acme/.*", "https://github.com/acme/app", true),
            ("https://github\\.com/acme/.*", "https://evil.example/https://github.com/acme/app", false),
            ("a.*", "a\nb", false),
            ("a", "a\n", false),
        ] {
            assert_eq!(Pattern::matching(expression).unwrap().matches(text), expected, "{expression} {text}");
        }
        for expression in ["(", "a)|(b", "a{1000000}", "(?x"] {
            assert!(Pattern::matching(expression).is_err(), "{expression}");
        }
        assert!(!Pattern::Exact("a.b".to_owned()).matches("axb"));
        assert_eq!(Pattern::matching("a.").unwrap().to_string(), "/a./");
    }
}
