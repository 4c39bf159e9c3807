use crate::error::{Error, Result};
use crate::layer::merged::Located;
use crate::layer::path::Path;
use crate::layer::resolve::{Last, Resolver};
use crate::layer::tree::{Node, Tree};

/// Finds one file in layers that lie on one another, from the highest down, so that layers below it are not needed.
///
/// It finds what [`FileTree`](crate::layer::FileTree) would have, links followed. Of a directory it
/// knows that it is one; whatever lower layers say of it is not looked for.
#[derive(Debug)]
pub struct Lookup {
    /// How many layers there are.
    layers: usize,
    /// The trees of the highest of them, the highest first.
    trees: Vec<Tree>,
    resolver: Resolver,
}

/// What a lookup has come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It has to know what is in this layer, the lowest being 0.
    Need(usize),
    /// This is it.
    Found(Path, Located),
    /// No file has that path.
    Missing,
}

enum Answer {
    Here(Located),
    Missing,
    Unknown,
}

impl Lookup {
    /// Looks for a path in this many layers; a link that it ends with is followed.
    pub fn new(layers: usize, path: &[u8]) -> Lookup {
        Lookup { layers, trees: Vec::new(), resolver: Resolver::new(path, Last::Follow) }
    }

    /// Where the file is if there are no links that nobody knows of yet.
    pub fn expected(&self) -> Path {
        self.resolver.expected()
    }

    /// What is in the layer that was needed.
    pub fn give(&mut self, tree: Tree) {
        self.trees.push(tree);
    }

    /// Goes on as far as it can.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] where links lead on without end, or a path goes on behind a file.
    pub fn step(&mut self) -> Result<Step> {
        while let Some(asked) = self.resolver.question().cloned() {
            match self.at(&asked)? {
                Answer::Here(located) => self.resolver.answer(&located.file.kind)?,
                Answer::Missing => return Ok(Step::Missing),
                Answer::Unknown => return Ok(self.need()),
            }
        }
        let path = self.resolver.path().clone();
        // The last answer may have been a link to a place that was known before.
        Ok(match self.at(&path)? {
            Answer::Here(located) => Step::Found(path, located),
            Answer::Missing => Step::Missing,
            Answer::Unknown => self.need(),
        })
    }

    fn need(&self) -> Step {
        Step::Need(self.layers - self.trees.len() - 1)
    }

    fn at(&self, path: &Path) -> Result<Answer> {
        let mut path = path.clone();
        let mut name = None;
        for (depth, tree) in self.trees.iter().enumerate() {
            match tree.get(&path) {
                Some(Node::File(file)) if name.is_some() && file.is_directory() => {
                    return Err(refuse(name.as_ref(), "it is a hard link to a directory"));
                }
                Some(Node::File(file)) => {
                    return Ok(Answer::Here(Located { file: file.clone(), layer: self.layers - 1 - depth }));
                }
                Some(Node::Link(target)) => name = Some(std::mem::replace(&mut path, target.clone())),
                None if tree.hides(&path) => return missing(name.as_ref()),
                None => {}
            }
        }
        if self.trees.len() < self.layers { Ok(Answer::Unknown) } else { missing(name.as_ref()) }
    }
}

fn missing(link: Option<&Path>) -> Result<Answer> {
    match link {
        None => Ok(Answer::Missing),
        link => Err(refuse(link, "it is a hard link to a file that is not there")),
    }
}

fn refuse(link: Option<&Path>, problem: &'static str) -> Error {
    Error::Layer { path: link.map(ToString::to_string).unwrap_or_default(), problem }
}
