use std::fmt;
use std::str::FromStr;

use crate::error::Error;

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

    /// Returns the name of the format, as options and output spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Cosign => "cosign",
            Format::CosignLegacy => "cosign-legacy",
            Format::NotationJws => "notation-jws",
            Format::NotationCose => "notation-cose",
        }
    }

    /// Returns whether this is a Notary Project format, which requires certificates.
    pub fn is_notation(self) -> bool {
        matches!(self, Format::NotationJws | Format::NotationCose)
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
