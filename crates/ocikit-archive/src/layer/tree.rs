use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use ocikit_spec::Digest;

use crate::error::{Error, Result};
use crate::layer::budget::{Budget, Reservation};
use crate::layer::entry::{Entry, FileKind, Kind, Metadata};
use crate::layer::path::{MAX_PATH_BYTES, Path};
use crate::layer::reader::Reader;
use crate::layer::resolve::{Last, Resolver};
use crate::layer::whiteout::Whiteout;

/// The paths of a layer after its last entry, and the paths that it hides in lower layers.
///
/// Memory is bounded by a [`Budget`](super::Budget). Contents are not kept, nor the names of owners, which engines ignore.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<Path, Node>,
    hidden: BTreeSet<Whiteout>,
    /// The last directory that was looked up, with its resolved path: consecutive entries often share it.
    recent: Option<(Path, Path)>,
    /// The total length in bytes of the names of directories without an entry.
    undescribed: usize,
    /// The nodes that later entries replaced or removed, if they are wanted.
    replaced: Option<Vec<Replaced>>,
    held: Reservation,
}

/// The maximum of that length: a single entry can create two thousand such directories, which no real image needs.
const MAX_UNDESCRIBED_BYTES: usize = 16 << 20;

/// A node at a path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file, which may have several names in the layer.
    File(Arc<File>),
    /// Another name of a file in a lower layer, by its path there.
    Link(Path),
}

/// A file in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its type.
    pub kind: FileKind,
    /// Its metadata.
    pub metadata: Metadata,
    /// The number of its entry in the layer, counted from 0 in the order of [`Reader::next_entry`]; `None` for a
    /// directory without an entry.
    pub entry: Option<u64>,
    /// The digest of its contents, if it was computed.
    pub digest: Option<Box<Digest>>,
}

impl File {
    pub(crate) fn undescribed() -> Arc<File> {
        let metadata = Metadata::of_a_directory();
        Arc::new(File { kind: FileKind::Directory, metadata, entry: None, digest: None })
    }

    /// Returns whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Returns its memory in addition to that of every file, in bytes.
    pub(crate) fn extra_bytes(&self) -> usize {
        let target = if let FileKind::Symlink { target } = &self.kind { target.len() } else { 0 };
        let digest = self.digest.as_ref().map_or(0, |_| size_of::<Digest>());
        target + digest + self.metadata.xattr_bytes()
    }
}

impl Tree {
    /// Reads a layer without the contents of its files.
    ///
    /// # Errors
    ///
    /// Those of the reader, [`Error::Layer`] for an entry with an invalid path, and [`Error::Limit`].
    pub fn read<R: Read>(reader: &mut Reader<R>) -> Result<Tree> {
        Tree::read_with(reader, |_, _, _| Ok(None))
    }

    /// Reads a layer. The function receives every entry with contents, its number, and the contents, and may return
    /// their digest.
    ///
    /// # Errors
    ///
    /// As [`Tree::read`], and those of the function.
    pub fn read_with<R: Read>(
        reader: &mut Reader<R>,
        mut look: impl FnMut(u64, &Entry, &mut Reader<R>) -> Result<Option<Digest>>,
    ) -> Result<Tree> {
        let mut tree = Tree { held: Reservation::of(reader.budget()), ..Tree::default() };
        let mut number = 0;
        while let Some(entry) = reader.next_entry()? {
            let has_bytes = matches!(entry.kind, Kind::File(FileKind::Regular { .. }));
            let digest = if has_bytes { look(number, &entry, reader)? } else { None };
            tree.add(number, entry, digest)?;
            number += 1;
        }
        Ok(tree)
    }

    /// Builds the tree of entries that are numbered by their positions.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] for an entry with an invalid path, and [`Error::Limit`].
    pub fn of_entries<'a>(entries: impl IntoIterator<Item = &'a Entry>, budget: &Budget) -> Result<Tree> {
        let mut tree = Tree { held: Reservation::of(budget), ..Tree::default() };
        for (number, entry) in (0..).zip(entries) {
            budget.entry()?;
            tree.add(number, entry.clone(), None)?;
        }
        Ok(tree)
    }

    /// Returns the node at a path.
    pub fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Returns all nodes ordered by path; directories come before their contents.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter()
    }

    /// Returns the whiteouts of the layer. Files that it replaces are not among them.
    pub fn hidden(&self) -> impl Iterator<Item = &Whiteout> {
        self.hidden.iter()
    }

    /// Returns whether no file of lower layers is visible at this path.
    pub fn hides(&self, path: &Path) -> bool {
        let is_in_the_way = |node: &Node| !node.is_directory();
        if self.nodes.get(path).is_some_and(is_in_the_way) || self.hidden.contains(&Whiteout::Path(path.clone())) {
            return true;
        }
        path.ancestors().any(|ancestor| {
            // Most layers have few whiteouts, so that nothing is allocated for each ancestor.
            let hidden = |make: fn(Path) -> Whiteout| self.hidden.contains(&make(Path::confined(ancestor)));
            self.nodes.get(ancestor).is_some_and(is_in_the_way)
                || (!self.hidden.is_empty() && (hidden(Whiteout::Path) || hidden(Whiteout::Contents)))
        })
    }

    /// Creates an empty tree that [records](Tree::take_replaced) the nodes that later entries replace.
    pub(crate) fn recording(budget: &Budget) -> Tree {
        Tree { held: Reservation::of(budget), replaced: Some(Vec::new()), ..Tree::default() }
    }

    /// Returns the nodes that were replaced or removed since the last call, directories before their contents.
    pub(crate) fn take_replaced(&mut self) -> Vec<Replaced> {
        self.replaced.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds an entry and returns its resolved path; that of a whiteout is the path that it hides.
    pub(crate) fn add(&mut self, number: u64, entry: Entry, digest: Option<Digest>) -> Result<Path> {
        if let Kind::Whiteout(whiteout) = &entry.kind {
            let place = match whiteout {
                Whiteout::Path(path) => self.place(path)?,
                Whiteout::Contents(path) => self.directory(path)?,
            };
            let bytes = place.as_bytes().len();
            if self.hidden.insert(whiteout.at(place.clone())) {
                self.held.take(bytes)?;
            }
            return Ok(place);
        }
        let path = self.place(&entry.path)?;
        match entry.kind {
            Kind::Whiteout(_) => {}
            Kind::File(kind) => {
                let metadata = Metadata { user: None, group: None, ..entry.metadata };
                let file = File { kind, metadata, entry: Some(number), digest: digest.map(Box::new) };
                self.put(path.clone(), Node::File(Arc::new(file)))?;
            }
            Kind::HardLink { target } => {
                let node = match self.find(&target)? {
                    Some((found, _)) if found == path => return Ok(path),
                    Some((found, Node::File(file))) if file.is_directory() => {
                        return Err(Error::layer(&found, "a directory has one name only"));
                    }
                    Some((_, node)) => node.clone(),
                    None if target == path => return Err(Error::layer(&path, "it is a link to itself")),
                    None => Node::Link(target),
                };
                self.put(path.clone(), node)?;
            }
        }
        Ok(path)
    }

    /// Returns the resolved path of an entry. Its directories are created or found, and symlinks in the path are
    /// followed.
    fn place(&mut self, path: &Path) -> Result<Path> {
        let Some(parent) = path.parent() else { return Ok(Path::root()) };
        let place = match &self.recent {
            Some((known, place)) if *known == parent => place.join(path.name()),
            _ => {
                let place = self.directory(&parent)?;
                let full = place.join(path.name());
                self.recent = Some((parent, place));
                full
            }
        };
        if place.as_bytes().len() > MAX_PATH_BYTES {
            return Err(Error::layer(path, "the path is too long"));
        }
        Ok(place)
    }

    fn directory(&mut self, path: &Path) -> Result<Path> {
        if self.leads_to(path)? == Lead::Directory {
            return Ok(path.clone());
        }
        if !self.nodes.contains_key(&Path::root()) {
            self.put(Path::root(), Node::File(File::undescribed()))?;
        }
        let mut resolver = Resolver::new(path.as_bytes(), Last::Follow);
        while let Some(asked) = resolver.question().cloned() {
            self.held.budget().lookup(asked.as_bytes().len())?;
            let kind = match self.nodes.get(&asked) {
                Some(Node::File(file)) if matches!(file.kind, FileKind::Directory | FileKind::Symlink { .. }) => {
                    file.kind.clone()
                }
                _ => {
                    self.undescribed += asked.as_bytes().len();
                    if self.undescribed > MAX_UNDESCRIBED_BYTES {
                        return Err(Error::layer(path, "too many directories without an entry"));
                    }
                    self.put(asked, Node::File(File::undescribed()))?;
                    FileKind::Directory
                }
            };
            resolver.answer(&kind)?;
        }
        Ok(resolver.path().clone())
    }

    /// Returns what the nearest node at or above a path is. All nodes are below directories, so an existing path need
    /// not be resolved from the root.
    fn leads_to(&self, path: &Path) -> Result<Lead> {
        let mut at = path.clone();
        loop {
            self.held.budget().lookup(at.as_bytes().len())?;
            match (self.nodes.get(&at), at.parent()) {
                (Some(Node::File(file)), _) if file.is_directory() && at == *path => return Ok(Lead::Directory),
                (Some(Node::File(file)), _) if matches!(file.kind, FileKind::Symlink { .. }) => return Ok(Lead::Walk),
                (Some(Node::File(file)), _) if file.is_directory() => return Ok(Lead::Nothing),
                (Some(_), _) => return Ok(Lead::Walk),
                (None, Some(parent)) => at = parent,
                (None, None) => return Ok(Lead::Nothing),
            }
        }
    }

    /// Returns the node of an earlier entry at a path, with symlinks before the last component followed.
    fn find(&self, path: &Path) -> Result<Option<(Path, &Node)>> {
        // Most hard links refer to an existing path without symlinks.
        if let Some(node) = self.nodes.get(path) {
            return Ok(Some((path.clone(), node)));
        }
        if self.leads_to(path)? == Lead::Nothing {
            return Ok(None);
        }
        let mut resolver = Resolver::new(path.as_bytes(), Last::Keep);
        while let Some(asked) = resolver.question() {
            self.held.budget().lookup(asked.as_bytes().len())?;
            match self.nodes.get(asked) {
                Some(Node::File(file)) => resolver.answer(&file.kind)?,
                Some(node @ Node::Link(_)) => return Ok((asked == path).then(|| (path.clone(), node))),
                None => return Ok(None),
            }
        }
        Ok(self.nodes.get(resolver.path()).map(|node| (resolver.path().clone(), node)))
    }

    fn put(&mut self, path: Path, node: Node) -> Result<()> {
        let goes_on = node.is_directory();
        if path.is_root() && !goes_on {
            return Err(Error::layer(&path, "the root is a directory"));
        }
        let known = self.nodes.get(&path);
        let before = known.map(Node::is_directory);
        if let (Some(node), Some(replaced)) = (known, &mut self.replaced)
            && !(goes_on && node.is_directory())
        {
            replaced.push(Replaced::of(&path, node));
        }
        if before.is_some_and(|before| before != goes_on) {
            // Paths that were resolved through this one may change.
            self.recent = None;
            if before == Some(true) {
                for (path, node) in self.nodes.extract_if(path.below(), |_, _| true) {
                    self.held.give_back(bytes_of(&path, &node));
                    self.replaced.iter_mut().for_each(|replaced| replaced.push(Replaced::of(&path, &node)));
                }
            }
        }
        self.held.take(bytes_of(&path, &node))?;
        let bytes = path.as_bytes().len();
        if let Some(before) = self.nodes.insert(path, node) {
            self.held.give_back(bytes + before.extra_bytes());
        }
        Ok(())
    }
}

/// A node that a later entry of the same layer replaced or removed.
#[derive(Debug, Clone)]
pub(crate) struct Replaced {
    pub(crate) path: Path,
    /// The number of its entry.
    pub(crate) entry: Option<u64>,
}

impl Replaced {
    fn of(path: &Path, node: &Node) -> Replaced {
        let entry = if let Node::File(file) = node { file.entry } else { None };
        Replaced { path: path.clone(), entry }
    }
}

/// What a path leads to in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// A directory.
    Directory,
    /// Nothing, and no symlink is in the path.
    Nothing,
    /// A symlink or a file is in the path: it has to be resolved from the root.
    Walk,
}

impl Node {
    /// Returns whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Node::File(file) if file.is_directory())
    }

    fn extra_bytes(&self) -> usize {
        match self {
            Node::File(file) => file.extra_bytes(),
            Node::Link(target) => target.as_bytes().len(),
        }
    }
}

fn bytes_of(path: &Path, node: &Node) -> usize {
    path.as_bytes().len() + node.extra_bytes()
}
