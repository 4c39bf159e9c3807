use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ocikit_image::{
    AnnotateOptions, Copied, CopyOptions, Error, Mismatch, Name, Naming, Observer, Result, Root, Sink, Source, annotate,
};
use ocikit_layout::{Dir, Pipe, Tar, TarEdit, TarOptions, TarWriter};
use ocikit_registry::Client;
use ocikit_spec::{Digest, Reference};

use crate::location::Location;

/// What many calls share: the client of registries with its connections, credentials and limits, and how to copy.
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    options: SessionOptions,
}

/// How a session works.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// How many blobs are copied at the same time; the default of [`CopyOptions`] if `None`.
    pub jobs: Option<usize>,
    /// Whoever wants to see progress.
    pub observer: Option<Arc<dyn Observer>>,
    /// How archives are written.
    pub archive: TarOptions,
}

/// What annotating did.
#[derive(Debug, Clone)]
pub struct Annotated {
    /// The digest before.
    pub before: Digest,
    /// The root with its new annotations.
    pub after: Root,
}

impl Session {
    /// A session that reaches registries through this client.
    pub fn new(client: Client, options: SessionOptions) -> Session {
        Session { client, options }
    }

    /// The client of registries.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Opens a place for reading.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::Broken`] as the place is missing or not what it should be.
    /// [`Error::Unsupported`] for a pipe, which [`Session::receive`] reads.
    pub async fn source(&self, location: &Location) -> Result<Arc<dyn Source>> {
        match location {
            Location::Layout { path, .. } => Ok(Arc::new(Dir::open(path).await?)),
            Location::Archive { path, .. } => Ok(Arc::new(Tar::open(path).await?)),
            Location::DockerArchive { path, .. } => ocikit_layout::open_archive(path).await,
            Location::Path { path, .. } => ocikit_layout::open(path).await,
            Location::Registry(reference) => Ok(Arc::new(self.client.repository(reference.repository().clone())?)),
            Location::Stdio => Err(unsupported(location, "a pipe cannot be opened, only received")),
        }
    }

    /// Opens what a location names.
    ///
    /// # Errors
    ///
    /// Those of [`Session::source`] and [`Root::open`].
    pub async fn open(&self, location: &Location) -> Result<Root> {
        Root::open(self.source(location).await?, &location.name()).await
    }

    /// Opens a place for writing. An archive is begun anew: what the file has now is replaced when it is finished.
    ///
    /// # Errors
    ///
    /// Those of the place. [`Error::Unsupported`] for a pipe: give a [`TarWriter::stream`] to [`Session::copy_to`].
    pub async fn sink(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        match location {
            Location::Layout { path, .. } => Ok(Arc::new(Dir::create(path).await?)),
            Location::Archive { path, .. } => self.new_archive(path).await,
            Location::Path { path, .. } if Location::names_an_archive(path) => self.new_archive(path).await,
            Location::Path { path, .. } => Ok(Arc::new(Dir::create(path).await?)),
            Location::Registry(reference) => Ok(Arc::new(self.client.repository(reference.repository().clone())?)),
            Location::DockerArchive { .. } => Err(unsupported(location, "docker archives are not written yet")),
            Location::Stdio => Err(unsupported(location, "a pipe cannot be opened, only streamed to")),
        }
    }

    async fn new_archive(&self, path: &Path) -> Result<Arc<dyn Sink>> {
        if [".gz", ".tgz", ".zst"].iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            let what = "compressed archives are not written yet".to_owned();
            return Err(Error::Unsupported { place: path.display().to_string(), what });
        }
        Ok(Arc::new(TarWriter::create(path, self.options.archive.clone()).await?))
    }

    /// Copies an image from one place to another, byte for byte.
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn copy(&self, from: &Location, to: &Location) -> Result<Copied> {
        let root = self.open(from).await?;
        self.copy_root(&root, from, to).await
    }

    /// Copies a root that was opened, or edited, to a place; `from` is where it gets its name from if `to` gives none.
    ///
    /// # Errors
    ///
    /// Those of either side; [`Error::Mismatch`] if `to` asks for another digest.
    pub async fn copy_root(&self, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
        let naming = naming(root, from, to)?;
        self.copy_to(root, &self.sink(to).await?, vec![naming]).await
    }

    /// Copies a root to a sink under these names.
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn copy_to(&self, root: &Root, sink: &Arc<dyn Sink>, names: Vec<Naming>) -> Result<Copied> {
        let default = CopyOptions::default();
        let jobs = self.options.jobs.unwrap_or(default.jobs);
        let options = CopyOptions { jobs, names, observer: self.options.observer.clone() };
        ocikit_image::copy(root, sink, &options).await
    }

    /// Copies the image of an archive that comes through a pipe, while it comes.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] and [`Error::Mismatch`] if the archive is incomplete or damaged, and those of the target.
    pub async fn receive(&self, reader: impl Read + Send + 'static, to: &Location) -> Result<Copied> {
        let sink = self.sink(to).await?;
        let pipe = Pipe::drain("-", reader, &sink).await?;
        let root = Root::open(Arc::new(pipe), &Name::Only).await?;
        let naming = naming(&root, &Location::Stdio, to)?;
        self.copy_to(&root, &sink, vec![naming]).await
    }

    /// Changes annotations of an image where it is: a local archive or layout is changed in place, a tag in a registry
    /// is moved.
    ///
    /// # Errors
    ///
    /// Those of the place and of [`annotate`]; [`Error::Unsupported`] for what has no tag that could be moved.
    pub async fn annotate(&self, location: &Location, options: &AnnotateOptions) -> Result<Annotated> {
        // An archive is locked before it is read, so that two edits at once both count.
        let sink: Arc<dyn Sink> = match location {
            Location::Archive { path, .. } => Arc::new(TarEdit::open(path).await?),
            Location::Path { path, .. } if !path.is_dir() => Arc::new(TarEdit::open(path).await?),
            Location::Layout { path, .. } | Location::Path { path, .. } => Arc::new(Dir::open(path).await?),
            Location::Registry(reference) => {
                if reference.digest().is_some() {
                    let what = "an image that is named by its digest cannot be changed; name a tag, or write elsewhere";
                    return Err(unsupported(location, what));
                }
                self.sink(location).await?
            }
            Location::DockerArchive { .. } | Location::Stdio => {
                return Err(unsupported(location, "it cannot be changed"));
            }
        };
        let root = Root::open(sink.clone(), &location.name()).await?;
        let before = root.digest();
        let after = annotate(&root, options).await?;
        if after.digest() != before {
            let tag = match location.name() {
                Name::Tag(tag) => Some(tag),
                _ => None,
            };
            let naming = Naming { tag, full: None, replaces: Some(before) };
            self.copy_to(&after, &sink, vec![naming]).await?;
        }
        Ok(Annotated { before, after })
    }
}

/// The name that a copy gets.
fn naming(root: &Root, from: &Location, to: &Location) -> Result<Naming> {
    if let Location::Registry(reference) = to {
        if let Some(digest) = reference.digest().filter(|digest| **digest != root.digest()) {
            return Err(Error::mismatch(digest, root.source(), Mismatch::Digest(root.digest())));
        }
        return Ok(Naming { tag: reference.tag().cloned(), ..Naming::default() });
    }
    Ok(match (to.name(), from) {
        (Name::Tag(tag), _) => Naming { tag: Some(tag), ..Naming::default() },
        (Name::Full(full), _) => {
            let tag = full.parse::<Reference>().ok().and_then(|reference| reference.tag().cloned());
            Naming { tag, full: Some(full), replaces: None }
        }
        (Name::Digest(digest), _) if digest != root.digest() => {
            return Err(Error::mismatch(&digest, root.source(), Mismatch::Digest(root.digest())));
        }
        (_, Location::Registry(reference)) => {
            let tagged = |tag| Reference::tagged(reference.repository().clone(), tag).to_string();
            Naming { tag: reference.tag().cloned(), full: reference.tag().cloned().map(tagged), replaces: None }
        }
        _ => Naming::default(),
    })
}

pub(crate) fn unsupported(location: &Location, what: &str) -> Error {
    Error::Unsupported { place: location.to_string(), what: what.to_owned() }
}
