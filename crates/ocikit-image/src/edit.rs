use std::sync::Arc;

use bytes::Bytes;
use ocikit_spec::{Descriptor, Digest};

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::root::{Image, Index, Root};
use crate::source::Source;

/// Changes to an image, which produce a new one. The original and its source are unchanged.
#[derive(Debug)]
pub struct ImageEdit {
    image: Image,
    edit: ocikit_spec::ManifestEdit,
}

impl Image {
    /// Starts an edit.
    pub fn edit(&self) -> ImageEdit {
        ImageEdit { image: self.clone(), edit: self.manifest.edit() }
    }
}

impl ImageEdit {
    /// Sets an annotation of the manifest.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut ImageEdit {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the manifest, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut ImageEdit {
        self.edit.remove_annotation(key);
        self
    }

    /// Changes the subject to another manifest, for referrers of an image that was edited.
    pub fn repoint_subject(&mut self, digest: &Digest, size: u64) -> &mut ImageEdit {
        self.edit.repoint_subject(digest, size);
        self
    }

    /// Returns the image with the changes; the same image if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the annotations of the original are not an object of strings.
    pub fn finish(&self) -> Result<Image> {
        let manifest =
            self.edit.finish().map_err(|source| unusable(&self.image.descriptor, &self.image.source, source))?;
        let (descriptor, source) = replaced(&self.image.descriptor, manifest.bytes(), &self.image.source, []);
        Ok(Image { descriptor, manifest, source })
    }
}

/// Changes to an index, which produce a new one. Entries are addressed by their position.
#[derive(Debug)]
pub struct IndexEdit {
    index: Index,
    edit: ocikit_spec::IndexEdit,
    added: Vec<Arc<dyn Source>>,
}

impl Index {
    /// Starts an edit.
    pub fn edit(&self) -> IndexEdit {
        IndexEdit { index: self.clone(), edit: self.document.edit(), added: Vec::new() }
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

    /// Sets an annotation of an entry. Annotations of the manifest that it points to are separate.
    pub fn annotate_entry(&mut self, position: usize, key: &str, value: &str) -> &mut IndexEdit {
        self.edit.annotate_entry(position, key, value);
        self
    }

    /// Removes an annotation of an entry, if it exists.
    pub fn remove_entry_annotation(&mut self, position: usize, key: &str) -> &mut IndexEdit {
        self.edit.remove_entry_annotation(position, key);
        self
    }

    /// Points an entry to another root. Its other fields, such as the platform, are kept.
    pub fn replace(&mut self, position: usize, root: &Root) -> &mut IndexEdit {
        let descriptor = root.descriptor();
        self.edit.repoint(position, &descriptor.digest, descriptor.size);
        self.added.push(root.source().clone());
        self
    }

    /// Removes an entry; the positions of those after it decrease by one.
    pub fn remove(&mut self, position: usize) -> &mut IndexEdit {
        self.edit.remove(position);
        self
    }

    /// Returns the index with the changes; the same index if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if annotations of the original are not an object of strings.
    pub fn finish(&self) -> Result<Index> {
        let document =
            self.edit.finish().map_err(|source| unusable(&self.index.descriptor, &self.index.source, source))?;
        let (descriptor, source) =
            replaced(&self.index.descriptor, document.bytes(), &self.index.source, self.added.iter().cloned());
        Ok(Index { descriptor, document, source })
    }
}

fn unusable(descriptor: &Descriptor, place: &Arc<dyn Source>, source: ocikit_spec::Error) -> Error {
    Error::document(&descriptor.digest, place, source)
}

/// Returns the descriptor of the new bytes, and a source that adds them to the original one.
fn replaced(
    old: &Descriptor,
    bytes: &Bytes,
    base: &Arc<dyn Source>,
    added: impl IntoIterator<Item = Arc<dyn Source>>,
) -> (Descriptor, Arc<dyn Source>) {
    let digest = Digest::of(old.digest.algorithm(), bytes);
    if digest == old.digest {
        return (old.clone(), base.clone());
    }
    let descriptor = Descriptor { digest, size: bytes.len() as u64, data: None, ..old.clone() };
    let memory = Memory::over(base.clone()).with_document(digest, bytes.clone());
    (descriptor, Arc::new(added.into_iter().fold(memory, Memory::with_source)))
}
