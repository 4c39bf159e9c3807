use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_image::{
    Copied, CopyOptions, Error, Name, Naming, Observer, PerTarget, Planned, Referrers, Result, Root, Sink, Source,
};
use ocikit_layout::{Compression, Dir, DockerList, OutputFile, Presence, Scratch, TarEdit, TarOptions, TarWriter};
#[cfg(feature = "registry")]
use ocikit_registry::Client;
use ocikit_spec::{Descriptor, Platform, Reference};
#[cfg(feature = "registry")]
use ocikit_spec::{Repository, Tag};

use crate::inspect::{Inspection, inspect};
use crate::location::Location;
use crate::remote::Remote;

/// The shared state of many operations: the registry client with its connections, credentials and limits, and the
/// options of copies.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) remote: Remote,
    options: SessionOptions,
}

/// Options of a [`Session`].
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// The number of blobs that are copied in parallel; the default of [`CopyOptions`] if `None`.
    pub jobs: Option<usize>,
    /// Receives progress events.
    pub observer: Option<Arc<dyn Observer>>,
    /// The referrers to copy with each image.
    pub referrers: Referrers,
    /// The platforms to copy from each index; all if empty. See [`CopyOptions::only`].
    pub only: Vec<Platform>,
    /// Whether to check every blob even if the target already has the image under its name; see
    /// [`CopyOptions::recheck`].
    pub recheck: bool,
    /// Whether tags of a target for signatures, attestations and lists of referrers are left unchanged; see
    /// [`CopyOptions::keep_tags`].
    pub keep_tags: bool,
    /// Whether non-distributable layers are copied; see [`CopyOptions::foreign_layers`].
    pub foreign_layers: bool,
    /// How archives are written. The file name selects the compression.
    pub archive: TarOptions,
    /// Whether to add images to existing archives instead of replacing the file.
    pub append: bool,
    /// The directory of blobs that several layouts share.
    pub shared_blobs: Option<PathBuf>,
    /// The directory for temporary files; see [`Scratch`].
    pub scratch: Option<PathBuf>,
}

impl Session {
    /// Creates a session that uses this registry client.
    #[cfg(feature = "registry")]
    pub fn new(client: Client, options: SessionOptions) -> Session {
        Session { remote: Remote { client }, options }
    }

    /// Creates a session for archives and layouts. It has a registry client with default options if the crate was built
    /// with the feature `registry`; otherwise registries are [`Error::Unsupported`].
    pub fn local(options: SessionOptions) -> Session {
        Session { remote: Remote::default(), options }
    }

    /// Returns the registry client.
    #[cfg(feature = "registry")]
    pub fn client(&self) -> &Client {
        &self.remote.client
    }

    /// Returns the options.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Returns the session with another selection of referrers.
    #[must_use]
    pub fn with_referrers(&self, referrers: Referrers) -> Session {
        Session { remote: self.remote.clone(), options: SessionOptions { referrers, ..self.options.clone() } }
    }

    /// Opens the place of a location for reading.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::Broken`] if the place does not exist or is damaged.
    /// [`Error::Unsupported`] for a pipe, which [`Session::receive`] reads.
    pub async fn source(&self, location: &Location) -> Result<Arc<dyn Source>> {
        match location {
            Location::Layout { path, .. } => Ok(Arc::new(self.shared(Dir::open(path).await?))),
            Location::Path { path, .. } if path.is_dir() => Ok(Arc::new(self.shared(Dir::open(path).await?))),
            Location::Archive { path, .. } => ocikit_layout::open_archive(path, &self.scratch()).await,
            Location::DockerArchive { path, .. } => ocikit_layout::open_docker_archive(path, &self.scratch()).await,
            Location::Path { path, .. } => ocikit_layout::open(path, &self.scratch()).await,
            Location::Registry(reference) => Ok(self.remote.repository(reference)?),
            Location::Stdio => Err(Error::pipe(location)),
        }
    }

    /// Opens the root of a location.
    ///
    /// # Errors
    ///
    /// Those of [`Session::source`] and [`Root::open`].
    pub async fn open(&self, location: &Location) -> Result<Root> {
        Root::open(self.source(location).await?, &location.name()).await
    }

    /// Opens the place of a location for writing. An archive is created anew and replaces an existing file when it is
    /// finished.
    ///
    /// # Errors
    ///
    /// Those of the place. [`Error::Failed`] for an archive whose name ends in `.xz` or `.bz2`, and [`Error::Unsupported`]
    /// for a pipe: pass a [`TarWriter::stream`] to [`Session::copy_to`].
    pub async fn sink(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        match location {
            Location::Layout { path, .. } => Ok(Arc::new(self.shared(Dir::create(path).await?))),
            Location::Archive { path, .. } => self.archive(path, self.options.archive.clone()).await,
            Location::DockerArchive { path, .. } => {
                let docker = DockerList::For(self.docker_platform());
                self.archive(path, TarOptions { docker, ..self.options.archive.clone() }).await
            }
            // A device or pipe cannot become a directory.
            Location::Path { path, .. } if Location::names_an_archive(path) || OutputFile::is_stream(path) => {
                self.archive(path, self.options.archive.clone()).await
            }
            Location::Path { path, .. } => Ok(Arc::new(self.shared(Dir::create(path).await?))),
            Location::Registry(reference) => {
                self.expect_transfer();
                self.remote.repository(reference)
            }
            Location::Stdio => Err(unsupported(location, "a pipe cannot be opened, only streamed to")),
        }
    }

    /// Opens a new archive, or the existing one with [`SessionOptions::append`].
    async fn archive(&self, path: &Path, options: TarOptions) -> Result<Arc<dyn Sink>> {
        if self.options.append && path.exists() {
            let edit = TarEdit::open(path).await?.with_presence(self.presence());
            return Ok(Arc::new(edit.for_docker(options.docker)));
        }
        let compression = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "tgz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            Some("xz" | "bz2") => {
                let reason = io::Error::new(io::ErrorKind::Unsupported, "xz and bzip2 archives can only be read");
                return Err(Error::failed("write", path.display(), reason));
            }
            _ => options.compression,
        };
        Ok(Arc::new(TarWriter::create(path, TarOptions { compression, ..options }).await?))
    }

    /// Returns the platform of docker archives, which hold one.
    fn docker_platform(&self) -> Platform {
        match &self.options.archive.docker {
            DockerList::For(platform) | DockerList::IfLoadable(platform) => platform.clone(),
            _ => Platform::of_this_machine(),
        }
    }

    fn presence(&self) -> Presence {
        if self.options.recheck { Presence::ByDigest } else { Presence::BySize }
    }

    pub(crate) fn shared(&self, dir: Dir) -> Dir {
        let dir = dir.with_presence(self.presence());
        match &self.options.shared_blobs {
            Some(blobs) => dir.sharing(blobs),
            None => dir,
        }
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch { directory: self.options.scratch.clone(), observer: self.options.observer.clone() }
    }

    /// Copies an image between two locations, byte for byte. An archive of `docker save` may hold less than its index
    /// lists; only what exists is copied then: see [`Session::open_present`].
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn copy(&self, from: &Location, to: &Location) -> Result<Copied> {
        self.expect_transfer();
        let (root, _) = self.open_present(from).await?;
        self.copy_root_from(&root, from, to).await
    }

    /// Copies an opened, edited or new root to a location, which names it.
    ///
    /// # Errors
    ///
    /// Those of either side; [`Error::OtherDigest`] if `to` has another digest.
    pub async fn copy_root(&self, root: &Root, to: &Location) -> Result<Copied> {
        let mut copied = self.copy_root_to_each(root, None, std::slice::from_ref(to)).await.all()?;
        Ok(copied.remove(0))
    }

    /// Copies a root that was opened at one location to another. If `to` has no name, that of `from` is used.
    ///
    /// # Errors
    ///
    /// As [`Session::copy_root`].
    pub async fn copy_root_from(&self, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
        let mut copied = self.copy_root_to_each(root, Some(from), std::slice::from_ref(to)).await.all()?;
        Ok(copied.remove(0))
    }

    /// Pushes an image to several registries, repositories or tags in parallel. The image is opened once, and each blob
    /// is read once and uploaded to each repository once.
    ///
    /// The results are in the order of the targets. A target that fails does not stop the others.
    ///
    /// # Errors
    ///
    /// Those of opening the image.
    pub async fn push(&self, from: &Location, to: &[Reference]) -> Result<PerTarget<Copied>> {
        let (root, _) = self.open_present(from).await?;
        let to: Vec<_> = to.iter().cloned().map(Location::Registry).collect();
        Ok(self.copy_root_to_each(&root, Some(from), &to).await)
    }

    /// Returns the metadata of an image, without reading its layers.
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`] and [`inspect`].
    pub async fn inspect(&self, location: &Location) -> Result<Inspection> {
        inspect(&self.open(location).await?).await
    }

    /// Lists the tags of a repository.
    ///
    /// # Errors
    ///
    /// Those of the registry; [`Error::NotFound`] if the repository does not exist.
    #[cfg(feature = "registry")]
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        self.remote.client.repository(repository.clone())?.tags().await
    }

    /// Returns what [`Session::copy_root`] would do.
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn plan(&self, root: &Root, to: &Location) -> Result<Planned> {
        let mut planned = self.plan_root_to_each(root, None, std::slice::from_ref(to)).await.all()?;
        Ok(planned.remove(0))
    }

    /// Returns the part of a root that a copy to a location stores there: a docker archive holds one image for one
    /// platform, that of [`SessionOptions::archive`] or of this machine.
    ///
    /// # Errors
    ///
    /// [`Error::NoPlatform`] if an index has no image for that platform, [`Error::Unsupported`] for an artifact.
    pub async fn fit(&self, root: &Root, to: &Location) -> Result<Root> {
        if !matches!(to, Location::DockerArchive { .. }) {
            return Ok(root.clone());
        }
        match root {
            Root::Index(index) => Ok(Root::Image(index.image_for(&self.docker_platform()).await?)),
            Root::Image(_) => Ok(root.clone()),
            Root::Other(_) => Err(unsupported(to, "docker archives hold images only")),
        }
    }

    /// Copies a root to a sink under these names.
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn copy_to(&self, root: &Root, sink: &Arc<dyn Sink>, names: Vec<Naming>) -> Result<Copied> {
        ocikit_image::copy(root, sink, &self.copy_options(names)).await
    }

    /// Announces a transfer before the first image is opened, so that connections to registries with high latency are
    /// opened early. Optional: without it the first blobs wait a little longer. [`Session::copy`] and [`Session::sink`]
    /// call it.
    pub fn expect_transfer(&self) {
        // The number of parallel requests of a copy: up to `2 * jobs` blobs, each with a query while its upload starts.
        self.remote.open_ahead(self.copy_options(Vec::new()).jobs.saturating_mul(4));
    }

    /// Returns the copy options of the session.
    pub fn copy_options(&self, names: Vec<Naming>) -> CopyOptions {
        let SessionOptions { jobs, observer, referrers, only, recheck, keep_tags, foreign_layers, .. } = &self.options;
        let default = CopyOptions::default();
        CopyOptions {
            jobs: jobs.unwrap_or(default.jobs),
            names,
            referrers: referrers.clone(),
            only: only.clone(),
            recheck: *recheck,
            keep_tags: *keep_tags,
            foreign_layers: *foreign_layers,
            present: Arc::default(),
            observer: observer.clone(),
        }
    }

    /// Copies the image of an archive that is read from a pipe, compressed or not, while it arrives. A docker archive
    /// is first read to its end.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] and [`Error::Mismatch`] if the archive is incomplete or damaged, and those of the target.
    pub async fn receive(&self, reader: impl Read + Send + 'static, to: &Location) -> Result<Copied> {
        let mut copied = self.receive_to_each(reader, std::slice::from_ref(to)).await?.all()?;
        Ok(copied.remove(0))
    }

    /// Removes an image from the list of a local archive or layout and returns the removed descriptors. Its blobs are
    /// kept.
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for registries and for archives that cannot be changed.
    pub async fn remove(&self, location: &Location) -> Result<Vec<Descriptor>> {
        match Local::of(location) {
            Some(Local::Archive(path)) => {
                let edit = TarEdit::open(path).await?;
                let removed = edit.remove(&location.name()).await?;
                edit.finish().await?;
                Ok(removed)
            }
            Some(Local::Layout(path)) => self.shared(Dir::open(path).await?).remove(&location.name()).await,
            None => Err(unsupported(location, "images can be removed only from local archives and layouts")),
        }
    }

    /// Opens a place to change an image of it. An archive or layout is locked before it is read, so that no parallel edit
    /// is lost. An archive without `manifest.json` gets the one of [`TarOptions::docker`], so that `docker load` reads it
    /// like a written archive.
    pub(crate) async fn lock_in_place(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        if location.reference().is_some_and(|reference| reference.digest().is_some()) {
            let what = "an image selected by its digest cannot be changed; use a tag, or write to another location";
            return Err(unsupported(location, what));
        }
        match Local::of(location) {
            Some(Local::Archive(path)) => {
                let list = self.options.archive.docker.clone();
                Ok(Arc::new(TarEdit::open(path).await?.for_docker_if_missing(list)))
            }
            Some(Local::Layout(path)) => Ok(Arc::new(self.shared(Dir::open(path).await?).exclusive().await?)),
            None => self.in_place(location).await,
        }
    }

    /// Opens a place for a change. An archive is locked before it is read, so that no parallel edit is lost.
    pub(crate) async fn in_place(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        match location {
            Location::Archive { path, .. } | Location::DockerArchive { path, .. } => {
                Ok(Arc::new(TarEdit::open(path).await?))
            }
            Location::Path { path, .. } if !path.is_dir() => Ok(Arc::new(TarEdit::open(path).await?)),
            Location::Layout { path, .. } | Location::Path { path, .. } => {
                Ok(Arc::new(self.shared(Dir::open(path).await?)))
            }
            Location::Registry(_) => self.sink(location).await,
            Location::Stdio => Err(Error::pipe(location)),
        }
    }
}

/// A place that is changed without a registry.
pub(crate) enum Local<'a> {
    Archive(&'a Path),
    Layout(&'a Path),
}

impl Local<'_> {
    pub(crate) fn of(location: &Location) -> Option<Local<'_>> {
        match location {
            Location::Archive { path, .. } | Location::DockerArchive { path, .. } => Some(Local::Archive(path)),
            Location::Layout { path, .. } => Some(Local::Layout(path)),
            Location::Path { path, .. } if path.is_dir() => Some(Local::Layout(path)),
            Location::Path { path, .. } => Some(Local::Archive(path)),
            Location::Registry(_) | Location::Stdio => None,
        }
    }
}

/// Returns the name of a root at the target of a copy.
pub(crate) fn naming(root: &Root, from: Option<&Location>, to: &Location) -> Result<Naming> {
    let other_digest = || {
        let source = from.map_or_else(|| root.source().to_string(), ToString::to_string);
        Error::other_digest(to, source, root.digest())
    };
    if let Some(reference) = to.reference() {
        if reference.digest().is_some_and(|digest| *digest != root.digest()) {
            return Err(other_digest());
        }
        return Ok(Naming { tag: reference.tag().cloned(), ..Naming::default() });
    }
    Ok(match (to.name(), from) {
        (Name::Tag(tag), _) => Naming { tag: Some(tag), ..Naming::default() },
        (Name::Full(full), _) => {
            let reference = full.parse::<Reference>().ok();
            let tag = reference.as_ref().and_then(|reference| reference.tag().cloned());
            // Docker accepts full names only; other tools look for the name as it was given.
            let whole = reference.filter(|_| matches!(to, Location::DockerArchive { .. }));
            Naming { tag, full: Some(whole.map_or(full, |whole| whole.to_string())), replaces: None }
        }
        (Name::Digest(digest), _) if digest != root.digest() => {
            return Err(other_digest());
        }
        (_, Some(Location::Registry(reference))) => {
            let tagged = |tag| Reference::tagged(reference.repository().clone(), tag).to_string();
            Naming { tag: reference.tag().cloned(), full: reference.tag().cloned().map(tagged), replaces: None }
        }
        _ => Naming::default(),
    })
}

pub(crate) fn unsupported(location: &Location, what: &str) -> Error {
    Error::Unsupported { place: location.to_string(), what: what.to_owned() }
}
