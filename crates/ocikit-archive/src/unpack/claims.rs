//! What the layers that were read so far decide about paths in the layers below them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::layer::{Budget, File, Node, Path, Reservation, Tree, Whiteout};

/// The files of the highest layers, with the paths that they hide. Layers are added from the highest to the lowest, which gives
/// the same result as [`FileTree`](crate::layer::FileTree), and no file of a lower layer is written to be replaced later.
#[derive(Debug)]
pub(super) struct Claims {
    claims: BTreeMap<Path, Claim>,
    /// Names of files that are in a layer that was not read yet.
    pending: Vec<Pending>,
    bytes: u64,
    held: Reservation,
}

/// The maximum number of directories whose visibility is kept. Finding it takes time in the square of the length of the path.
const MAX_KNOWN_DIRECTORIES: usize = 256;

/// Recent directories, and whether their contents are visible.
#[derive(Debug, Default)]
pub(super) struct Shown(HashMap<Path, bool>);

impl Shown {
    /// Returns whether the directory of a path shows its contents.
    pub(super) fn has(&mut self, path: &Path, claims: &Claims) -> bool {
        let directory = path.parent().unwrap_or_default();
        if let Some(shown) = self.0.get(&directory) {
            return *shown;
        }
        if self.0.len() >= MAX_KNOWN_DIRECTORIES {
            self.0.clear();
        }
        let shown = claims.shows_contents(&directory);
        self.0.insert(directory, shown);
        shown
    }
}

/// The state of a path.
#[derive(Debug, Clone)]
pub(super) enum Claim {
    /// A directory.
    Directory {
        file: Arc<File>,
        /// Whether contents in lower layers are hidden.
        opaque: bool,
        /// Whether metadata in lower layers is ignored.
        settled: bool,
    },
    /// Any other file; `layer` counts from the highest, which is 0.
    File { file: Arc<File>, layer: usize },
    /// A name of a file in a layer that was not read yet.
    Link,
    /// Nothing: a whiteout hides it.
    Hidden,
}

/// A hard link to a file of a lower layer.
#[derive(Debug)]
struct Pending {
    path: Path,
    /// The path of the file, as the next layer has it.
    target: Path,
    /// Whether the link is part of the result.
    visible: bool,
}

/// A name of a file that is part of the result, and was not in the layer of the file.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) path: Path,
    pub(super) file: Arc<File>,
}

impl Claims {
    pub(super) fn new(budget: &Budget) -> Claims {
        Claims { claims: BTreeMap::new(), pending: Vec::new(), bytes: 0, held: Reservation::of(budget) }
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Claim> {
        self.claims.get(path)
    }

    /// Returns the decided paths, directories before their contents.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Path, &Claim)> {
        self.claims.iter()
    }

    /// Returns whether contents of this directory in a lower layer are visible.
    pub(super) fn shows_contents(&self, directory: &Path) -> bool {
        let shows = |path: &[u8]| match self.claims.get(path) {
            None | Some(Claim::Directory { opaque: false, .. }) => true,
            Some(Claim::Directory { .. } | Claim::File { .. } | Claim::Link | Claim::Hidden) => false,
        };
        shows(directory.as_bytes()) && directory.ancestors().all(shows)
    }

    /// Adds a complete layer below the others. Returns the further names that files of this layer have in the layers above.
    pub(super) fn add(&mut self, layer: usize, tree: &Tree) -> Result<Vec<Resolved>> {
        let resolved = self.resolve(tree)?;
        let mut shown = Shown::default();
        for (path, node) in tree.iter() {
            let claimed = (path.is_root() || shown.has(path, self)) && self.put(layer, path, node);
            if let Node::Link(target) = node {
                self.pending.push(Pending { path: path.clone(), target: target.clone(), visible: claimed });
            }
        }
        for whiteout in tree.hidden() {
            self.hide(whiteout);
        }
        self.held.set(self.claims.len() + self.pending.len(), self.bytes)?;
        for Resolved { path, file } in &resolved {
            self.claims.insert(path.clone(), Claim::File { file: file.clone(), layer });
        }
        Ok(resolved)
    }

    /// Puts a node of the layer at a path that it hides from nothing above. Returns whether it is part of the result.
    fn put(&mut self, layer: usize, path: &Path, node: &Node) -> bool {
        let new = match node {
            Node::File(file) if file.is_directory() => {
                Claim::Directory { file: file.clone(), opaque: false, settled: false }
            }
            Node::File(file) => Claim::File { file: file.clone(), layer },
            Node::Link(_) => Claim::Link,
        };
        let Some(before) = self.claims.get_mut(path) else {
            let extra = if let Node::File(file) = node { file.extra_bytes() } else { 0 };
            self.bytes += (path.as_bytes().len() + extra) as u64;
            self.claims.insert(path.clone(), new);
            return true;
        };
        if let Claim::Directory { file, opaque, settled } = before {
            match new {
                Claim::Directory { file: lower, .. } => {
                    // A directory that no entry describes keeps that of the lower layer.
                    if file.entry.is_none() && !*settled && lower.entry.is_some() {
                        *file = lower;
                    }
                }
                // The directory replaced this file, and so everything that the file replaced.
                Claim::File { .. } | Claim::Link | Claim::Hidden => (*opaque, *settled) = (true, true),
            }
        }
        false
    }

    fn hide(&mut self, whiteout: &Whiteout) {
        let path = whiteout.path();
        match (self.claims.get_mut(path), whiteout) {
            (Some(Claim::Directory { opaque, settled, .. }), Whiteout::Path(_)) => (*opaque, *settled) = (true, true),
            (Some(Claim::Directory { opaque, .. }), Whiteout::Contents(_)) => *opaque = true,
            (Some(Claim::File { .. } | Claim::Link | Claim::Hidden), _) | (None, Whiteout::Contents(_)) => {}
            (None, Whiteout::Path(_)) => {
                if self.shows_contents(&path.parent().unwrap_or_default()) {
                    self.bytes += path.as_bytes().len() as u64;
                    self.claims.insert(path.clone(), Claim::Hidden);
                }
            }
        }
    }

    /// Finds the files of pending links in the next layer, by the rules of [`Lookup`](crate::layer::Lookup).
    fn resolve(&mut self, tree: &Tree) -> Result<Vec<Resolved>> {
        let mut resolved = Vec::new();
        let mut still = Vec::new();
        for mut link in self.pending.drain(..) {
            match tree.get(&link.target) {
                Some(Node::File(file)) if file.is_directory() => {
                    return Err(Error::layer(&link.path, "it is a hard link to a directory"));
                }
                Some(Node::File(file)) if link.visible => {
                    resolved.push(Resolved { path: link.path, file: file.clone() });
                }
                Some(Node::File(_)) => {}
                Some(Node::Link(target)) => {
                    link.target = target.clone();
                    still.push(link);
                }
                None if tree.hides(&link.target) => return Err(missing(&link.path)),
                None => still.push(link),
            }
        }
        self.pending = still;
        Ok(resolved)
    }

    /// Checks that every link has a file, after the lowest layer.
    pub(super) fn finish(&self) -> Result<()> {
        self.pending.first().map_or(Ok(()), |link| Err(missing(&link.path)))
    }
}

fn missing(path: &Path) -> Error {
    Error::layer(path, "it is a hard link to a missing file")
}
