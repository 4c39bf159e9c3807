//! What the edits of all documents share.

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::value::{RawValue, to_raw_value};

use crate::document::text::{Text, invalid};
use crate::error::Result;
use crate::json::{self, Layout, Object};
use crate::{Annotations, Descriptor, Digest};

/// The common part of all edits. The first error is stored and returned at the end, so that calls can be chained.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) document: &'static str,
    pub(super) object: Result<Object>,
    original: Text,
    changed: bool,
}

/// A value of a list, with its exact text.
pub(super) type Item = Box<RawValue>;

impl Edit {
    pub(super) fn begin(document: &'static str, text: &Text) -> Edit {
        Edit {
            document,
            object: Object::parse(text.as_str()).map_err(|error| invalid(document, error)),
            original: text.clone(),
            changed: false,
        }
    }

    pub(super) fn annotate(&mut self, key: &str, value: &str) {
        self.change(|object| change_map(object, "annotations", |annotations| annotations.set(key, raw(value))));
    }

    pub(super) fn remove_annotation(&mut self, key: &str) {
        self.change(|object| change_map(object, "annotations", |annotations| annotations.remove(key)));
    }

    pub(super) fn set_subject(&mut self, subject: &Descriptor) {
        self.change(|object| set(object, "subject", subject));
    }

    pub(super) fn repoint_subject(&mut self, digest: &Digest, size: u64) {
        self.change(|object| {
            let Some(mut subject) = object.get::<Option<Object>>("subject")? else { return Ok(false) };
            Ok(repoint(&mut subject, digest, size) && object.set("subject", subject.to_raw()?))
        });
    }

    /// Sets a key to a text, or removes it.
    pub(super) fn set_text(&mut self, key: &str, value: Option<&str>) {
        self.change(|object| set_or_remove(object, key, value));
    }

    /// Changes a list, which is created if it does not exist.
    pub(super) fn change_list(
        &mut self,
        key: &'static str,
        change: impl FnOnce(&mut Vec<Item>) -> serde_json::Result<()>,
    ) {
        self.change(|object| {
            let mut list = list(object, key)?;
            change(&mut list)?;
            Ok(object.set(key, to_raw_value(&list)?))
        });
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Object) -> serde_json::Result<bool>) {
        if let Ok(object) = &mut self.object {
            match change(object) {
                Ok(changed) => self.changed |= changed,
                Err(error) => self.object = Err(invalid(self.document, error)),
            }
        }
    }

    /// Returns the new text, laid out like the original; `None` if it is unchanged, also by changes that cancel out.
    pub(super) fn finish(&self) -> Result<Option<String>> {
        let object = self.object.as_ref().map_err(Clone::clone)?;
        if !self.changed {
            return Ok(None);
        }
        let text = object.to_raw().map_err(|error| invalid(self.document, error))?;
        let original = self.original.as_str();
        if json::lay_out(text.get(), Layout::Compact) == json::lay_out(original, Layout::Compact) {
            return Ok(None);
        }
        let end = &original[original.trim_end().len()..];
        Ok(Some(json::lay_out(text.get(), Layout::of(original)) + end))
    }
}

/// Changes a map of strings; the key is removed with the last of them.
pub(super) fn change_map(
    holder: &mut Object,
    key: &str,
    change: impl FnOnce(&mut Object) -> bool,
) -> serde_json::Result<bool> {
    let present = holder.raw(key).filter(|value| *value != "null");
    let mut map = Object::parse(present.unwrap_or("{}"))?;
    // Setting a key to its value is no change, even if it was written with other escapes.
    let before: Annotations = holder.get(key)?;
    let touched = change(&mut map);
    let text = map.to_raw()?;
    let after: Annotations = serde_json::from_str(text.get())?;
    if !touched || before == after {
        return Ok(false);
    }
    Ok(if map.is_empty() { holder.remove(key) } else { holder.set(key, text) })
}

/// Changes digest and size of a descriptor. The embedded contents and the URLs of the old digest are removed.
pub(super) fn repoint(descriptor: &mut Object, digest: &Digest, size: u64) -> bool {
    let changed = descriptor.set("digest", raw(digest)) | descriptor.set("size", raw(&size));
    if changed {
        descriptor.remove("data");
        descriptor.remove("urls");
    }
    changed
}

/// Sets a key. Setting it to its value is no change, even if it was written in another way.
pub(super) fn set<T: Serialize + ?Sized>(holder: &mut Object, key: &str, value: &T) -> serde_json::Result<bool> {
    let value = serde_json::to_value(value)?;
    if holder.raw(key).is_some() && holder.get::<serde_json::Value>(key)? == value {
        return Ok(false);
    }
    Ok(holder.set(key, raw(&value)))
}

/// Removes a key. A `null` is kept: it is no value for any reader.
pub(super) fn remove(holder: &mut Object, key: &str) -> bool {
    holder.raw(key).is_some_and(|value| value != "null") && holder.remove(key)
}

/// Sets a key, or removes it if there is no value. Returns whether that is a change.
pub(super) fn set_or_remove<T: Serialize + ?Sized>(
    holder: &mut Object,
    key: &str,
    value: Option<&T>,
) -> serde_json::Result<bool> {
    match value {
        Some(value) => set(holder, key, value),
        None => Ok(remove(holder, key)),
    }
}

/// Returns a list; a missing one is empty.
pub(super) fn list(holder: &Object, key: &str) -> serde_json::Result<Vec<Item>> {
    Ok(holder.get::<Option<_>>(key)?.unwrap_or_default())
}

/// Returns the value of an item.
pub(super) fn parsed<T: DeserializeOwned>(item: &Item) -> serde_json::Result<T> {
    serde_json::from_str(item.get())
}

/// Returns the error for a position that a list does not have.
pub(super) fn no_item(what: &str, position: usize) -> serde_json::Error {
    serde_json::Error::custom(format_args!("it has no {what} at position {position}"))
}

/// Returns the item at a position.
pub(super) fn item<'a>(list: &'a mut [Item], what: &str, position: usize) -> serde_json::Result<&'a mut Item> {
    list.get_mut(position).ok_or_else(|| no_item(what, position))
}

pub(super) fn raw(value: &(impl Serialize + ?Sized)) -> Item {
    to_raw_value(value).expect("strings, numbers and descriptors cannot fail to serialize")
}
