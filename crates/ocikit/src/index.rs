use std::collections::HashSet;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ocikit_image::{
    ComposeOptions, Composed, Copied, CopyOptions, Error, Index, Member, Naming, Orphan, Referrers, Result, Root, Sink,
    add_to_index, create_index, orphans, remove_from_index,
};
use ocikit_spec::{Annotations, Descriptor, Digest, MediaType, Platform};

use crate::in_place::{Orphans, replace};
use crate::location::Location;
use crate::session::{Session, as_written, unsupported};
use crate::transfer::naming;

/// The number of sources of an index that are opened in parallel.
const CONCURRENT_OPENS: usize = 8;

/// An image, artifact or index to add to an index, and where it is.
///
/// ```
/// use ocikit::{IndexSource, Location};
///
/// let source = IndexSource::new(Location::archive("app.tar")).platforms(vec!["linux/amd64".parse()?]);
/// assert!(source.platform.is_none(), "that of the config");
/// # Ok::<(), ocikit::spec::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IndexSource {
    /// Where it is.
    pub location: Location,
    /// The platforms to take from an index, with the attestation manifests of their images; all if empty.
    pub platforms: Vec<Platform>,
    /// The platform of the entry. By default it is that of the config of the image.
    pub platform: Option<Platform>,
    /// Annotations of the new entries.
    pub annotations: Annotations,
}

ocikit_spec::setters! {
    IndexSource {
        location: Location,
        platforms: Vec<Platform>,
        platform: Option<Platform>,
        annotations: Annotations,
    }
}

impl IndexSource {
    /// Returns the source at a location, with the platform of its config.
    pub fn new(location: Location) -> IndexSource {
        IndexSource { location, platforms: Vec::new(), platform: None, annotations: Annotations::new() }
    }
}

/// The result of [`Session::add_to_index`] and [`Session::remove_from_index`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IndexChange {
    /// The digest before.
    pub before: Digest,
    /// The changed index, with its new and removed entries.
    pub composed: Composed,
    /// Signatures and other referrers of a digest that the index no longer has.
    pub orphans: Vec<Orphan>,
    /// Why a registry did not list them. The index has been changed nevertheless.
    pub orphans_unknown: Option<Arc<Error>>,
}

impl IndexChange {
    /// Returns a change that is not stored yet, with the referrers that it would leave without their subject.
    ///
    /// # Errors
    ///
    /// Those of listing the referrers of the index.
    pub async fn planned(before: &Index, composed: Composed) -> Result<IndexChange> {
        let after = Root::Index(composed.index.clone());
        let orphans = orphans(&Root::Index(before.clone()), &after).await?;
        Ok(IndexChange { before: before.digest(), composed, orphans, orphans_unknown: None })
    }
}

impl Session {
    /// Returns an index of images from any places, which is not stored yet. See [`create_index`].
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::{ComposeOptions, IndexSource};
    ///
    /// let composed = session.compose_index(&[IndexSource::new(app)], &ComposeOptions::default()).await?;
    /// assert_eq!(composed.index.manifests()[0].platform, Some("linux/amd64".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of opening the sources and of [`create_index`].
    pub async fn compose_index(&self, sources: &[IndexSource], options: &ComposeOptions) -> Result<Composed> {
        create_index(&self.members(sources).await?, options).await
    }

    /// Returns an index with additional images, which is not stored yet. See [`add_to_index`].
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::{ComposeOptions, IndexSource, OnDuplicate};
    ///
    /// let options = ComposeOptions::default().on_duplicate(OnDuplicate::Replace);
    /// let sources = [IndexSource::new(app)];
    /// let index = session.compose_index(&sources, &options).await?.index;
    /// let extended = session.extend_index(&index, &sources, &options).await?;
    /// assert_eq!(extended.index.digest(), index.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of opening the sources and of [`add_to_index`].
    pub async fn extend_index(
        &self,
        index: &Index,
        sources: &[IndexSource],
        options: &ComposeOptions,
    ) -> Result<Composed> {
        add_to_index(index, &self.members(sources).await?, options).await
    }

    /// Stores a composed index with everything below it. What is in the target repository already is neither read nor
    /// transferred; layers in another repository of the registry are mounted.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// use ocikit::{ComposeOptions, IndexSource, Location};
    ///
    /// let composed = session.compose_index(&[IndexSource::new(app)], &ComposeOptions::default()).await?;
    /// session.store_index(&composed.index, &Location::layout(directory.path().join("all"))).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the places; [`Error::OtherDigest`](ocikit_image::Error::OtherDigest) if `to` has another digest.
    pub async fn store_index(&self, index: &Index, to: &Location) -> Result<Copied> {
        let root = self.fit(&Root::Index(index.clone()), to).await?;
        let name = naming(&root, None, to)?;
        let sink = self.sink(to).await?;
        if root.digest() == index.digest() && root.source().is_new(&root.digest()) {
            sink.announce(root.descriptor(), &name);
        }
        ocikit_image::copy(&root, &sink, &self.index_options(index, &sink, vec![name])).await
    }

    /// Adds images from any places to an index in its place: an archive or layout is modified, a tag in a registry is
    /// moved to the new index.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// # use ocikit::{ComposeOptions, IndexSource, Location};
    /// # let all = Location::layout(directory.path().join("all"));
    /// # let index = session.compose_index(&[IndexSource::new(app.clone())], &ComposeOptions::default()).await?.index;
    /// # session.store_index(&index, &all).await?;
    /// # let riscv = Location::layout(directory.path().join("riscv"));
    /// # let image = ocikit::Image::empty(&"linux/riscv64".parse()?)?;
    /// # session.copy_root(&image.into(), &riscv).await?;
    /// let change = session.add_to_index(&all, &[IndexSource::new(riscv)], &ComposeOptions::default()).await?;
    /// assert_eq!(change.composed.index.manifests().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the places and of [`add_to_index`]; [`Error::Unsupported`](ocikit_image::Error::Unsupported) if the location
    /// has no index, or selects it by digest.
    pub async fn add_to_index(
        &self,
        location: &Location,
        sources: &[IndexSource],
        options: &ComposeOptions,
    ) -> Result<IndexChange> {
        // Before the archive is locked, in case a source is in it.
        let members = self.members(sources).await?;
        let (sink, index) = self.open_index(location).await?;
        let composed = add_to_index(&index, &members, options).await?;
        self.finish_index(location, &sink, index, composed).await
    }

    /// Removes entries from an index in its place, with the attestation manifests of the removed images. Their manifests
    /// and layers are kept.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// # let directory = tempfile::tempdir()?;
    /// # use ocikit::{ComposeOptions, IndexSource, Location};
    /// # let all = Location::layout(directory.path().join("all"));
    /// # let index = session.compose_index(&[IndexSource::new(app.clone())], &ComposeOptions::default()).await?.index;
    /// # session.store_index(&index, &all).await?;
    /// let change = session.remove_from_index(&all, &[], &["linux/amd64".parse()?]).await?;
    /// assert!(change.composed.index.manifests().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place and of [`remove_from_index`]; [`Error::Unsupported`](ocikit_image::Error::Unsupported) if the
    /// location has no index, or selects it by digest.
    pub async fn remove_from_index(
        &self,
        location: &Location,
        digests: &[Digest],
        platforms: &[Platform],
    ) -> Result<IndexChange> {
        let (sink, index) = self.open_index(location).await?;
        let composed = remove_from_index(&index, digests, platforms)?;
        self.finish_index(location, &sink, index, composed).await
    }

    async fn members(&self, sources: &[IndexSource]) -> Result<Vec<Member>> {
        let open = |source: IndexSource| async move {
            let mut member = Member::new(self.open_present(&source.location).await?.0);
            (member.platforms, member.platform) = (source.platforms, source.platform);
            member.annotations = source.annotations;
            Ok(member)
        };
        // Boxed, because the compiler cannot prove that the futures over borrowed sources are general enough otherwise.
        let members: Vec<_> = sources.iter().cloned().map(|source| open(source).boxed()).collect();
        stream::iter(members).buffered(CONCURRENT_OPENS).try_collect().await
    }

    /// Opens the index of a location for a change. An archive or layout is locked before it is read.
    async fn open_index(&self, location: &Location) -> Result<(Arc<dyn Sink>, Index)> {
        let sink = self.lock_in_place(location).await?;
        match as_written(location, Root::open(sink.clone(), &location.name()).await)? {
            Root::Index(index) => Ok((sink, index)),
            other => {
                let kind = &other.descriptor().media_type;
                Err(unsupported(location, &format!("{} is of type {kind} and not an index", other.digest())))
            }
        }
    }

    async fn finish_index(
        &self,
        location: &Location,
        sink: &Arc<dyn Sink>,
        index: Index,
        composed: Composed,
    ) -> Result<IndexChange> {
        let (before, after) = (Root::Index(index), Root::Index(composed.index.clone()));
        let options = self.index_options(&composed.index, sink, Vec::new());
        let Orphans { listed: orphans, unknown: orphans_unknown } =
            replace(location, sink, &before, &after, options).await?;
        Ok(IndexChange { before: before.digest(), composed, orphans, orphans_unknown })
    }

    /// Returns the options of a copy that leaves out the entries that are in the target repository already.
    fn index_options(&self, index: &Index, sink: &Arc<dyn Sink>, names: Vec<Naming>) -> CopyOptions {
        let options = self.copy_options(names).only(Vec::new());
        // A registry states its repository for blobs only.
        let any_blob = |digest| Descriptor::new(MediaType::OCTET_STREAM, digest, 0);
        let Some(target) = sink.repository(&any_blob(index.digest())).cloned() else { return options };
        let source = index.source();
        let is_present = |entry: &&Descriptor| source.repository(&any_blob(entry.digest)) == Some(&target);
        let present: HashSet<_> = index.manifests().iter().filter(is_present).map(|entry| entry.digest).collect();
        let all = index.manifests().iter().all(|entry| present.contains(&entry.digest));
        let referrers = if all { Referrers::None } else { options.referrers.clone() };
        let recheck = all || options.recheck;
        options.present(Arc::new(present)).referrers(referrers).recheck(recheck)
    }
}
