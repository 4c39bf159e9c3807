//! Values of arguments that several commands have.

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ocikit::{Reference, spec};

/// Returns the parser of a value that has these names.
pub(crate) fn one_of<T: Clone + Send + Sync + 'static>(
    values: impl IntoIterator<Item = (impl Into<PossibleValue>, T)>,
) -> impl TypedValueParser<Value = T> {
    let values: Vec<(PossibleValue, T)> = values.into_iter().map(|(name, value)| (name.into(), value)).collect();
    let names: Vec<_> = values.iter().map(|(name, _)| name.clone()).collect();
    PossibleValuesParser::new(names).try_map(move |name| {
        let found = values.iter().find(|(known, _)| known.matches(&name, false));
        found.map(|(_, value)| value.clone()).ok_or("it is none of the possible values")
    })
}

/// Returns the name of a value on the command line.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

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
