//! Arguments of the form KEY=VALUE.

/// Parses KEY=VALUE. The first `=` ends the key; the value may contain further ones.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not of the form KEY=VALUE".to_owned()),
    }
}
