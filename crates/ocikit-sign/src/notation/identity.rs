use std::collections::BTreeMap;

use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Tag, Tagged};
use x509_cert::ext::pkix::name::DirectoryString;

use crate::refusal::Refusal;

/// A distinguished name, or a part of one: attributes by their short names, each at most once.
///
/// Notary Project, "Trusted Identities Constraints"; the text format is that of RFC 4514.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DistinguishedName(BTreeMap<String, String>);

/// Why a distinguished name is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("`{0}` has a value in hexadecimal digits")]
    HexValue(String),
    #[error("`{0}` is not of the form NAME=VALUE")]
    NotAPair(String),
    #[error("its subject has an attribute with several values")]
    MultiValuedSubject,
    #[error("`{0}` has an attribute with several values")]
    MultiValued(String),
    #[error("a name without {0} identifies no signer")]
    Missing(&'static str),
    #[error("a name has {0} twice")]
    Duplicate(String),
    #[error("`{0}` ends with a backslash")]
    TrailingBackslash(String),
    #[error("`{0}` has half a byte")]
    HalfByte(String),
    #[error("`{0}` is not UTF-8")]
    NotText(String),
    #[error("its subject is malformed: {0}")]
    Malformed(#[from] x509_cert::der::Error),
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Refusal {
        Refusal::Certificates(error.to_string())
    }
}

impl DistinguishedName {
    /// Parses text such as `C=US, ST=WA, O=Acme`.
    pub(crate) fn parse(text: &str) -> Result<DistinguishedName, NameError> {
        if text.contains("=#") {
            return Err(NameError::HexValue(text.to_owned()));
        }
        let mut found = BTreeMap::new();
        for part in split(text)? {
            let (name, value) = part.split_once('=').ok_or_else(|| NameError::NotAPair(part.clone()))?;
            add(&mut found, name.trim().to_owned(), unescape(value)?)?;
        }
        DistinguishedName::checked(found)
    }

    /// Returns the subject of a certificate.
    pub(crate) fn of(certificate: &Certificate) -> Result<DistinguishedName, NameError> {
        let mut found = BTreeMap::new();
        for part in certificate.tbs_certificate().subject().iter_rdn() {
            if part.len() != 1 {
                return Err(NameError::MultiValuedSubject);
            }
            for attribute in part.iter() {
                let name = NAMES.iter().find(|(_, oid)| *oid == attribute.oid);
                let name = name.map_or_else(|| attribute.oid.to_string(), |(name, _)| (*name).to_owned());
                let value = &attribute.value;
                if [Tag::Utf8String, Tag::PrintableString, Tag::TeletexString].contains(&value.tag()) {
                    let text: DirectoryString = value.decode_as()?;
                    add(&mut found, name, text.value().into_owned())?;
                }
            }
        }
        DistinguishedName::checked(found)
    }

    fn checked(found: BTreeMap<String, String>) -> Result<DistinguishedName, NameError> {
        match ["C", "ST", "O"].into_iter().find(|name| found.get(*name).is_none_or(String::is_empty)) {
            Some(missing) => Err(NameError::Missing(missing)),
            None => Ok(DistinguishedName(found)),
        }
    }

    /// Returns whether the other name has every attribute of this one.
    pub(crate) fn is_part_of(&self, other: &DistinguishedName) -> bool {
        self.0.iter().all(|(name, value)| other.0.get(name) == Some(value))
    }
}

fn add(found: &mut BTreeMap<String, String>, name: String, value: String) -> Result<(), NameError> {
    let name = if name == "S" { "ST".to_owned() } else { name };
    match found.insert(name.clone(), value) {
        None => Ok(()),
        Some(_) => Err(NameError::Duplicate(name)),
    }
}

/// Splits text at commas that are not escaped.
fn split(text: &str) -> Result<Vec<String>, NameError> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut escaped = false;
    for letter in text.chars() {
        match letter {
            ',' | ';' if !escaped => parts.push(std::mem::take(&mut part)),
            '+' if !escaped => return Err(NameError::MultiValued(text.to_owned())),
            _ => part.push(letter),
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.push(part);
    Ok(parts)
}

/// Returns a value without its escapes and without unescaped surrounding spaces.
fn unescape(text: &str) -> Result<String, NameError> {
    let text = text.trim_start();
    let kept = text.trim_end();
    // A space after a backslash belongs to the value.
    let text = if kept.ends_with('\\') && text.len() > kept.len() { &text[..=kept.len()] } else { kept };
    let mut bytes = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let next = letters.next().ok_or_else(|| NameError::TrailingBackslash(text.to_owned()))?;
        match next.to_digit(16) {
            Some(high) => {
                let low = letters.next().and_then(|letter| letter.to_digit(16));
                let low = low.ok_or_else(|| NameError::HalfByte(text.to_owned()))?;
                bytes.push((high * 16 + low) as u8);
            }
            None => bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    String::from_utf8(bytes).map_err(|_| NameError::NotText(text.to_owned()))
}

const NAMES: [(&str, ObjectIdentifier); 9] = [
    ("CN", ObjectIdentifier::new_unwrap("2.5.4.3")),
    ("SERIALNUMBER", ObjectIdentifier::new_unwrap("2.5.4.5")),
    ("C", ObjectIdentifier::new_unwrap("2.5.4.6")),
    ("L", ObjectIdentifier::new_unwrap("2.5.4.7")),
    ("ST", ObjectIdentifier::new_unwrap("2.5.4.8")),
    ("STREET", ObjectIdentifier::new_unwrap("2.5.4.9")),
    ("O", ObjectIdentifier::new_unwrap("2.5.4.10")),
    ("OU", ObjectIdentifier::new_unwrap("2.5.4.11")),
    ("POSTALCODE", ObjectIdentifier::new_unwrap("2.5.4.17")),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn distinguished_names_follow_rfc_4514() {
        let one = DistinguishedName::parse("C=US, ST=WA,O = Acme\\, Inc., CN=\\41b\\ ").unwrap();
        let found: Vec<_> = one.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("C", "US"), ("CN", "Ab "), ("O", "Acme, Inc."), ("ST", "WA")]);
        let part = DistinguishedName::parse("O=Acme\\, Inc.,S=WA,C=US").unwrap();
        assert!(part.is_part_of(&one) && !one.is_part_of(&part));
        for text in
            ["", "C=US,ST=WA", "C=US,ST=WA,O=a,O=b", "C=US,ST=WA,O=a+OU=b", "C=#13,ST=a,O=b", "C=US,ST=WA,O=a\\"]
        {
            assert!(DistinguishedName::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn untrusted_input_does_not_panic(text in ".*") {
            let _ = DistinguishedName::parse(&text);
            let _ = DistinguishedName::parse(&format!("C=US,ST=WA,O={text}"));
        }
    }
}
