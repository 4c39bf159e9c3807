//! Signature formats.
//!
//! A format is a variant of [`Format`], its line in [`Format::implementation`], and a file in this directory that
//! implements [`SignatureFormat`]. Signing, verifying, importing and policies use only that trait.

mod cosign;
mod cosign_legacy;
mod interface;
mod notation;

use std::fmt;
use std::str::FromStr;

pub(crate) use cosign::of_bundle;
pub use interface::SignInput;
pub(crate) use interface::{Content, Properties, SignRequest, SignatureFormat, SigningKey, Storage};

use crate::error::{Error, Result};
use crate::notation::EnvelopeFormat;
use crate::refusal::Refusal;
use crate::trust::{SignerKind, Trust};

/// A signature format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// A sigstore bundle stored as a referrer, the format of cosign 3.
    Cosign,
    /// Simple signing under the tag `sha256-….sig`, the format of older cosign versions.
    CosignLegacy,
    /// A JWS envelope of the Notary Project.
    NotationJws,
    /// A COSE envelope of the Notary Project.
    NotationCose,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [Format::Cosign, Format::CosignLegacy, Format::NotationJws, Format::NotationCose];

    /// Returns the row of this format in the table of formats.
    pub(crate) fn implementation(self) -> &'static dyn SignatureFormat {
        match self {
            Format::Cosign => &cosign::Bundle,
            Format::CosignLegacy => &cosign_legacy::SimpleSigning,
            Format::NotationJws => &notation::Envelope(EnvelopeFormat::Jws),
            Format::NotationCose => &notation::Envelope(EnvelopeFormat::Cose),
        }
    }

    pub(crate) fn properties(self) -> &'static Properties {
        self.implementation().properties()
    }

    /// Returns the name of the format, as options and output spell it.
    pub fn as_str(self) -> &'static str {
        self.properties().name
    }

    /// Returns a description of the format in one line.
    pub fn description(self) -> &'static str {
        self.properties().description
    }

    /// Returns whether signing in this format uses an input. Other formats ignore it.
    pub fn uses(self, input: SignInput) -> bool {
        self.properties().inputs.contains(&input)
    }

    /// Returns whether attestations can be signed in this format.
    pub fn has_attestations(self) -> bool {
        self.properties().has_attestations
    }

    /// Returns the format of Notary Project envelopes in an encoding.
    pub(crate) fn of_envelope(envelope: EnvelopeFormat) -> Format {
        match envelope {
            EnvelopeFormat::Jws => Format::NotationJws,
            EnvelopeFormat::Cose => Format::NotationCose,
        }
    }

    /// Returns the formats in which signers of a kind can sign.
    pub(crate) fn of_signers(kind: SignerKind) -> Vec<Format> {
        let is_able = |format: &Format| format.properties().signers.contains(&kind);
        Format::ALL.into_iter().filter(is_able).collect()
    }

    /// Returns the formats of attestations.
    pub(crate) fn of_attestations() -> Vec<Format> {
        Format::ALL.into_iter().filter(|format| format.has_attestations()).collect()
    }

    /// Checks that attestations can be in all of these formats.
    pub(crate) fn check_attestations(formats: &[Format]) -> Result<()> {
        if formats.iter().all(|format| format.has_attestations()) {
            return Ok(());
        }
        let names = Format::of_attestations().into_iter().map(|format| format!("`{format}`"));
        let names = names.collect::<Vec<_>>().join(" and ");
        Err(Error::Unsupported(format!("attestations support the format {names} only")))
    }

    /// Returns the format of a signature with its own manifest; `None` for other artifacts.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotUnderstood`] for an unsupported version of a format.
    pub(crate) fn detect(artifact_type: &str, layer_type: &str) -> Result<Option<Format>, Refusal> {
        for format in Format::ALL {
            if format.implementation().detect(artifact_type, layer_type)? {
                return Ok(Some(format));
            }
        }
        Ok(None)
    }

    /// Returns whether a listed artifact may be a signature, given its artifact type. Registries may omit the type, or
    /// list the media type of the config.
    pub(crate) fn may_be_listed_as(artifact_type: &str) -> bool {
        artifact_type.is_empty()
            || artifact_type == "application/vnd.oci.empty.v1+json"
            || Format::ALL.into_iter().any(|format| format.implementation().may_be_listed_as(artifact_type))
    }
}

impl Trust {
    /// Returns the formats of signatures by this signer.
    pub fn formats(&self) -> Vec<Format> {
        Format::of_signers(self.kind())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Format, Error> {
        let found = Format::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| Error::Unsupported(format!("`{text}` is not a signature format")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_format_has_its_own_name_and_signers() {
        let names: BTreeSet<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
        assert_eq!(names.len(), Format::ALL.len());
        for format in Format::ALL {
            assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
            assert!(!format.properties().signers.is_empty(), "{format}");
        }
    }

    #[test]
    fn a_manifest_is_detected_by_its_types() {
        let [bundle, notary] =
            ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.cncf.notary.signature"];
        for (artifact_type, layer_type, format) in [
            (bundle, bundle, Ok(Some(Format::Cosign))),
            (notary, "application/jose+json", Ok(Some(Format::NotationJws))),
            (notary, "application/cose", Ok(Some(Format::NotationCose))),
            (notary, "text/plain", Err("envelopes of type text/plain")),
            ("application/vnd.dev.sigstore.bundle.v0.9+json", bundle, Err("bundles of type application")),
            ("application/spdx+json", "application/cose", Ok(None)),
        ] {
            match (Format::detect(artifact_type, layer_type), format) {
                (Err(Refusal::NotUnderstood(what)), Err(part)) => assert!(what.starts_with(part), "{what}"),
                (found, expected) => assert_eq!(found.ok(), expected.ok(), "{artifact_type} {layer_type}"),
            }
        }
    }
}
