use std::sync::Arc;

use ocikit_image::{Body, ByteRange, Result, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, MediaType};

use crate::location::Location;
use crate::session::Session;

impl Session {
    /// Returns the descriptor of a blob in a repository, layout or archive, without reading it. The media type is that of any
    /// bytes.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// let root = session.open(&app).await?;
    /// let found = session.find_blob(&app, &root.digest()).await?;
    /// assert_eq!(found.size, root.descriptor().size);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`](ocikit_image::Error::NotFound) if the place does not have it; those of the place.
    pub async fn find_blob(&self, location: &Location, digest: &Digest) -> Result<Descriptor> {
        Ok(self.locate_blob(location, digest).await?.1)
    }

    async fn locate_blob(&self, location: &Location, digest: &Digest) -> Result<(Arc<dyn Source>, Descriptor)> {
        let source = self.source(location).await?;
        if let Location::Registry(reference) = location {
            return Ok((source, self.remote.find_blob(reference, digest).await?));
        }
        let blob = Descriptor::new(MediaType::OCTET_STREAM, *digest, 0);
        let size = source.open_unverified(&blob, ByteRange::ALL).await?.length();
        Ok((source, Descriptor { size, ..blob }))
    }

    /// Opens a blob of a repository, layout or archive by its digest alone. The bytes are checked while they are read.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// let root = session.open(&app).await?;
    /// let bytes = session.open_blob(&app, &root.digest()).await?.bytes().await?;
    /// assert_eq!(bytes.len() as u64, root.descriptor().size);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::find_blob`] and of the place.
    pub async fn open_blob(&self, location: &Location, digest: &Digest) -> Result<Body> {
        let (source, blob) = self.locate_blob(location, digest).await?;
        source.open(&blob).await
    }
}
