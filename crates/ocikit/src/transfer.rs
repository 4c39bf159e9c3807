use std::io::Read;
use std::sync::Arc;

use ocikit_image::{Copied, CopyOptions, Error, Name, Naming, PerTarget, Planned, Result, Root, Sink};
use ocikit_spec::Reference;

use crate::location::Location;
use crate::session::{Session, SessionOptions, unsupported};

impl Session {
    /// Copies an image between two locations, byte for byte. An archive of `docker save` may hold less than its index
    /// lists; only what exists is copied then: see [`Session::open_present`].
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::Location;
    ///
    /// let archive = Location::archive(directory.path().join("app.tar"));
    /// let copied = session.copy(&app, &archive).await?;
    /// assert_eq!(session.open(&archive).await?.digest(), copied.root.digest);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
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
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::{ArtifactBuilder, Location};
    ///
    /// let artifact = ArtifactBuilder::new("application/vnd.example.report").layer_bytes("text/plain", "passed").build()?;
    /// let copied = session.copy_root(&artifact, &Location::layout(directory.path().join("report"))).await?;
    /// assert_eq!(copied.root.digest, artifact.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of either side; [`Error::OtherDigest`] if `to` has another digest.
    pub async fn copy_root(&self, root: &Root, to: &Location) -> Result<Copied> {
        self.copy_root_to_each(root, None, std::slice::from_ref(to)).await.all().map(|mut copied| copied.remove(0))
    }

    /// Copies a root that was opened at one location to another. If `to` has no name, that of `from` is used.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let from = "ghcr.io/acme/app:1".parse()?;
    /// let root = session.open(&from).await?;
    /// // The archive names the image `1`, as its source does.
    /// session.copy_root_from(&root, &from, &"app.tar".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Session::copy_root`].
    pub async fn copy_root_from(&self, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
        let copied = self.copy_root_to_each(root, Some(from), std::slice::from_ref(to)).await;
        copied.all().map(|mut copied| copied.remove(0))
    }

    /// Pushes an image to several registries, repositories or tags in parallel. The image is opened once, and each blob
    /// is read once and uploaded to each repository once.
    ///
    /// The results are in the order of the targets. A target that fails does not stop the others.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let targets = ["ghcr.io/acme/app:1".parse()?, "quay.io/acme/app:1".parse()?];
    /// let pushed = session.push(&"app.tar".parse()?, &targets).await?;
    /// for (position, error) in pushed.failures() {
    ///     eprintln!("{}: {error}", targets[position]);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of opening the image.
    pub async fn push(&self, from: &Location, to: &[Reference]) -> Result<PerTarget<Copied>> {
        let (root, _) = self.open_present(from).await?;
        let to: Vec<_> = to.iter().cloned().map(Location::Registry).collect();
        Ok(self.copy_root_to_each(&root, Some(from), &to).await)
    }

    /// Returns what [`Session::copy_root`] would do.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::Location;
    ///
    /// let root = session.open(&app).await?;
    /// let planned = session.plan(&root, &Location::layout(directory.path().join("new"))).await?;
    /// println!("would write {} bytes", planned.missing_bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn plan(&self, root: &Root, to: &Location) -> Result<Planned> {
        self.plan_root_to_each(root, None, std::slice::from_ref(to)).await.all().map(|mut planned| planned.remove(0))
    }

    /// Returns the part of a root that a copy to a location stores there: a docker archive holds one image for one
    /// platform, that of [`SessionOptions::archive`] or of this machine.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::{Location, Root};
    ///
    /// let root = session.open(&app).await?;
    /// let fitted = session.fit(&root, &Location::docker_archive("app.tar")).await?;
    /// assert!(matches!(fitted, Root::Image(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoPlatform`] if an index has no image for that platform, [`Error::Unsupported`] for an artifact.
    pub async fn fit(&self, root: &Root, to: &Location) -> Result<Root> {
        if !to.is_docker_archive() {
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
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use std::sync::Arc;
    /// use ocikit::{Memory, Sink};
    ///
    /// let memory: Arc<dyn Sink> = Arc::new(Memory::new());
    /// let copied = session.copy_to(&session.open(&app).await?, &memory, Vec::new()).await?;
    /// println!("{} blobs", copied.blobs.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
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
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// session.expect_transfer();
    /// let root = session.open(&"ghcr.io/acme/app:1".parse()?).await?;
    /// session.copy_root(&root, &"quay.io/acme/app:1".parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub fn expect_transfer(&self) {
        // The number of parallel requests of a copy: up to `2 * jobs` blobs, each with a query while its upload starts.
        self.remote.open_ahead(self.copy_options(Vec::new()).jobs.saturating_mul(4));
    }

    /// Returns the copy options of the session.
    ///
    /// ```
    /// let session = ocikit::Session::local(ocikit::SessionOptions::default().jobs(Some(2)));
    /// assert_eq!(session.copy_options(Vec::new()).jobs, 2);
    /// ```
    pub fn copy_options(&self, names: Vec<Naming>) -> CopyOptions {
        let SessionOptions { jobs, observer, referrers, only, recheck, keep_tags, foreign_layers, .. } = self.options();
        let default = CopyOptions::default();
        let jobs = jobs.unwrap_or(default.jobs);
        default
            .jobs(jobs)
            .names(names)
            .referrers(referrers.clone())
            .only(only.clone())
            .recheck(*recheck)
            .keep_tags(*keep_tags)
            .foreign_layers(*foreign_layers)
            .present(Arc::default())
            .observer(observer.clone())
    }

    /// Copies the image of an archive that is read from a pipe, compressed or not, while it arrives. A docker archive
    /// is first read to its end.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::Location;
    ///
    /// let archive = directory.path().join("app.tar");
    /// session.copy(&app, &Location::archive(&archive)).await?;
    /// let reader = std::fs::File::open(&archive)?; // or the standard output of a build
    /// session.receive(reader, &Location::layout(directory.path().join("received"))).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] and [`Error::Mismatch`] if the archive is incomplete or damaged, and those of the target.
    pub async fn receive(&self, reader: impl Read + Send + 'static, to: &Location) -> Result<Copied> {
        self.receive_to_each(reader, std::slice::from_ref(to)).await?.all().map(|mut copied| copied.remove(0))
    }
}

/// Returns the name of a root at the target of a copy.
pub(crate) fn naming(root: &Root, from: Option<&Location>, to: &Location) -> Result<Naming> {
    if let Name::Digest(digest) = to.name()
        && digest != root.digest()
    {
        let source = from.map_or_else(|| root.source().to_string(), ToString::to_string);
        return Err(Error::other_digest(to, source, root.digest()));
    }
    if let Some(reference) = to.reference() {
        return Ok(Naming::default().tag(reference.tag().cloned()));
    }
    Ok(match (to.name(), from) {
        (Name::Tag(tag), _) => Naming::of_tag(tag),
        (Name::Full(full), _) => {
            let reference = full.parse::<Reference>().ok();
            let tag = reference.as_ref().and_then(|reference| reference.tag().cloned());
            // Docker accepts full names only; other tools look for the name as it was given.
            let whole = reference.filter(|_| to.is_docker_archive());
            Naming::default().tag(tag).full(Some(whole.map_or(full, |whole| whole.to_string())))
        }
        (_, Some(Location::Registry(reference))) => {
            let tagged = |tag| Reference::tagged(reference.repository().clone(), tag).to_string();
            Naming::default().tag(reference.tag().cloned()).full(reference.tag().cloned().map(tagged))
        }
        _ => Naming::default(),
    })
}
