use ocikit_spec::{Digest, Tag};

/// The kind of a tag under which referrers are stored, instead of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReferrerTag {
    /// `sha256-HEX`: the list of referrers, for registries without the referrers API. Distribution specification,
    /// "Referrers Tag Schema".
    List,
    /// `sha256-HEX.sig`: signatures of cosign.
    Signatures,
    /// `sha256-HEX.att`: attestations of cosign.
    Attestations,
    /// `sha256-HEX.sbom`: an SBOM attached by cosign.
    Sbom,
}

/// The suffixes of cosign's tags.
pub(crate) const COSIGN_SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// The number of hexadecimal digits of a digest in a tag; longer digests are truncated.
const HEX_DIGITS: usize = 64;

impl ReferrerTag {
    /// Returns the kind of a tag, or `None` for an ordinary one.
    pub fn of(tag: &Tag) -> Option<ReferrerTag> {
        let (digest, ending) = match tag.as_str().split_once('.') {
            Some((digest, ending)) => (digest, Some(ending)),
            None => (tag.as_str(), None),
        };
        let hex = digest.strip_prefix("sha256-").or_else(|| digest.strip_prefix("sha512-"))?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != HEX_DIGITS || !hex.bytes().all(is_hex) {
            return None;
        }
        match ending {
            None => Some(ReferrerTag::List),
            Some("sig") => Some(ReferrerTag::Signatures),
            Some("att") => Some(ReferrerTag::Attestations),
            Some("sbom") => Some(ReferrerTag::Sbom),
            Some(_) => None,
        }
    }

    /// Returns the subject of the referrers under a tag, or `None` for an ordinary tag and for a truncated digest.
    pub(crate) fn subject(tag: &Tag) -> Option<Digest> {
        ReferrerTag::of(tag)?;
        let digest = tag.as_str().split('.').next()?;
        digest.replacen('-', ":", 1).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_referrers_are_recognized() {
        let hex = "0123456789abcdef".repeat(4);
        for (tag, expected) in [
            (format!("sha256-{hex}"), Some(ReferrerTag::List)),
            (format!("sha512-{hex}"), Some(ReferrerTag::List)),
            (format!("sha256-{hex}.sig"), Some(ReferrerTag::Signatures)),
            (format!("sha256-{hex}.att"), Some(ReferrerTag::Attestations)),
            (format!("sha256-{hex}.sbom"), Some(ReferrerTag::Sbom)),
            (format!("sha256-{hex}.sig.old"), None),
            (format!("sha256-{}", &hex[1..]), None),
            (format!("sha256-{}", hex.to_uppercase()), None),
            (format!("v1-{hex}"), None),
            ("latest".to_owned(), None),
        ] {
            assert_eq!(ReferrerTag::of(&tag.parse().unwrap()), expected, "{tag}");
        }
    }
}
