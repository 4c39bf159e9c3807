//! Lines of CSV, in which docker and `buildctl` write options with several attributes.

use crate::error::{Error, Result};

/// The attributes of an option: `type=local,dest=out`. Keys are in lower case, values are kept byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// Reads the attributes of an option. A field without `=` gets an empty value.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if a quoted field does not end or a key is empty.
    pub(crate) fn parse(option: &'static str, text: &str) -> Result<Attributes> {
        let refuse = Error::option(option, text);
        let mut attributes = Vec::new();
        for field in split(text).ok_or_else(|| refuse("a quoted field does not end"))? {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            let key = key.trim().to_lowercase();
            if key.is_empty() {
                return Err(refuse("a field has no key"));
            }
            attributes.push((key, value.to_owned()));
        }
        Ok(Attributes(attributes))
    }

    /// Removes an attribute and returns its value.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let position = self.0.iter().position(|(found, _)| found == key)?;
        Some(self.0.remove(position).1)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn push(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_owned(), value.into()));
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Returns the attributes as a line of CSV.
    pub(crate) fn to_line(&self) -> String {
        self.0.iter().map(|(key, value)| field(&format!("{key}={value}"))).collect::<Vec<_>>().join(",")
    }
}

/// Reads the attributes of an option in the notation of docker: `type=local,dest=out`. Fields with a comma are quoted as in
/// CSV.
///
/// # Errors
///
/// [`Error::Option`] if a quoted field does not end or a field has no key.
pub fn attributes(text: &str) -> Result<Vec<(String, String)>> {
    Ok(Attributes::parse("output", text)?.0)
}

/// Escapes a field of a line of CSV.
pub(crate) fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Splits a line of CSV (RFC 4180) into its fields. Returns `None` if a quoted field does not end.
pub(crate) fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = fields.last_mut()?;
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => last.extend(letters.next()),
            '"' if is_quoted => is_quoted = false,
            '"' if last.is_empty() => is_quoted = true,
            ',' if !is_quoted => fields.push(String::new()),
            letter => last.push(letter),
        }
    }
    (!is_quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip() {
        for text in ["a=b", "a=b,c", "a=\"x\"", "a=b\nc", " a", "ä=é"] {
            let line = format!("{},x=y", field(text));
            assert_eq!(split(&line).unwrap(), [text, "x=y"], "{line}");
        }
        assert_eq!(split("\"a"), None);
    }

    #[test]
    fn attributes_have_keys() {
        let mut attributes = Attributes::parse("output", "Type=local,\"dest=a,b\"").unwrap();
        assert_eq!(attributes.take("type").as_deref(), Some("local"));
        assert_eq!(attributes.get("dest"), Some("a,b"));
        assert_eq!(attributes.to_line(), "\"dest=a,b\"");
        assert!(Attributes::parse("output", "=x").is_err());
    }
}
