use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::layer::budget::{Budget, Reservation};
use crate::layer::path::Path;
use crate::layer::resolve::{Last, Resolver};
use crate::layer::tree::{File, Node, Tree};
use crate::layer::whiteout::Whiteout;

/// The file system of a container: the trees of its layers, applied in order.
#[derive(Debug, Clone)]
pub struct FileTree {
    files: BTreeMap<Path, Located>,
    layers: usize,
    /// The size of paths and other variable data in bytes.
    bytes: u64,
    held: Reservation,
}

/// A file, and the layer that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Located {
    /// The file, shared by all its names.
    pub file: Arc<File>,
    /// The layer of its contents and metadata, the lowest being 0.
    pub layer: usize,
}

impl FileTree {
    /// Creates a tree without any layers, which is empty and has no root.
    pub fn new() -> FileTree {
        FileTree::with_budget(&Budget::new())
    }

    /// Creates an empty tree within the budget of an operation.
    pub fn with_budget(budget: &Budget) -> FileTree {
        FileTree { files: BTreeMap::new(), layers: 0, bytes: 0, held: Reservation::of(budget) }
    }

    /// Counts the memory of the files against the budget. Files are shared with the [`Tree`]s that they come from, so
    /// this is called after the last applied tree was dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if they take more than [`MAX_TREE_BYTES`](crate::layer::MAX_TREE_BYTES).
    pub fn settle(&mut self) -> Result<()> {
        self.held.set(self.files.len(), self.bytes)
    }

    /// Applies another layer on top.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] for a hard link to a file that does not exist.
    pub fn apply(&mut self, tree: &Tree) -> Result<()> {
        let layer = self.layers;
        self.layers += 1;
        // Hard links refer to files of lower layers, so they are looked up before anything changes.
        let linked = tree.iter().filter_map(|(path, node)| match node {
            Node::Link(target) => Some(self.linked(path, target)),
            Node::File(_) => None,
        });
        let linked: Vec<_> = linked.collect::<Result<_>>()?;
        for whiteout in tree.hidden() {
            match whiteout {
                Whiteout::Path(path) => self.remove(path),
                Whiteout::Contents(path) => self.empty(path),
            }
        }
        let mut linked = linked.into_iter();
        for (path, node) in tree.iter() {
            let located = match node {
                Node::File(file) => Some(Located { file: file.clone(), layer }),
                Node::Link(_) => linked.next(),
            };
            if let Some(located) = located {
                self.put(path, located);
            }
        }
        Ok(())
    }

    fn linked(&self, path: &Path, target: &Path) -> Result<Located> {
        match self.files.get(target) {
            Some(located) if located.file.is_directory() => Err(Error::layer(path, "it is a hard link to a directory")),
            Some(located) => Ok(located.clone()),
            None => Err(Error::layer(path, "it is a hard link to a missing file")),
        }
    }

    fn put(&mut self, path: &Path, located: Located) {
        if let Some(before) = self.files.get(path).map(|before| before.file.is_directory()) {
            let undescribed = located.file.is_directory() && located.file.entry.is_none();
            if before && undescribed {
                return;
            }
            if before && !located.file.is_directory() {
                self.empty(path);
            }
        }
        self.bytes += bytes_of(path, &located);
        if let Some(before) = self.files.insert(path.clone(), located) {
            self.bytes -= bytes_of(path, &before);
        }
    }

    fn remove(&mut self, path: &Path) {
        if let Some(removed) = self.files.remove(path) {
            self.bytes -= bytes_of(path, &removed);
            self.empty(path);
        }
    }

    fn empty(&mut self, path: &Path) {
        for (path, removed) in self.files.extract_if(path.below(), |_, _| true) {
            self.bytes -= bytes_of(&path, &removed);
        }
    }

    /// Returns the file at a path; links are not followed.
    pub fn get(&self, path: &Path) -> Option<&Located> {
        self.files.get(path)
    }

    /// Returns all files ordered by path, starting with the root; directories come before their contents.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Located)> {
        self.files.iter()
    }

    /// Returns the files at a path and below it.
    pub fn within(&self, path: &Path) -> impl Iterator<Item = (&Path, &Located)> {
        self.files.get_key_value(path).into_iter().chain(self.files.range(path.below()))
    }

    /// Resolves a path through symlinks inside the root; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] if there are too many symlinks, or a path continues after a file.
    pub fn resolve(&self, path: &[u8], last: Last) -> Result<Option<Path>> {
        let mut resolver = Resolver::new(path, last);
        while let Some(asked) = resolver.question() {
            match self.files.get(asked) {
                Some(located) => resolver.answer(&located.file.kind)?,
                None => return Ok(None),
            }
        }
        Ok(Some(resolver.path().clone()))
    }

    /// Returns the number of paths.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns whether the tree is empty.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn bytes_of(path: &Path, located: &Located) -> u64 {
    (path.as_bytes().len() + located.file.extra_bytes()) as u64
}

impl Default for FileTree {
    fn default() -> FileTree {
        FileTree::new()
    }
}
