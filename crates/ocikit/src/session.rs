use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_image::{Error, Name, Observer, Referrers, Result, Root, Sink, Source};
use ocikit_layout::{Compression, Dir, DockerList, OutputFile, Presence, Scratch, TarEdit, TarOptions, TarWriter};
#[cfg(feature = "registry")]
use ocikit_registry::Client;
use ocikit_spec::{Descriptor, Platform};
#[cfg(feature = "registry")]
use ocikit_spec::{Repository, Tag};

use crate::inspect::{Inspection, inspect};
use crate::local::{Local, OpenLocal};
use crate::location::Location;
use crate::remote::Remote;

/// The shared state of many operations: the registry client with its connections, credentials and limits, and the
/// options of copies.
///
/// ```
/// use ocikit::{Client, ClientOptions, Referrers, Session, SessionOptions};
///
/// let options = SessionOptions::default().referrers(Referrers::All);
/// let session = Session::new(Client::new(ClientOptions::default()), options);
/// let other = session.clone(); // cheap: both share connections, tokens and limits
/// # let _ = other;
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) remote: Remote,
    options: SessionOptions,
}

/// Options of a [`Session`].
///
/// ```
/// use ocikit::{Referrers, SessionOptions};
///
/// let options = SessionOptions::default().jobs(Some(8)).referrers(Referrers::All);
/// assert!(options.only.is_empty(), "all platforms");
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The number of blobs that are copied in parallel; the default of [`CopyOptions`](ocikit_image::CopyOptions) if `None`.
    pub jobs: Option<usize>,
    /// Receives progress events.
    pub observer: Option<Arc<dyn Observer>>,
    /// The referrers to copy with each image.
    pub referrers: Referrers,
    /// The platforms to copy from each index; all if empty. See [`CopyOptions::only`](ocikit_image::CopyOptions::only).
    pub only: Vec<Platform>,
    /// Whether to check every blob even if the target already has the image under its name; see
    /// [`CopyOptions::recheck`](ocikit_image::CopyOptions::recheck).
    pub recheck: bool,
    /// Whether tags of a target for signatures, attestations and lists of referrers are left unchanged; see
    /// [`CopyOptions::keep_tags`](ocikit_image::CopyOptions::keep_tags).
    pub keep_tags: bool,
    /// Whether non-distributable layers are copied; see [`CopyOptions::foreign_layers`](ocikit_image::CopyOptions::foreign_layers).
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

ocikit_spec::setters! {
    SessionOptions {
        jobs: Option<usize>,
        observer: Option<Arc<dyn Observer>>,
        referrers: Referrers,
        only: Vec<Platform>,
        recheck: bool,
        keep_tags: bool,
        foreign_layers: bool,
        archive: TarOptions,
        append: bool,
        shared_blobs: Option<PathBuf>,
        scratch: Option<PathBuf>,
    }
}

impl Session {
    /// Creates a session that uses this registry client.
    ///
    /// ```
    /// use ocikit::{Client, ClientOptions, Session, SessionOptions};
    ///
    /// let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default());
    /// assert_eq!(session.options().jobs, None);
    /// ```
    #[cfg(feature = "registry")]
    pub fn new(client: Client, options: SessionOptions) -> Session {
        Session { remote: Remote { client }, options }
    }

    /// Creates a session for archives and layouts. It has a registry client with default options if the crate was built
    /// with the feature `registry`; otherwise registries are [`Error::Unsupported`].
    ///
    /// ```
    /// use ocikit::{Session, SessionOptions};
    ///
    /// let session = Session::local(SessionOptions::default().jobs(Some(2)));
    /// assert_eq!(session.options().jobs, Some(2));
    /// ```
    pub fn local(options: SessionOptions) -> Session {
        Session { remote: Remote::default(), options }
    }

    /// Returns the registry client.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let repository = session.client().repository("ghcr.io/acme/app".parse()?)?;
    /// println!("{:?}", repository.tags().await?);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "registry")]
    pub fn client(&self) -> &Client {
        &self.remote.client
    }

    /// Returns the options.
    ///
    /// ```
    /// let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// assert!(!session.options().append);
    /// ```
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Returns the session with another selection of referrers.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::{Location, Referrers};
    ///
    /// let backup = Location::layout(directory.path().join("backup"));
    /// let copied = session.with_referrers(Referrers::All).copy(&app, &backup).await?;
    /// println!("{} referrers", copied.referrers.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_referrers(&self, referrers: Referrers) -> Session {
        Session { remote: self.remote.clone(), options: SessionOptions { referrers, ..self.options.clone() } }
    }

    /// Opens the place of a location for reading.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::SourceExt;
    ///
    /// let source = session.source(&app).await?;
    /// let root = source.find_root(&app.name()).await?;
    /// println!("{}", root.digest);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::Broken`] if the place does not exist or is damaged.
    /// [`Error::Unsupported`] for a pipe, which [`Session::receive`] reads.
    pub async fn source(&self, location: &Location) -> Result<Arc<dyn Source>> {
        as_written(location, self.open_source(location).await)
    }

    async fn open_source(&self, location: &Location) -> Result<Arc<dyn Source>> {
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
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// let root = session.open(&app).await?;
    /// println!("{} has {} layers", root.digest(), root.layers().count());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::source`] and [`Root::open`].
    pub async fn open(&self, location: &Location) -> Result<Root> {
        as_written(location, Root::open(self.source(location).await?, &location.name()).await)
    }

    /// Opens the place of a location for writing. An archive is created anew and replaces an existing file when it is
    /// finished.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::{Location, Naming, image};
    ///
    /// let sink = session.sink(&Location::archive(directory.path().join("app.tar"))).await?;
    /// let root = session.open(&app).await?;
    /// let names = vec![Naming::of_tag("v1".parse()?)];
    /// session.copy_to(&root, &sink, names).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place. [`Error::Failed`] for an archive whose name ends in `.xz` or `.bz2`, and [`Error::Unsupported`]
    /// for a pipe: pass a [`TarWriter::stream`] to [`Session::copy_to`].
    pub async fn sink(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        as_written(location, self.open_sink(location).await)
    }

    async fn open_sink(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        match location {
            Location::Layout { path, .. } => Ok(Arc::new(self.shared(Dir::create(path).await?))),
            Location::Archive { path, .. } => self.archive(path, self.options.archive.clone()).await,
            Location::DockerArchive { path, .. } => {
                let docker = DockerList::For(self.docker_platform());
                self.archive(path, self.options.archive.clone().docker(docker)).await
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
        let compression = self.compression_of(path, &options)?;
        Ok(Arc::new(TarWriter::create(path, options.compression(compression)).await?))
    }

    /// Returns the compression of a new archive, which its name decides.
    pub(crate) fn compression_of(&self, path: &Path, options: &TarOptions) -> Result<Compression> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "tgz") => Ok(Compression::Gzip),
            Some("zst") => Ok(Compression::Zstd),
            Some("xz" | "bz2") => {
                let reason = io::Error::new(io::ErrorKind::Unsupported, "xz and bzip2 archives can only be read");
                Err(Error::failed("write", path.display(), reason))
            }
            _ => Ok(options.compression),
        }
    }

    /// Returns the platform of docker archives, which hold one.
    pub(crate) fn docker_platform(&self) -> Platform {
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
        Scratch::default().directory(self.options.scratch.clone()).observer(self.options.observer.clone())
    }

    /// Returns the metadata of an image, without reading its layers.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// let inspection = session.inspect(&app).await?;
    /// println!("{} {:?}", inspection.digest, inspection.annotations);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`] and [`inspect`].
    pub async fn inspect(&self, location: &Location) -> Result<Inspection> {
        inspect(&self.open(location).await?).await
    }

    /// Lists the tags of a repository.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// for tag in session.tags(&"ghcr.io/acme/app".parse()?).await? {
    ///     println!("{tag}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the registry; [`Error::NotFound`] if the repository does not exist.
    #[cfg(feature = "registry")]
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        self.remote.client.repository(repository.clone())?.tags().await
    }

    /// Removes an image from the list of a local archive or layout and returns the removed descriptors. Its blobs are
    /// kept.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// let removed = session.remove(&app).await?;
    /// assert_eq!(removed.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for registries and for archives that cannot be changed.
    pub async fn remove(&self, location: &Location) -> Result<Vec<Descriptor>> {
        let Some(local) = Local::of(location) else {
            return Err(unsupported(location, "images can be removed only from local archives and layouts"));
        };
        let place = self.open_local(&local).await?;
        let removed = place.remove(&location.name()).await?;
        place.finish().await?;
        Ok(removed)
    }

    /// Opens an archive or layout to change its list of images. An archive is locked.
    pub(crate) async fn open_local(&self, local: &Local<'_>) -> Result<OpenLocal> {
        Ok(match local {
            Local::Archive(path) => OpenLocal::Archive(Box::new(TarEdit::open(path).await?)),
            Local::Layout(path) => OpenLocal::Layout(Box::new(self.shared(Dir::open(path).await?))),
        })
    }

    /// Opens a place to change an image of it. An archive or layout is locked before it is read, so that no parallel edit
    /// is lost. An archive without `manifest.json` gets the one of [`TarOptions::docker`], so that `docker load` reads it
    /// like a written archive.
    pub(crate) async fn lock_in_place(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        as_written(location, self.open_locked(location).await)
    }

    async fn open_locked(&self, location: &Location) -> Result<Arc<dyn Sink>> {
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
            None => self.open_in_place(location).await,
        }
    }

    /// Opens a place for a change. An archive is locked before it is read, so that no parallel edit is lost.
    pub(crate) async fn open_in_place(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        match Local::of(location) {
            Some(Local::Archive(path)) => Ok(Arc::new(TarEdit::open(path).await?)),
            Some(Local::Layout(path)) => Ok(Arc::new(self.shared(Dir::open(path).await?))),
            None if location.reference().is_some() => self.sink(location).await,
            None => Err(Error::pipe(location)),
        }
    }
}

/// Names the place in an error as the location does: `oci:images` instead of `images`, the path of its layout.
pub(crate) fn as_written<T>(location: &Location, result: Result<T>) -> Result<T> {
    result.map_err(|mut error| {
        if let (Some(path), Some(place)) = (location.path(), error.place_mut())
            && *place == path.display().to_string()
        {
            *place = location.with_name(Name::Only).to_string();
        }
        error
    })
}

pub(crate) fn unsupported(location: &Location, what: &str) -> Error {
    Error::Unsupported { place: location.to_string(), what: what.to_owned() }
}
