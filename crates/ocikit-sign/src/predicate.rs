use crate::error::{Error, Result};

/// The predicate type of a statement that is a plain signature.
pub(crate) const SIGNATURE_PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The short names that cosign has for predicate types. All other types are URIs.
const PREDICATE_TYPES: [(&str, &str); 10] = [
    ("slsaprovenance", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance02", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance1", "https://slsa.dev/provenance/v1"),
    ("spdx", "https://spdx.dev/Document"),
    ("spdxjson", "https://spdx.dev/Document"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("link", "https://in-toto.io/Link/v1"),
    ("vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"),
    ("openvex", "https://openvex.dev/ns"),
    ("custom", "https://cosign.sigstore.dev/attestation/v1"),
];

/// Returns the predicate type for cosign's short name or for a URI.
///
/// # Errors
///
/// [`Error::Unsupported`] if the text is neither.
pub fn predicate_type(text: &str) -> Result<String> {
    if let Some((_, uri)) = PREDICATE_TYPES.iter().find(|(name, _)| *name == text) {
        return Ok((*uri).to_owned());
    }
    match text.contains(':') {
        true => Ok(text.to_owned()),
        false => {
            let names: Vec<_> = PREDICATE_TYPES.iter().map(|(name, _)| *name).collect();
            Err(Error::Unsupported(format!("`{text}` is no URI, and none of {}", names.join(", "))))
        }
    }
}

/// Checks that a predicate type can be that of an attestation.
pub(crate) fn check_not_reserved(predicate_type: &str) -> Result<()> {
    match predicate_type == SIGNATURE_PREDICATE_TYPE {
        true => Err(Error::Unsupported("that predicate type is reserved for signatures".to_owned())),
        false => Ok(()),
    }
}
