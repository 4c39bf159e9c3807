//! The text of a document, and the checks that all documents share.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::Digest;
use crate::error::{Error, Result};
use crate::json::Object;
use crate::keys;

/// The maximum size of a manifest, index or config in bytes: the limit of registries.
///
/// A parsed document can take twenty times its size in memory, so this bounds the memory that untrusted input can use.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// The maximum size of a layout's `index.json` in bytes, which is never pushed: about 50,000 images.
pub const MAX_ROOTS_BYTES: u64 = 8 << 20;

/// The exact text of a document and its digest, common to all three documents.
#[derive(Clone)]
pub(super) struct Text(pub(super) Bytes);

impl Text {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("parsing begins with this check")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest::sha256_of(&self.0), f)
    }
}

macro_rules! text_of_document {
    ($name:ident) => {
        impl $name {
            /// Returns the exact bytes that were parsed or written. Their digest is that of the document.
            pub fn bytes(&self) -> &Bytes {
                &self.text.0
            }

            /// Returns the exact bytes as text.
            pub fn text(&self) -> &str {
                self.text.as_str()
            }

            /// Returns the sha256 digest of the bytes.
            pub fn digest(&self) -> Digest {
                Digest::sha256_of(&self.text.0)
            }
        }
    };
}

pub(super) use text_of_document;

pub(super) fn check_length(document: &'static str, bytes: &Bytes, most: u64) -> Result<()> {
    match bytes.len() as u64 {
        length if length > most => Err(invalid(document, format!("{length} bytes exceed the limit of {most} bytes"))),
        _ => Ok(()),
    }
}

/// The fields of a document, borrowed from its text to avoid a copy of long lists.
pub(super) type Fields<'a> = Object<&'a RawValue>;

pub(super) fn parse_object<'a>(document: &'static str, bytes: &'a Bytes) -> Result<Fields<'a>> {
    let most = if document == "index" { MAX_ROOTS_BYTES } else { MAX_DOCUMENT_BYTES };
    check_length(document, bytes, most)?;
    let text = std::str::from_utf8(bytes).map_err(|error| invalid(document, error))?;
    Object::parse(text).map_err(|error| invalid(document, error))
}

pub(super) fn field<T: DeserializeOwned>(document: &'static str, object: &Fields<'_>, key: &str) -> Result<T> {
    object.get(key).map_err(|error| invalid(document, format!("`{key}`: {error}")))
}

/// Rejects a document that readers written in Go would read differently, at any depth.
pub(super) fn check_keys(document: &'static str, text: &Text, known: keys::Keys) -> Result<()> {
    keys::check(document, text.as_str(), known)
}

/// Rejects a document that could be read as another kind of document.
pub(super) fn check_kind(document: &'static str, object: &Fields<'_>, foreign: &[&str]) -> Result<()> {
    for key in object.keys_with_value() {
        if foreign.iter().any(|name| keys::folds_to(key, name)) {
            let problem = format!("it also has `{}`, which belongs to another kind of document", key.escape_default());
            return Err(invalid(document, problem));
        }
    }
    Ok(())
}

pub(super) fn check_schema_version(document: &'static str, object: &Fields<'_>) -> Result<()> {
    match field::<Option<u64>>(document, object, "schemaVersion")? {
        Some(2) => Ok(()),
        Some(other) => Err(invalid(document, format!("its schema version is {other}, not 2"))),
        None => Err(invalid(document, "it has no schema version")),
    }
}

pub(super) fn invalid(document: &'static str, problem: impl fmt::Display) -> Error {
    Error::Document { document, problem: problem.to_string() }
}
