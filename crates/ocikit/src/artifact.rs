use std::path::Path;
use std::sync::Arc;

use ocikit_image::{ArtifactBuilder, Index, Naming, PullOptions, Pulled, Referrers, Result, Root, Sink, pull_files};
use ocikit_spec::Platform;

use crate::location::Location;
use crate::session::{Session, as_written};

impl Session {
    /// Stores an artifact as a referrer of an image, for example an SBOM or a test report. Returns the artifact and its
    /// subject.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::ArtifactBuilder;
    ///
    /// let mut sbom = ArtifactBuilder::new("application/spdx+json");
    /// sbom.layer_bytes("application/spdx+json", r#"{"spdxVersion":"SPDX-2.3"}"#);
    /// let (stored, subject) = session.attach(&app, None, &sbom).await?;
    /// println!("{} is about {}", stored.digest(), subject.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::NoPlatform`](ocikit_image::Error::NoPlatform) if the location has no image for the
    /// platform.
    pub async fn attach(
        &self,
        location: &Location,
        platform: Option<&Platform>,
        artifact: &ArtifactBuilder,
    ) -> Result<(Root, Root)> {
        // An archive or layout is locked before the image is read, so that no other process changes it in between.
        let place = self.edit(location).await?;
        let mut subject = as_written(location, Root::open(place.clone(), &location.name()).await)?;
        if let Some(platform) = platform {
            subject = subject.for_platform(platform).await?;
        }
        let root = artifact.clone().subject(subject.descriptor()).finish(subject.source())?;
        self.store_in(&place, std::slice::from_ref(&root)).await?;
        Ok((root, subject))
    }

    /// Stores roots as referrers in the place of an image: manifests with a subject that the place has.
    ///
    /// ```no_run
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use ocikit::{Client, ClientOptions, Session, SessionOptions};
    ///
    /// let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default());
    /// let app = "ghcr.io/acme/app:1".parse()?;
    /// let sboms = [session.open(&"oci:sboms:app".parse()?).await?];
    /// session.store_referrers(&app, &sboms).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place and of the sources.
    pub async fn store_referrers(&self, location: &Location, referrers: &[Root]) -> Result<()> {
        self.store_in(&self.edit(location).await?, referrers).await
    }

    async fn store_in(&self, place: &Arc<dyn Sink>, referrers: &[Root]) -> Result<()> {
        let options = self.copy_options(vec![Naming::default()]).referrers(Referrers::None).only(Vec::new());
        for root in referrers {
            ocikit_image::copy(root, place, &options).await?;
        }
        Ok(())
    }

    /// Writes the files of an artifact to a directory; see [`pull_files`]. Of an index, the entry for the platform is
    /// used.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::{ArtifactBuilder, ArtifactFile, Location, PullOptions};
    ///
    /// let notes = directory.path().join("notes.txt");
    /// std::fs::write(&notes, "notes")?;
    /// let mut builder = ArtifactBuilder::new("application/vnd.example.notes");
    /// let artifact = builder.files(&[ArtifactFile::new(notes)], Default::default()).await?.build()?;
    /// let place = Location::layout(directory.path().join("layout"));
    /// session.copy_root(&artifact, &place).await?;
    ///
    /// let target = directory.path().join("pulled");
    /// std::fs::create_dir(&target)?;
    /// let (_, pulled) = session.pull_files(&place, None, &target, &PullOptions::default()).await?;
    /// assert_eq!(pulled.files.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place and of [`pull_files`].
    pub async fn pull_files(
        &self,
        location: &Location,
        platform: Option<&Platform>,
        directory: &Path,
        options: &PullOptions,
    ) -> Result<(Root, Pulled)> {
        let mut root = self.open(location).await?;
        if let (Root::Index(index), Some(platform)) = (&root, platform) {
            root = entry_for(index, platform).await?;
        }
        let pulled = pull_files(&root, directory, options).await?;
        Ok((root, pulled))
    }
}

/// Opens the entry of an index with the best rank for a platform, which need not be an image.
async fn entry_for(index: &Index, platform: &Platform) -> Result<Root> {
    let entries = index.manifests().iter();
    let ranked = entries.filter_map(|entry| Some((platform.rank(entry.platform.as_ref()?)?, entry)));
    match ranked.min_by_key(|(rank, _)| *rank) {
        Some((_, entry)) => index.open(entry).await,
        None => Ok(Root::Image(index.image_for(platform).await?)),
    }
}
