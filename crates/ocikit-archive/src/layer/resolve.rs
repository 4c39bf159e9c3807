use crate::error::{Error, Result};
use crate::layer::entry::FileKind;
use crate::layer::path::{LONGEST, Path};

/// Follows a path through symbolic links, inside the root, wherever the files are: it asks what is at a path and is told.
///
/// ```
/// use ocikit_archive::layer::{FileKind, Last, Resolver};
///
/// let mut resolver = Resolver::new(b"/bin/sh", Last::Follow);
/// assert_eq!(resolver.question().unwrap().to_string(), "bin");
/// resolver.answer(&FileKind::Symlink { target: b"usr/bin"[..].into() })?;
/// assert_eq!(resolver.question().unwrap().to_string(), "usr");
/// # Ok::<(), ocikit_archive::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Where it has come; never a link that is to be followed.
    at: Path,
    /// What is still to be walked, the next part last.
    rest: Vec<Box<[u8]>>,
    asked: Option<Path>,
    last: Last,
    links: usize,
}

/// What becomes of a link that a path ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is followed, as for reading a file.
    Follow,
    /// It is what was meant, as for listing it.
    Keep,
}

/// How many links Linux follows.
const MOST_LINKS: usize = 40;

impl Resolver {
    /// Begins at the root.
    pub fn new(path: &[u8], last: Last) -> Resolver {
        let mut resolver = Resolver { at: Path::root(), rest: Vec::new(), asked: None, last, links: 0 };
        resolver.push(path);
        resolver
    }

    fn push(&mut self, path: &[u8]) {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        self.rest.extend(parts.rev().map(Into::into));
    }

    /// What has to be known next; `None` when the path is [resolved](Resolver::path).
    pub fn question(&mut self) -> Option<&Path> {
        while self.asked.is_none() {
            match &*self.rest.pop()? {
                b".." => self.at = self.at.parent().unwrap_or_default(),
                part => self.asked = Some(self.at.join(part)),
            }
        }
        self.asked.as_ref()
    }

    /// What is at the path that was asked for. If there is nothing there is no more to ask.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] where links lead on without end, or a path goes on behind a file.
    pub fn answer(&mut self, kind: &FileKind) -> Result<()> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let refuse = |problem| Err(Error::Layer { path: asked.to_string(), problem });
        if asked.as_bytes().len() > LONGEST {
            return refuse("the path is too long");
        }
        match kind {
            FileKind::Symlink { target } if self.last == Last::Follow || !self.rest.is_empty() => {
                self.links += 1;
                if self.links > MOST_LINKS {
                    return refuse("too many links lead to each other");
                }
                if target.starts_with(b"/") {
                    self.at = Path::root();
                }
                self.push(target);
            }
            kind if self.rest.is_empty() || *kind == FileKind::Directory => self.at = asked,
            _ => return refuse("it is not a directory"),
        }
        Ok(())
    }

    /// Where the path leads if no links are on what is left of it.
    pub fn expected(&self) -> Path {
        let asked = self.asked.as_ref().unwrap_or(&self.at);
        let rest = self.rest.iter().rev().flat_map(|part| [b"/", &**part]);
        Path::confined(&[asked.as_bytes()].into_iter().chain(rest).collect::<Vec<_>>().concat())
    }

    /// Where the path has led so far.
    pub fn path(&self) -> &Path {
        &self.at
    }
}
