//! Values of arguments that several commands have.

use ocikit::{Reference, spec};

/// Parses KEY=VALUE. The first `=` ends the key; the value may contain further ones.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not of the form KEY=VALUE".to_owned()),
    }
}

/// Parses a media type. RFC 6838, section 4.2.
pub(crate) fn media_type(text: &str) -> Result<String, String> {
    const MAX_CHARS: usize = 127;
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.len() <= MAX_CHARS
            && name.chars().all(|char| char.is_ascii_alphanumeric() || "!#$&-^_.+".contains(char))
    };
    match text.split_once('/') {
        Some((kind, subtype)) if is_name(kind) && is_name(subtype) => Ok(text.to_owned()),
        _ => Err("it is not a media type such as application/vnd.example.sbom".to_owned()),
    }
}

/// Reads the name of an image that is not built yet: its digest is not known.
pub(crate) fn tag_of_image(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: spec::Error| error.to_string())?;
    match reference.digest() {
        Some(_) => Err("the digest of an image is not known before it is built; give a tag".to_owned()),
        None => Ok(reference),
    }
}
