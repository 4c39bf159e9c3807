//! Keys that JSON readers written in Go read differently.
//!
//! `encoding/json` of Go ignores the case of keys, also beyond ASCII, and the last match counts. containerd, Docker,
//! crane and others therefore read `Digest` and `dige\u017ft` as `digest`, even after a key `digest`. A document with
//! such a key could show one image to a check and another to the program that runs it, so it is rejected.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::Error;

/// The known keys of an object and what their values are.
pub(crate) type Keys = &'static [(&'static str, Holds)];

/// The value of a known key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holds {
    /// A value without known keys: a string, a number, a list of them, or a map whose keys are data.
    Data,
    /// An object with these keys.
    Object(Keys),
    /// A list of such objects.
    List(Keys),
}

use Holds::{Data, List, Object};

/// Image specification, "Image Index".
pub(crate) const INDEX: Keys = &[
    ("schemaVersion", Data),
    ("mediaType", Data),
    ("artifactType", Data),
    ("manifests", List(DESCRIPTOR)),
    ("subject", Object(DESCRIPTOR)),
    ("annotations", Data),
];

/// Image specification, "Image Manifest", and `blobs` of the draft artifact manifest.
pub(crate) const MANIFEST: Keys = &[
    ("schemaVersion", Data),
    ("mediaType", Data),
    ("artifactType", Data),
    ("config", Object(DESCRIPTOR)),
    ("layers", List(DESCRIPTOR)),
    ("blobs", List(DESCRIPTOR)),
    ("subject", Object(DESCRIPTOR)),
    ("annotations", Data),
];

/// Image specification, "Content Descriptors".
const DESCRIPTOR: Keys = &[
    ("mediaType", Data),
    ("digest", Data),
    ("size", Data),
    ("urls", Data),
    ("annotations", Data),
    ("data", Data),
    ("artifactType", Data),
    ("platform", Object(PLATFORM)),
];

/// Image specification, "Image Index Property Descriptions".
const PLATFORM: Keys =
    &[("architecture", Data), ("os", Data), ("os.version", Data), ("os.features", Data), ("variant", Data)];

/// Image specification, "Image Configuration".
pub(crate) const CONFIG: Keys = &[
    ("created", Data),
    ("author", Data),
    ("architecture", Data),
    ("os", Data),
    ("os.version", Data),
    ("os.features", Data),
    ("variant", Data),
    ("config", Object(EXECUTION)),
    ("rootfs", Object(ROOTFS)),
    ("history", List(HISTORY)),
];

const EXECUTION: Keys = &[
    ("User", Data),
    ("ExposedPorts", Data),
    ("Env", Data),
    ("Entrypoint", Data),
    ("Cmd", Data),
    ("Volumes", Data),
    ("WorkingDir", Data),
    ("Labels", Data),
    ("StopSignal", Data),
    ("ArgsEscaped", Data),
    ("Memory", Data),
    ("MemorySwap", Data),
    ("CpuShares", Data),
    ("Healthcheck", Data),
];

const ROOTFS: Keys = &[("type", Data), ("diff_ids", Data)];

const HISTORY: Keys =
    &[("created", Data), ("created_by", Data), ("author", Data), ("comment", Data), ("empty_layer", Data)];

/// Attestation Framework of in-toto, "Statement" and "ResourceDescriptor". The keys of `digest` are those of a map.
const STATEMENT: Keys =
    &[("_type", Data), ("subject", List(STATEMENT_SUBJECT)), ("predicateType", Data), ("predicate", Data)];

const STATEMENT_SUBJECT: Keys = &[
    ("name", Data),
    ("uri", Data),
    ("digest", Data),
    ("content", Data),
    ("downloadLocation", Data),
    ("mediaType", Data),
    ("annotations", Data),
];

/// Checks that readers written in Go find the same subjects and the same predicate in an in-toto statement as this
/// program: no known key of the statement or of a subject may occur twice or in another case.
///
/// # Errors
///
/// [`Error::Document`] with the key and its place.
pub fn check_statement_keys(statement: &[u8]) -> Result<(), Error> {
    let text = std::str::from_utf8(statement)
        .map_err(|error| Error::Document { document: "statement", problem: error.to_string() })?;
    check("statement", text, STATEMENT)
}

/// Returns whether Go's `encoding/json` reads a key as this name, which is ASCII. U+017F (long s) and U+212A (Kelvin
/// sign) are the only characters beyond ASCII that fold to ASCII.
pub(crate) fn folds_to(key: &str, name: &str) -> bool {
    let folded = key.chars().map(|char| match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(name.chars().map(|char| char.to_ascii_lowercase()))
}

/// Checks the keys of a document and of the objects in it. Keeps nothing of the text. Whether values have the right
/// type is not checked.
///
/// # Errors
///
/// [`Error::Document`] with the place and the key, for a key that equals a known one except for its case, and for a known key that occurs twice.
pub(crate) fn check(document: &'static str, text: &str, keys: Keys) -> Result<(), Error> {
    let mut place = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let walk = Walk { place: &mut place, holds: Object(keys) };
    walk.deserialize(&mut deserializer).map_err(|error| {
        let problem = match Place(&place).to_string() {
            place if place.is_empty() => format!("it {error}"),
            place => format!("`{place}` {error}"),
        };
        Error::Document { document, problem }
    })
}

/// A step on the way from the document to an object in it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Key(&'static str),
    Item(usize),
}

struct Place<'a>(&'a [Step]);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}

/// Walks through a value. After an error, `place` is the object with the error.
struct Walk<'a> {
    place: &'a mut Vec<Step>,
    holds: Holds,
}

impl Walk<'_> {
    fn step(&mut self, step: Step, holds: Holds) -> Walk<'_> {
        self.place.push(step);
        Walk { place: self.place, holds }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.holds {
            Data => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            Object(_) | List(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let List(keys) = self.holds else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        for number in 0.. {
            if items.next_element_seed(self.step(Step::Item(number), Object(keys)))?.is_none() {
                self.place.pop();
                break;
            }
            self.place.pop();
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut pairs: A) -> Result<(), A::Error> {
        let Object(keys) = self.holds else {
            while pairs.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut seen = 0_u64;
        while let Some(known) = pairs.next_key_seed(Key(keys))? {
            let Some(position) = known else {
                pairs.next_value::<IgnoredAny>()?;
                continue;
            };
            let (name, holds) = keys[position];
            if seen & 1 << position != 0 {
                return Err(A::Error::custom(format_args!("has `{name}` twice")));
            }
            seen |= 1 << position;
            pairs.next_value_seed(self.step(Step::Key(name), holds))?;
            self.place.pop();
        }
        Ok(())
    }
}

/// Deserializes a key to its position among the known ones; `None` for an unknown key.
struct Key(Keys);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Option<usize>, E> {
        match self.0.iter().position(|(name, _)| folds_to(key, name)) {
            Some(position) if self.0[position].0 != key => Err(E::custom(format_args!(
                "has `{}`, which some readers treat as `{}`",
                key.escape_default(),
                self.0[position].0
            ))),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_keys_like_go() {
        for (key, name, expected) in [
            ("digest", "digest", true),
            ("Digest", "digest", true),
            ("DIGE\u{17f}T", "digest", true),
            ("wor\u{212a}ingdir", "WorkingDir", true),
            ("os.VERSION", "os.version", true),
            ("os_version", "os.version", false),
            ("digests", "digest", false),
            ("diges", "digest", false),
            ("d\u{131}gest", "digest", false),
            ("\u{df}ize", "size", false),
            ("\u{ff53}ize", "size", false),
            ("", "os", false),
        ] {
            assert_eq!(folds_to(key, name), expected, "{key:?} {name:?}");
        }
    }

    #[test]
    fn tables_are_unambiguous_and_fit_the_bit_mask() {
        for keys in
            [INDEX, MANIFEST, DESCRIPTOR, PLATFORM, CONFIG, EXECUTION, ROOTFS, HISTORY, STATEMENT, STATEMENT_SUBJECT]
        {
            assert!(keys.len() <= 64);
            for (at, (name, _)) in keys.iter().enumerate() {
                assert!(name.is_ascii());
                assert_eq!(keys.iter().position(|(other, _)| folds_to(other, name)), Some(at), "{name}");
            }
        }
    }

    /// Every known key of every kind of object, in upper case, with a long s and with a Kelvin sign, and twice.
    #[test]
    fn rejects_known_keys_in_other_cases_at_every_place() {
        let places = [
            (INDEX, INDEX, "@", ""),
            (INDEX, DESCRIPTOR, r#"{"manifests":[{},@]}"#, "manifests[1]"),
            (INDEX, PLATFORM, r#"{"manifests":[{"platform":@}]}"#, "manifests[0].platform"),
            (INDEX, DESCRIPTOR, r#"{"subject":@}"#, "subject"),
            (MANIFEST, MANIFEST, "@", ""),
            (MANIFEST, DESCRIPTOR, r#"{"config":@}"#, "config"),
            (MANIFEST, DESCRIPTOR, r#"{"layers":[@]}"#, "layers[0]"),
            (MANIFEST, DESCRIPTOR, r#"{"blobs":[@]}"#, "blobs[0]"),
            (MANIFEST, DESCRIPTOR, r#"{"subject":@}"#, "subject"),
            (MANIFEST, PLATFORM, r#"{"subject":{"platform":@}}"#, "subject.platform"),
            (CONFIG, CONFIG, "@", ""),
            (CONFIG, EXECUTION, r#"{"config":@}"#, "config"),
            (CONFIG, ROOTFS, r#"{"rootfs":@}"#, "rootfs"),
            (STATEMENT, STATEMENT, "@", ""),
            (STATEMENT, STATEMENT_SUBJECT, r#"{"subject":[@]}"#, "subject[0]"),
            (CONFIG, HISTORY, r#"{"history":[{},{},@]}"#, "history[2]"),
        ];
        for (document, object, template, place) in places {
            let place = if place.is_empty() { "it".to_owned() } else { format!("`{place}`") };
            let problem = |object: &str| match check("document", &template.replace('@', object), document) {
                Err(Error::Document { problem, .. }) => Err(problem),
                other => other.map_err(|error| error.to_string()),
            };
            for (name, _) in object {
                let swapped = if name.starts_with(|char: char| char.is_ascii_lowercase()) {
                    name.to_ascii_uppercase()
                } else {
                    name.to_ascii_lowercase()
                };
                let long_s = name.to_lowercase().replacen('s', "\u{17f}", 1);
                let escaped = name.to_lowercase().replacen('s', r"\u017f", 1);
                let kelvin = name.to_lowercase().replacen('k', "\u{212a}", 1);
                for key in [swapped, long_s, escaped, kelvin] {
                    if key == *name {
                        continue;
                    }
                    for text in [format!(r#"{{"{name}":null,"{key}":1}}"#), format!(r#"{{"x":1,"{key}":[]}}"#)] {
                        let error = problem(&text).unwrap_err();
                        assert!(error.starts_with(&format!("{place} has `")), "{text}: {error}");
                        assert!(error.contains(&format!("which some readers treat as `{name}`")), "{text}: {error}");
                        assert!(error.is_ascii(), "{error}");
                    }
                }
                let twice = problem(&format!(r#"{{"{name}":null,"x":2,"{name}":null}}"#)).unwrap_err();
                assert!(twice.starts_with(&format!("{place} has `{name}` twice")), "{twice}");
                assert_eq!(
                    problem(&format!(r#"{{"{name}":null,"x-{name}":1,"X-{name}":2,"{name}s.x":{{}}}}"#)),
                    Ok(())
                );
            }
        }
    }

    #[test]
    fn keys_of_maps_and_of_unknown_objects_are_data() {
        for (keys, text) in [
            (INDEX, r#"{"annotations":{"digest":"","Digest":"","manife\u017fts":""},"x":{"Digest":1,"digest":2}}"#),
            (INDEX, r#"{"manifests":[{"annotations":{"a":"","A":""},"x":[{"Platform":{},"platform":{}}]}]}"#),
            (CONFIG, r#"{"config":{"Labels":{"os":"","OS":""},"Volumes":{"/a":{},"/A":{}},"Env":["a","A"]}}"#),
            (CONFIG, r#"{"container_config":{"env":[],"Env":[]},"docker_version":"1"}"#),
            (STATEMENT, r#"{"subject":[{"digest":{"sha256":"","SHA256":""}}],"predicate":{"a":1,"A":2}}"#),
            (MANIFEST, r#"{"config":null,"layers":{"Digest":1},"subject":[{"Digest":1}]}"#),
        ] {
            assert_eq!(check("document", text, keys), Ok(()), "{text}");
        }
    }
}
