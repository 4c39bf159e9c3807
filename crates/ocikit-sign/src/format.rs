use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The forms of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// A sigstore bundle as a referrer, as cosign 3 writes it.
    Cosign,
    /// Simple signing under the tag `sha256-….sig`, as cosign wrote it before.
    CosignLegacy,
    /// A JWS envelope of the Notary Project.
    NotationJws,
    /// A COSE envelope of the Notary Project.
    NotationCose,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Cosign, Format::CosignLegacy, Format::NotationJws, Format::NotationCose];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Cosign => "cosign",
            Format::CosignLegacy => "cosign-legacy",
            Format::NotationJws => "notation-jws",
            Format::NotationCose => "notation-cose",
        }
    }

    /// Whether it is one of the Notary Project, which wants certificates.
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
        found.ok_or_else(|| Error::Unsupported(format!("`{text}` is no format of signatures")))
    }
}
