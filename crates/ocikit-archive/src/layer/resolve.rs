use crate::error::{Error, Result};
use crate::layer::entry::FileKind;
use crate::layer::path::{MAX_PATH_BYTES, Path};

/// Resolves a path through symlinks inside the root, without access to the files: it asks for the type of a path, and
/// the caller answers.
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
    /// The path resolved so far; never a symlink that is to be followed.
    at: Path,
    /// The remaining components, the next one last.
    rest: Vec<Box<[u8]>>,
    asked: Option<Path>,
    last: Last,
    links: usize,
}

/// Whether a symlink at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is followed, as for reading a file.
    Follow,
    /// It is the result, as for listing it.
    Keep,
}

/// The maximum number of symlinks in a path, as in Linux.
const MAX_SYMLINKS: usize = 40;

impl Resolver {
    /// Starts at the root.
    pub fn new(path: &[u8], last: Last) -> Resolver {
        let mut resolver = Resolver { at: Path::root(), rest: Vec::new(), asked: None, last, links: 0 };
        resolver.push(path);
        resolver
    }

    fn push(&mut self, path: &[u8]) {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        self.rest.extend(parts.rev().map(Into::into));
    }

    /// Returns the path whose type is needed next; `None` if the path is [resolved](Resolver::path).
    pub fn question(&mut self) -> Option<&Path> {
        while self.asked.is_none() {
            match &*self.rest.pop()? {
                b".." => self.at = self.at.parent().unwrap_or_default(),
                part => self.asked = Some(self.at.join(part)),
            }
        }
        self.asked.as_ref()
    }

    /// Continues with the type of the requested path. If it does not exist, the path cannot be resolved.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] if there are too many symlinks, or a path continues after a file.
    pub fn answer(&mut self, kind: &FileKind) -> Result<()> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let refuse = |problem| Err(Error::Layer { path: asked.to_string(), problem });
        if asked.as_bytes().len() > MAX_PATH_BYTES {
            return refuse("the path is too long");
        }
        match kind {
            FileKind::Symlink { target } if self.last == Last::Follow || !self.rest.is_empty() => {
                self.links += 1;
                if self.links > MAX_SYMLINKS {
                    return refuse("too many levels of symlinks");
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

    /// Returns the path that results if the remaining components are no symlinks.
    pub fn expected(&self) -> Path {
        let asked = self.asked.as_ref().unwrap_or(&self.at);
        let rest = self.rest.iter().rev().flat_map(|part| [b"/", &**part]);
        Path::confined(&[asked.as_bytes()].into_iter().chain(rest).collect::<Vec<_>>().concat())
    }

    /// Returns the path resolved so far.
    pub fn path(&self) -> &Path {
        &self.at
    }
}
