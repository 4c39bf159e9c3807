use std::sync::Arc;

use bytes::Bytes;
use ocikit_image::{ByteRange, Error, Memory, Mismatch, Name, Naming, Put, Result, Sink, SourceExt};
use ocikit_layout::BlobFile;
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Tag};

use crate::location::Location;
use crate::session::{Session, as_written, unsupported};

/// Maximum number of times that a tag is read after it was set.
const MAX_TAG_READS: usize = 5;

/// Checks that a registry has a tag that it accepted. The tag may have moved on since then, which is another error.
async fn check_tag(sink: &dyn Sink, tag: &Tag, root: &Descriptor) -> Result<()> {
    if sink.is_complete(root, &Naming::of_tag(tag.clone())).await? {
        return Ok(());
    }
    // Replicas and caches can lag behind.
    let mut found = None;
    for _ in 0..MAX_TAG_READS {
        found = sink.tagged_later(tag).await?;
        if found.as_ref().is_some_and(|found| found.digest == root.digest) {
            return Ok(());
        }
    }
    match found {
        Some(found) => Err(Error::other_digest(format!("{sink}@{}", root.digest), format!("tag {tag}"), found.digest)),
        None => Err(Error::protocol(sink, format!("it accepted the tag {tag} and does not return it"))),
    }
}

impl Session {
    /// Opens an existing place to change it; its contents are kept. An archive is locked until its sink is finished or
    /// dropped, so that no parallel edit is lost.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::Naming;
    ///
    /// let place = session.edit(&app).await?;
    /// let root = session.open(&app).await?;
    /// session.copy_to(&root, &place, vec![Naming::of_tag("stable".parse()?)]).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for docker archives and pipes.
    pub async fn edit(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        as_written(location, self.open_in_place(location).await)
    }

    /// Adds tags to an image in its place. In a registry this takes one request for the manifest and two for each tag, to
    /// set it and to check it, whatever the size of the image.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// session.tag(&app, &["1.0".parse()?, "stable".parse()?]).await?;
    /// assert!(session.names(&app).await?.contains(&"stable".to_owned()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Protocol`] if a registry accepts a tag and does not have it afterwards;
    /// [`Error::NotFound`] if the image does not exist, [`Error::Document`] if the name leads to
    /// something else than a manifest or index.
    pub async fn tag(&self, location: &Location, tags: &[Tag]) -> Result<Descriptor> {
        let sink = self.edit(location).await?;
        let root = as_written(location, sink.find_root(&location.name()).await)?;
        for tag in tags {
            sink.publish(&root, &Naming::of_tag(tag.clone())).await?;
        }
        sink.finish().await?;
        for tag in tags.iter().filter(|_| !sink.keeps_order()) {
            check_tag(&*sink, tag, &root).await?;
        }
        Ok(root)
    }

    /// Stores a manifest or index, byte for byte, under the tag of a location if it has one. Everything that it lists
    /// must already exist: the blobs of a manifest, the manifests of an index. Registries check that themselves.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::Name;
    ///
    /// let root = session.open(&app).await?;
    /// let manifest = root.document().ok_or("it is a manifest")?.bytes().clone();
    /// let stored = session.put_manifest(manifest, None, &app.with_name(Name::Tag("again".parse()?))).await?;
    /// assert_eq!(stored.digest, root.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the bytes are no manifest or index, or not of the given media type;
    /// [`Error::OtherDigest`] if the location has another digest; [`Error::NotFound`] if a child is missing;
    /// [`Error::Mismatch`] if one has another size; and those of the place.
    pub async fn put_manifest(
        &self,
        manifest: impl Into<Bytes>,
        media_type: Option<MediaType>,
        location: &Location,
    ) -> Result<Descriptor> {
        let bytes = manifest.into();
        let descriptor = describe(&bytes, media_type)?;
        if let Name::Digest(wanted) = location.name()
            && wanted != descriptor.digest
        {
            return Err(Error::other_digest(location, "the manifest", descriptor.digest));
        }
        let tag = match (location.reference(), location.name()) {
            (Some(reference), _) => reference.tag().cloned(),
            (None, Name::Tag(tag)) => Some(tag),
            (None, Name::Only | Name::Full(_) | Name::Digest(_)) => None,
        };
        let memory = Memory::new();
        memory.insert(bytes);
        let sink = self.edit(location).await?;
        if location.reference().is_none() {
            has_children(&sink, &descriptor, &memory).await?;
        }
        // The last expected descriptor is uploaded once, under its tag.
        sink.expect(std::slice::from_ref(&descriptor)).await?;
        sink.put(&descriptor, &memory).await?;
        sink.publish(&descriptor, &Naming::default().tag(tag)).await?;
        sink.finish().await?;
        Ok(descriptor)
    }

    /// Stores a blob, which no manifest has to list, in a repository or a layout directory.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::{BlobFile, Put};
    ///
    /// let file = directory.path().join("notes.txt");
    /// std::fs::write(&file, "notes")?;
    /// assert_eq!(session.put_blob(&BlobFile::open(file).await?, &app).await?, Put::Copied);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for archives, which keep only the blobs of their images.
    pub async fn put_blob(&self, blob: &BlobFile, location: &Location) -> Result<Put> {
        match location {
            Location::Archive { .. } => Err(unsupported(location, ARCHIVES_KEEP_IMAGES)),
            Location::Path { path, .. } if !path.is_dir() => Err(unsupported(location, ARCHIVES_KEEP_IMAGES)),
            Location::Layout { .. }
            | Location::DockerArchive { .. }
            | Location::Path { .. }
            | Location::Registry(_)
            | Location::Stdio => self.edit(location).await?.put(blob.descriptor(), blob).await,
        }
    }
}

/// Returns an error if a child of a manifest or index is missing or has another size. Non-distributable layers and the subject may be
/// missing.
async fn has_children(sink: &Arc<dyn Sink>, descriptor: &Descriptor, memory: &Memory) -> Result<()> {
    let document = memory.document(descriptor).await?;
    for child in document.children().filter(|child| child.urls.is_empty() || !child.media_type.is_foreign_layer()) {
        if !sink.has(child).await? {
            return Err(Error::not_found(format!("{}, which the manifest lists", child.digest), sink));
        }
        let actual = sink.open_unverified(child, ByteRange::ALL).await?.length();
        if actual != child.size {
            return Err(Error::mismatch(&child.digest, sink, Mismatch::Size { expected: child.size, actual }));
        }
    }
    Ok(())
}

const ARCHIVES_KEEP_IMAGES: &str = "an archive keeps only the blobs of its images";

/// Returns the descriptor of a manifest or index, with its own media type or the given one.
///
/// ```
/// let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
/// let descriptor = ocikit::describe(manifest, None)?;
/// assert_eq!(descriptor.media_type, ocikit::MediaType::OCI_INDEX);
/// # Ok::<(), ocikit::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Document`] if the bytes are no manifest or index, or not of that media type.
pub fn describe(manifest: &[u8], media_type: Option<MediaType>) -> Result<Descriptor> {
    let bytes = Bytes::copy_from_slice(manifest);
    let refuse = |source| Error::document(&Digest::sha256_of(manifest), "the manifest", source);
    let media_type = match media_type {
        Some(stated) => Document::parse_exactly(&stated, bytes).map(|_| stated).map_err(refuse)?,
        None => Document::sniff(bytes).map_err(refuse)?.0,
    };
    Ok(Descriptor::of(media_type, manifest))
}
