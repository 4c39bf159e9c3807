use std::collections::HashMap;

use serde_json::value::to_raw_value;

use super::base::{Edit, Item, change_map, item, list, no_item, parsed, raw, remove, repoint, set, set_or_remove};
use crate::document::Index;
use crate::error::Result;
use crate::json::Object;
use crate::{Descriptor, Digest, MediaType, Platform};

/// Changes to an index, which produce a new one. Entries are addressed by their position.
///
/// ```
/// use ocikit_spec::{Descriptor, Index, MediaType};
///
/// let entry = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
/// let index = Index::of(&[entry]).edit().set_platform(0, Some(&"linux/arm64".parse()?)).annotate("a", "b").finish()?;
/// assert_eq!(index.manifests()[0].platform, Some("linux/arm64".parse()?));
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct IndexEdit {
    edit: Edit,
    /// The entries, after the first change of one.
    entries: Option<Vec<Item>>,
    original: Index,
}

impl Index {
    /// Starts an edit.
    pub fn edit(&self) -> IndexEdit {
        IndexEdit { edit: Edit::begin("index", &self.text), entries: None, original: self.clone() }
    }
}

impl IndexEdit {
    /// Sets an annotation of the index.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut IndexEdit {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the index, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut IndexEdit {
        self.edit.remove_annotation(key);
        self
    }

    /// Replaces the subject, or adds one.
    pub fn set_subject(&mut self, subject: &Descriptor) -> &mut IndexEdit {
        self.edit.set_subject(subject);
        self
    }

    /// Changes digest and size of the subject; its other fields are kept. Has no effect on an index without a subject.
    pub fn repoint_subject(&mut self, digest: &Digest, size: u64) -> &mut IndexEdit {
        self.edit.repoint_subject(digest, size);
        self
    }

    /// Removes the subject, if there is one.
    pub fn remove_subject(&mut self) -> &mut IndexEdit {
        self.edit.set_text("subject", None);
        self
    }

    /// Sets the media type that the index states.
    pub fn set_media_type(&mut self, media_type: &MediaType) -> &mut IndexEdit {
        self.edit.set_text("mediaType", Some(media_type.as_str()));
        self
    }

    /// Sets the artifact type of the index as a whole, or removes it.
    pub fn set_artifact_type(&mut self, artifact_type: Option<&MediaType>) -> &mut IndexEdit {
        self.edit.set_text("artifactType", artifact_type.map(MediaType::as_str));
        self
    }

    /// Changes digest and size of an entry; its other fields are kept, except for contents that it embeds.
    pub fn repoint(&mut self, position: usize, digest: &Digest, size: u64) -> &mut IndexEdit {
        self.change_entry(position, |entry| {
            repoint(entry, digest, size);
            Ok(())
        })
    }

    /// Sets the platform of an entry, or removes it. Unknown fields of the platform are kept.
    pub fn set_platform(&mut self, position: usize, platform: Option<&Platform>) -> &mut IndexEdit {
        self.change_entry(position, |entry| {
            let Some(platform) = platform else {
                remove(entry, "platform");
                return Ok(());
            };
            let present = entry.raw("platform").filter(|value| *value != "null");
            let mut object = Object::parse(present.unwrap_or("{}"))?;
            if super::config::set_platform(&mut object, platform)? {
                entry.set("platform", object.to_raw()?);
            }
            Ok(())
        })
    }

    /// Sets the media type of an entry.
    pub fn set_entry_media_type(&mut self, position: usize, media_type: &MediaType) -> &mut IndexEdit {
        self.change_entry(position, |entry| set(entry, "mediaType", media_type).map(drop))
    }

    /// Sets the artifact type of an entry, or removes it.
    pub fn set_entry_artifact_type(&mut self, position: usize, artifact_type: Option<&MediaType>) -> &mut IndexEdit {
        self.change_entry(position, |entry| set_or_remove(entry, "artifactType", artifact_type).map(drop))
    }

    /// Sets an annotation of an entry.
    pub fn annotate_entry(&mut self, position: usize, key: &str, value: &str) -> &mut IndexEdit {
        self.change_entry(position, |entry| {
            change_map(entry, "annotations", |annotations| annotations.set(key, raw(value))).map(drop)
        })
    }

    /// Removes an annotation of an entry, if it exists.
    pub fn remove_entry_annotation(&mut self, position: usize, key: &str) -> &mut IndexEdit {
        self.change_entry(position, |entry| {
            change_map(entry, "annotations", |annotations| annotations.remove(key)).map(drop)
        })
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, descriptor: &Descriptor) -> &mut IndexEdit {
        let value = raw(descriptor);
        self.change_list(|list| {
            list.push(value);
            Ok(())
        })
    }

    /// Inserts an entry, so that it has this position. [`finish`](IndexEdit::finish) fails if there are fewer entries.
    pub fn insert(&mut self, position: usize, descriptor: &Descriptor) -> &mut IndexEdit {
        let value = raw(descriptor);
        self.change_list(|list| match position <= list.len() {
            true => {
                list.insert(position, value);
                Ok(())
            }
            false => Err(no_item("entry", position)),
        })
    }

    /// Removes an entry; the positions of those after it decrease by one. Has no effect if there is no such entry.
    pub fn remove(&mut self, position: usize) -> &mut IndexEdit {
        self.change_list(|list| {
            if position < list.len() {
                list.remove(position);
            }
            Ok(())
        })
    }

    /// Replaces the list of entries. Entries of the original that are also in the new list keep their text.
    pub fn set_entries(&mut self, entries: &[Descriptor]) -> &mut IndexEdit {
        let old = self.original.manifests().to_vec();
        if old == entries {
            return self;
        }
        self.change_list(|list| {
            let mut texts: Vec<_> = list.drain(..).map(Some).collect();
            let mut used = 0;
            for entry in entries {
                // Mostly in the same order, so the search starts behind the last one that was found.
                let found = (used..old.len())
                    .chain(0..used)
                    .find(|at| old[*at] == *entry && texts.get(*at).is_some_and(Option::is_some));
                let text = found.and_then(|at| texts.get_mut(at)?.take());
                used = found.map_or(used, |at| at + 1);
                list.push(text.unwrap_or_else(|| raw(entry)));
            }
            Ok(())
        })
    }

    /// Adds to the entries the fields that another index has for the same digest and platform, and that they lack. These
    /// are the unknown ones, of the entry and of its platform, if the entries were copied from there.
    pub fn add_fields_of(&mut self, other: &Index) -> &mut IndexEdit {
        let texts = Object::parse(other.text.as_str()).and_then(|object| list(&object, "manifests"));
        self.change_list(|entries| {
            let texts = texts?;
            let mut known: HashMap<Digest, Vec<usize>> = HashMap::new();
            for (at, entry) in other.manifests().iter().enumerate() {
                known.entry(entry.digest).or_default().push(at);
            }
            for entry in entries {
                let new: Descriptor = parsed(entry)?;
                let is_same = |at: &&usize| other.manifests()[**at].platform == new.platform;
                let Some(at) = known.get(&new.digest).into_iter().flatten().find(is_same) else { continue };
                let (mut object, from) = (Object::parse(entry.get())?, Object::parse(texts[*at].get())?);
                let mut changed = object.add_missing(&from);
                if let (Some(platform), Some(from)) = (object.raw("platform"), from.raw("platform"))
                    && new.platform.is_some()
                {
                    let mut platform = Object::parse(platform)?;
                    if platform.add_missing(&Object::parse(from)?) {
                        changed |= object.set("platform", platform.to_raw()?);
                    }
                }
                if changed {
                    *entry = object.to_raw()?;
                }
            }
            Ok(())
        })
    }

    /// Returns the index with the changes; the same bytes if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if annotations of the original are not an object of strings, if a
    /// position does not exist, and if the result is not an index.
    pub fn finish(&self) -> Result<Index> {
        let mut edit = self.edit.clone();
        if let Some(entries) = &self.entries {
            edit.change(|object| Ok(object.set("manifests", to_raw_value(entries)?)));
        }
        match edit.finish()? {
            Some(text) => Index::parse(text),
            None => Ok(self.original.clone()),
        }
    }

    fn change_entry(
        &mut self,
        position: usize,
        change: impl FnOnce(&mut Object) -> serde_json::Result<()>,
    ) -> &mut IndexEdit {
        self.change_list(|list| {
            let entry = item(list, "entry", position)?;
            let mut object = Object::parse(entry.get())?;
            change(&mut object)?;
            *entry = object.to_raw()?;
            Ok(())
        })
    }

    fn change_list(&mut self, change: impl FnOnce(&mut Vec<Item>) -> serde_json::Result<()>) -> &mut IndexEdit {
        let Ok(object) = &self.edit.object else { return self };
        let changed = match &mut self.entries {
            Some(entries) => change(entries),
            None => list(object, "manifests").and_then(|mut entries| {
                change(&mut entries)?;
                self.entries = Some(entries);
                Ok(())
            }),
        };
        if let Err(error) = changed {
            self.edit.change(|_| Err(error));
        }
        self
    }
}
