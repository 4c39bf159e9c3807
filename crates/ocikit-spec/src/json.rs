//! JSON objects that keep the exact text of everything that is not changed.
//!
//! The digest of a document covers its bytes, so an edit must keep what it does not change: numbers (`1.50`), escapes
//! (`\u0026`), unknown keys, and the order of keys.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Deserializes a field; `null`, which Go writes for a nil slice or map, is an empty one. For the crates of this project.
///
/// # Errors
///
/// Those of the value.
#[doc(hidden)]
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A JSON object one level deep: its keys in order, and the text of its values, owned or borrowed.
#[derive(Debug, Clone)]
pub(crate) struct Object<V = Box<RawValue>>(Vec<(String, V)>);

impl<'a, V: Deserialize<'a> + Deref<Target = RawValue>> Object<V> {
    /// Parses an object. A key that occurs twice is an error, because readers disagree about which one counts.
    pub(crate) fn parse(text: &'a str) -> serde_json::Result<Object<V>> {
        serde_json::from_str(text)
    }
}

impl<V: Deref<Target = RawValue>> Object<V> {
    /// Returns the keys whose value is not `null`, which every reader treats as absent.
    pub(crate) fn keys_with_value(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| value.get() != "null").map(|(key, _)| key.as_str())
    }

    pub(crate) fn raw(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.get())
    }

    /// Returns the value of a key; a missing one is read as `null`.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> serde_json::Result<T> {
        serde_json::from_str(self.raw(key).unwrap_or("null"))
    }
}

impl Object {
    /// Sets a key, in its position if it exists, otherwise at the end. Returns whether anything changed.
    pub(crate) fn set(&mut self, key: &str, value: Box<RawValue>) -> bool {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) if old.get() == value.get() => false,
            Some((_, old)) => {
                *old = value;
                true
            }
            None => {
                self.0.push((key.to_owned(), value));
                true
            }
        }
    }

    /// Adds the keys of another object that this one lacks, at its end. Returns whether there were any.
    pub(crate) fn add_missing(&mut self, other: &Object) -> bool {
        let before = self.0.len();
        for (key, value) in &other.0 {
            if self.raw(key).is_none() {
                self.0.push((key.clone(), value.clone()));
            }
        }
        self.0.len() > before
    }

    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(name, _)| name != key);
        self.0.len() < before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn to_raw(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Object<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<V>, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Object<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<V>, A::Error> {
                let mut entries = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format_args!("key `{key}` occurs twice")));
                    }
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// How the text of a document is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout<'a> {
    /// In one line without spaces.
    Compact,
    /// In one line with a space after each comma and colon, as Python writes it.
    Spaced,
    /// In several lines, with this indentation.
    Indented(&'a str),
}

impl Layout<'_> {
    /// Returns the layout of a document.
    pub(crate) fn of(text: &str) -> Layout<'_> {
        if let Some(indent) = indentation(text) {
            return Layout::Indented(indent);
        }
        let first_key = text.trim_start().strip_prefix('{').filter(|rest| rest.starts_with('"'));
        match first_key.is_some_and(|rest| rest[string_length(rest)..].starts_with(": ")) {
            true => Layout::Spaced,
            false => Layout::Compact,
        }
    }
}

/// Returns the indentation of a document; `None` for a document in one line.
fn indentation(text: &str) -> Option<&str> {
    let rest = text.trim_start().strip_prefix('{')?;
    let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'))?;
    let width = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    (1..=8).contains(&width).then(|| &rest[..width])
}

/// Formats valid JSON, and keeps the text of every key and value.
pub(crate) fn lay_out(text: &str, layout: Layout<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0;
    let mut rest = text.trim_start();
    let new_line = |out: &mut String, depth: usize| {
        if let Layout::Indented(indent) = layout {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent, depth));
        }
    };
    while let Some(token) = rest.chars().next() {
        let length = match token {
            '"' => string_length(rest),
            '{' | '[' | '}' | ']' | ',' | ':' => 1,
            _ => rest.find(['{', '[', '}', ']', ',', ':', '"', ' ', '\t', '\r', '\n']).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        rest = after.trim_start();
        match token {
            '{' | '[' => {
                out.push(token);
                if !rest.starts_with(['}', ']']) {
                    depth += 1;
                    new_line(&mut out, depth);
                } else if let Some(close) = rest.chars().next() {
                    out.push(close);
                    rest = rest[1..].trim_start();
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(token);
            }
            ',' => {
                out.push_str(if layout == Layout::Spaced { ", " } else { "," });
                new_line(&mut out, depth);
            }
            ':' => out.push_str(if layout == Layout::Compact { ":" } else { ": " }),
            _ => out.push_str(word),
        }
    }
    out
}

/// Returns the length of the string literal at the start of the text, including quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_keeps_keys_and_values() {
        let text = r#" { "a" : [ 1.50 , 1e3,{ } ,[ ] ] , "b\"}" : "x\\", "c":{"d":null} } "#;
        assert_eq!(lay_out(text, Layout::Compact), r#"{"a":[1.50,1e3,{},[]],"b\"}":"x\\","c":{"d":null}}"#);
        let spaced = r#"{"a": [1.50, 1e3, {}, []], "b\"}": "x\\", "c": {"d": null}}"#;
        assert_eq!(lay_out(text, Layout::Spaced), spaced);
        assert_eq!(lay_out(spaced, Layout::of(spaced)), spaced);
        let indented = "{\n  \"a\": [\n    1.50,\n    1e3,\n    {},\n    []\n  ],\n  \"b\\\"}\": \"x\\\\\",\n  \"c\": {\n    \"d\": null\n  }\n}";
        assert_eq!(lay_out(text, Layout::Indented("  ")), indented);
        assert_eq!(lay_out(indented, Layout::Indented("  ")), indented);
    }

    #[test]
    fn detects_indentation() {
        for (text, indent) in [
            ("{\"a\":1}", None),
            ("{\n\"a\":1}", None),
            ("{\n  \"a\":1}", Some("  ")),
            ("{\r\n\t\"a\":1}", Some("\t")),
            ("{}", None),
            ("[\n  1]", None),
            ("", None),
        ] {
            assert_eq!(indentation(text), indent, "{text:?}");
        }
    }

    #[test]
    fn refuses_a_key_that_occurs_twice() {
        assert!(Object::<Box<RawValue>>::parse(r#"{"a":1,"b":2,"a":1}"#).is_err());
        assert!(Object::<Box<RawValue>>::parse("[]").is_err());
    }

    proptest::proptest! {
        #[test]
        fn layout_keeps_every_value(value in arbitrary_json()) {
            let text = value.to_string();
            proptest::prop_assert_eq!(lay_out(&lay_out(&text, Layout::Indented("\t")), Layout::Compact), text);
        }

        #[test]
        fn layout_survives_any_text(text in ".*") {
            lay_out(&text, Layout::Indented("  "));
            lay_out(&text, Layout::Compact);
        }
    }

    fn arbitrary_json() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((".*", inner), 0..4).prop_map(|pairs| pairs.into_iter().collect()),
            ]
        })
    }
}
