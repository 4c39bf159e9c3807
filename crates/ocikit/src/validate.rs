use std::sync::Arc;

use ocikit_image::{Error, Name, Report, Result, Scope, Source, SourceExt, ValidateOptions, validate};
use ocikit_layout::{Collected, Dir, GcOptions, docker_disagreement, gc, open_all};

use crate::location::Location;
use crate::session::{Session, unsupported};

impl Session {
    /// Validates a location: an archive or layout without a name is validated with everything in it, any other location
    /// with everything below its root.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::ValidateOptions;
    ///
    /// let report = session.validate(&app, &ValidateOptions::default()).await?;
    /// assert!(report.is_valid(), "{:?}", report.problems);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotFound`](ocikit_image::Error::NotFound) and [`Broken`](ocikit_image::Error::Broken) if the place cannot be
    /// opened, and those of [`validate`].
    pub async fn validate(&self, location: &Location, options: &ValidateOptions) -> Result<Report> {
        if *location == Location::Stdio {
            return Err(Error::pipe(location));
        }
        if let (Name::Only, Some(path)) = (location.name(), location.path()) {
            let (source, inventory): (Arc<dyn Source>, _) = if path.is_dir() {
                let dir = self.shared(Dir::open(path).await?);
                let inventory = dir.inventory().await?;
                (Arc::new(dir), inventory)
            } else {
                open_all(path, &self.scratch()).await?
            };
            return validate(&source, &Scope::Everything(inventory), options).await;
        }
        let source = self.source(location).await?;
        let root = source.find(&location.name()).await?;
        validate(&source, &Scope::Root(Box::new(root)), options).await
    }

    /// Returns why docker reads another image of an archive than OCI tools do, in words for the user: its `manifest.json`
    /// lists one that its `index.json` does not have, and that no signature covers. `None` for every other location.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(problem) = session.docker_disagreement(&"app.tar".parse()?).await? {
    ///     eprintln!("{problem}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of opening the archive.
    pub async fn docker_disagreement(&self, location: &Location) -> Result<Option<String>> {
        match location {
            Location::Archive { path, .. } | Location::Path { path, .. } if !path.is_dir() => {
                docker_disagreement(path, &self.scratch()).await
            }
            Location::Archive { .. }
            | Location::Path { .. }
            | Location::Layout { .. }
            | Location::DockerArchive { .. }
            | Location::Registry(_)
            | Location::Stdio => Ok(None),
        }
    }

    /// Removes unreferenced blobs from an archive or layout.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use std::time::SystemTime;
    /// use ocikit::GcOptions;
    ///
    /// let collected = session.gc(&app, &GcOptions::at(SystemTime::now())).await?;
    /// assert!(collected.removed.is_empty(), "everything is referenced");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`gc`]; [`Unsupported`](ocikit_image::Error::Unsupported) for other locations, and for layouts that
    /// share their blobs.
    pub async fn gc(&self, location: &Location, options: &GcOptions) -> Result<Collected> {
        match location {
            _ if self.options().shared_blobs.is_some() => {
                Err(unsupported(location, "its blobs are shared with other layouts, whose needs are unknown"))
            }
            Location::Layout { path, .. } | Location::Archive { path, .. } | Location::Path { path, .. } => {
                gc(path, options).await
            }
            Location::Stdio => Err(Error::pipe(location)),
            Location::DockerArchive { .. } | Location::Registry(_) => {
                Err(unsupported(location, "it is neither an OCI archive nor an OCI layout"))
            }
        }
    }
}
