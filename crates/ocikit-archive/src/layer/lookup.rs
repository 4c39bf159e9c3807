use crate::error::{Error, Result};
use crate::layer::merged::Located;
use crate::layer::path::Path;
use crate::layer::resolve::{Last, Resolver};
use crate::layer::tree::{Node, Tree};

/// Finds one file in stacked layers, from the highest down, so that layers below it need not be read.
///
/// The result is the same as in a [`FileTree`](crate::layer::FileTree), with links followed. For a directory, metadata
/// from lower layers is not searched.
#[derive(Debug)]
pub struct Lookup {
    /// The number of layers.
    layers: usize,
    /// The trees of the highest layers, the highest first.
    trees: Vec<Tree>,
    resolver: Resolver,
}

/// The state of a lookup.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It needs the tree of this layer, the lowest being 0.
    Need(usize),
    /// The file was found.
    Found(Path, Located),
    /// No file has this path.
    Missing,
}

enum Presence {
    Here(Located),
    Missing,
    Unknown,
}

impl Lookup {
    /// Creates a lookup of a path in this many layers. A symlink at the end of the path is followed.
    pub fn new(layers: usize, path: &[u8]) -> Lookup {
        Lookup { layers, trees: Vec::new(), resolver: Resolver::new(path, Last::Follow) }
    }

    /// Returns the path of the file if no unread layer has a symlink in it.
    pub fn expected(&self) -> Path {
        self.resolver.expected()
    }

    /// Adds the tree of the layer that was needed.
    pub fn give(&mut self, tree: Tree) {
        self.trees.push(tree);
    }

    /// Continues as far as possible.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] if there are too many symlinks, or a path continues after a file.
    pub fn step(&mut self) -> Result<Step> {
        while let Some(asked) = self.resolver.question().cloned() {
            match self.at(&asked)? {
                Presence::Here(located) => self.resolver.answer(&located.file.kind)?,
                Presence::Missing => return Ok(Step::Missing),
                Presence::Unknown => return Ok(self.need()),
            }
        }
        let path = self.resolver.path().clone();
        // The last answer may have been a symlink to a path that is already known.
        Ok(match self.at(&path)? {
            Presence::Here(located) => Step::Found(path, located),
            Presence::Missing => Step::Missing,
            Presence::Unknown => self.need(),
        })
    }

    fn need(&self) -> Step {
        Step::Need(self.layers - self.trees.len() - 1)
    }

    fn at(&self, path: &Path) -> Result<Presence> {
        let mut path = path.clone();
        let mut name = None;
        for (depth, tree) in self.trees.iter().enumerate() {
            match tree.get(&path) {
                Some(Node::File(file)) if name.is_some() && file.is_directory() => {
                    return Err(refuse(name.as_ref(), "it is a hard link to a directory"));
                }
                Some(Node::File(file)) => {
                    return Ok(Presence::Here(Located { file: file.clone(), layer: self.layers - 1 - depth }));
                }
                Some(Node::Link(target)) => name = Some(std::mem::replace(&mut path, target.clone())),
                None if tree.hides(&path) => return missing(name.as_ref()),
                None => {}
            }
        }
        if self.trees.len() < self.layers { Ok(Presence::Unknown) } else { missing(name.as_ref()) }
    }
}

fn missing(link: Option<&Path>) -> Result<Presence> {
    match link {
        None => Ok(Presence::Missing),
        link => Err(refuse(link, "it is a hard link to a missing file")),
    }
}

fn refuse(link: Option<&Path>, problem: &'static str) -> Error {
    Error::Layer { path: link.map(ToString::to_string).unwrap_or_default(), problem }
}
