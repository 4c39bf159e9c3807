use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::join;
use ocikit_image::{
    AnnotateOptions, ArtifactKind, CopyOptions, Error, Mapped, Name, Naming, Orphan, Referrers, Result, Root, Sink,
    Source, SourceExt, Target, annotate_images, orphans, stage_to_each,
};
use ocikit_spec::{Descriptor, Digest, Document};

use crate::local::Local;
use crate::location::Location;
use crate::session::{Session, as_written, unsupported};

/// The result of [`Session::change`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Changed {
    /// The digest before.
    pub before: Digest,
    /// The changed root.
    pub after: Root,
    /// The new digest of each manifest and index that changed, by its old digest.
    pub replaced: HashMap<Digest, Digest>,
    /// BuildKit's attestation manifests of changed images, by their new digests. The statements in them still name the
    /// old digests.
    pub attestations: Vec<Digest>,
    /// The manifests and indexes of Docker's format with changed annotations, which docker ignores.
    pub docker_annotations: Vec<Digest>,
    /// The images whose SOCI index was dropped because their layers changed, by their new digests.
    pub dropped_soci: Vec<Digest>,
    /// Signatures and other referrers of a digest that the image no longer has.
    pub orphans: Vec<Orphan>,
    /// Why a registry did not list them. The image has been changed nevertheless.
    pub orphans_unknown: Option<Arc<Error>>,
}

impl Changed {
    /// Returns a change that is not stored yet, with the referrers that it would leave without their subject.
    ///
    /// # Errors
    ///
    /// Those of listing the referrers of the image.
    pub async fn planned(before: &Root, change: impl Into<Mapped>) -> Result<Changed> {
        let change = change.into();
        let listed = match change.root.digest() == before.digest() {
            true => Vec::new(),
            false => orphans(before, &change.root).await?,
        };
        Ok(Changed::of(before, change, Orphans { listed, unknown: None }))
    }

    fn of(before: &Root, change: Mapped, orphans: Orphans) -> Changed {
        let Mapped { root: after, replaced, attestations, docker_annotations, dropped_soci, .. } = change;
        let (before, Orphans { listed: orphans, unknown: orphans_unknown }) = (before.digest(), orphans);
        Changed { before, after, replaced, attestations, docker_annotations, dropped_soci, orphans, orphans_unknown }
    }
}

impl Session {
    /// Changes an image in place: a local archive or layout is modified, a tag in a registry is moved to the new manifest
    /// if it still leads to the old one. The change gets the root and returns a new one, or what
    /// [`map_images`](ocikit_image::map_images) returned.
    ///
    /// An archive or layout is locked until the change is complete. What the place has already is not transferred. An
    /// archive without `manifest.json` gets the one of [`TarOptions::docker`](ocikit_layout::TarOptions::docker), so that
    /// `docker load` reads it like a written archive.
    ///
    /// ```no_run
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::image::{Image, Selection, map_images};
    ///
    /// let label = async |image: Image| image.edit().config(|c| c.label("team", "web")).finish().await;
    /// let change = async |root| map_images(&root, &Selection::all(), label).await;
    /// let changed = session.change(&"app.tar".parse()?, change).await?;
    /// println!("{} replaces {}", changed.after.digest(), changed.before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place and of the change; [`Error::Unsupported`](ocikit_image::Error::Unsupported) for a location with a digest;
    /// [`Error::Conflict`](ocikit_image::Error::Conflict) if another client moved the tag of a registry at the same time.
    pub async fn change<F, New, C>(&self, location: &Location, change: F) -> Result<Changed>
    where
        F: FnOnce(Root) -> New + Send,
        New: Future<Output = Result<C>> + Send,
        C: Into<Mapped>,
    {
        let sink = self.lock_in_place(location).await?;
        let root = as_written(location, Root::open(sink.clone(), &location.name()).await)?;
        let changed: Mapped = change(root.clone()).await?.into();
        // Referrers and unchanged entries are there already.
        let present: HashSet<_> = match &root {
            Root::Index(index) => index.manifests().iter().map(|entry| entry.digest).collect(),
            Root::Image(_) | Root::Other(_) => HashSet::new(),
        };
        let options =
            self.copy_options(Vec::new()).referrers(Referrers::None).only(Vec::new()).present(Arc::new(present));
        let orphans = replace(location, &sink, &root, &changed.root, options).await?;
        Ok(Changed::of(&root, changed, orphans))
    }

    /// Changes annotations of an image in place; see [`Session::change`].
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::AnnotateOptions;
    ///
    /// let set = vec![("org.opencontainers.image.revision".to_owned(), "6c22711".to_owned())];
    /// let changed = session.annotate(&app, &AnnotateOptions::default().set(set)).await?;
    /// assert_eq!(session.open(&app).await?.digest(), changed.after.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::change`] and of [`annotate`](ocikit_image::annotate()).
    pub async fn annotate(&self, location: &Location, options: &AnnotateOptions) -> Result<Changed> {
        self.change(location, |root| async move { annotate_images(&root, options).await }).await
    }

    /// Stores copies of the referrers that [`Session::change`] left, with the new digests as their subjects, and returns
    /// them. The old ones are kept.
    ///
    /// Signatures and in-toto attestations are left out, because what they contain names the old digest, as are manifests
    /// under cosign's tags, and referrers of an image that no longer has a successor.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::{AnnotateOptions, ArtifactBuilder};
    ///
    /// session.attach(&app, None, ArtifactBuilder::new("application/vnd.example.sbom").layer_bytes("text/plain", "sbom")).await?;
    /// let set = vec![("team".to_owned(), "web".to_owned())];
    /// let changed = session.annotate(&app, &AnnotateOptions::default().set(set)).await?;
    /// let updated = session.update_referrers(&app, &changed).await?;
    /// assert_eq!((changed.orphans.len(), updated.len()), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place.
    pub async fn update_referrers(&self, location: &Location, changed: &Changed) -> Result<Vec<Descriptor>> {
        let source = self.source(location).await?;
        let mut updated = Vec::new();
        for Orphan { subject, referrer, tag, .. } in &changed.orphans {
            let Some(new) = changed.replaced.get(subject).filter(|_| tag.is_none()) else { continue };
            let root = Root::at(source.clone(), referrer.clone()).await?;
            if ArtifactKind::of(&root).may_name_its_subject() {
                continue;
            }
            // New documents are held in memory.
            let size = match changed.after.source().held(new) {
                Some(bytes) => bytes.len() as u64,
                None if changed.after.digest() == *new => changed.after.descriptor().size,
                None => continue,
            };
            updated.push(root.with_subject(new, size)?);
        }
        if updated.is_empty() {
            return Ok(Vec::new());
        }
        let sink = self.edit(location).await?;
        let roots: Vec<_> = updated.iter().map(|root| (root.clone(), vec![Naming::default()])).collect();
        let options = self.copy_options(Vec::new()).referrers(Referrers::None);
        ocikit_image::copy_all(&roots, &sink, &options).await?;
        Ok(updated.iter().map(|root| root.descriptor().clone()).collect())
    }

    /// Removes the referrers that [`Session::change`] left without their subject, and returns how many. In an archive
    /// or layout, those whose subject is still listed are kept. A registry does not tell which tags lead to a subject,
    /// so all of them are removed there.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// use ocikit::{AnnotateOptions, ArtifactBuilder};
    ///
    /// session.attach(&app, None, ArtifactBuilder::new("application/vnd.example.sbom").layer_bytes("text/plain", "sbom")).await?;
    /// let set = vec![("team".to_owned(), "web".to_owned())];
    /// let changed = session.annotate(&app, &AnnotateOptions::default().set(set)).await?;
    /// assert_eq!(session.drop_referrers(&app, &changed.orphans).await?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Refused`](ocikit_image::Error::Refused) by registries that do not support deletion.
    pub async fn drop_referrers(&self, location: &Location, orphans: &[Orphan]) -> Result<usize> {
        let Some(local) = Local::of(location) else {
            let reference = location.reference().ok_or_else(|| unsupported(location, "it cannot be changed"))?;
            for orphan in orphans {
                // Deleting the manifest also deletes its tag, and many registries cannot delete a tag alone.
                self.remote.delete_manifest(reference, &orphan.referrer.digest).await?;
            }
            return Ok(orphans.len());
        };
        let place = self.open_local(&local).await?;
        let mut dropped = 0;
        for (name, count) in removable(place.source(), orphans).await? {
            match place.remove(&name).await {
                Ok(_) => dropped += count,
                // It was removed with another one.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        place.finish().await?;
        Ok(dropped)
    }
}

/// The referrers that a change left without their subject.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    pub(crate) listed: Vec<Orphan>,
    /// Why they could not be listed.
    pub(crate) unknown: Option<Arc<Error>>,
}

/// Stores a changed root in place of the one that it was made of, and returns the referrers that are left without their
/// subject. All changes in place end here.
///
/// An archive or layout has been locked since it was read. A registry has no lock: [`Sink::publish`] moves the tag only
/// if it leads to the root that was changed, and reads it back to find out whether another client moved it too.
///
/// # Errors
///
/// Those of the place; [`Error::Conflict`](ocikit_image::Error::Conflict) if another client moved the tag.
pub(crate) async fn replace(
    location: &Location,
    sink: &Arc<dyn Sink>,
    before: &Root,
    after: &Root,
    options: CopyOptions,
) -> Result<Orphans> {
    if after.digest() == before.digest() {
        // Releases the lock, which the returned root would keep.
        sink.finish().await?;
        return Ok(Orphans::default());
    }
    let tag = match location.name() {
        Name::Tag(tag) => Some(tag),
        Name::Only | Name::Full(_) | Name::Digest(_) => None,
    };
    let naming = Naming::default().tag(tag).replaces(Some(before.digest()));
    sink.announce(after.descriptor(), &naming);
    // The tag leads to the old root, so that there is nothing to be found under it.
    let options = options.recheck(true);
    let target = Target { sink: sink.clone(), names: vec![naming] };
    let staged = stage_to_each(after, &[target], &options).await.all()?.remove(0);
    let listed = orphans(before, after);
    match sink.keeps_order() {
        true => {
            let listed = listed.await?;
            staged.publish_all().await?;
            Ok(Orphans { listed, unknown: None })
        }
        // A registry that does not list them does not prevent the change, and is not waited for before the tag moves.
        false => {
            let (stored, listed) = join(staged.publish_all(), listed).await;
            stored?;
            Ok(match listed {
                Ok(listed) => Orphans { listed, unknown: None },
                Err(error) => Orphans { listed: Vec::new(), unknown: Some(Arc::new(error)) },
            })
        }
    }
}

/// Returns the names to remove from the list of an archive or layout, and the number of orphans that each removes: the
/// list of referrers of a subject is removed as a whole.
async fn removable(place: &dyn Source, orphans: &[Orphan]) -> Result<Vec<(Name, usize)>> {
    let mut names = Vec::new();
    let mut gone = HashMap::new();
    for Orphan { subject, referrer, tag, .. } in orphans {
        let is_gone = match gone.get(subject) {
            Some(is_gone) => *is_gone,
            None => {
                let is_gone = match place.resolve(&Name::Digest(*subject)).await {
                    Ok(_) => false,
                    Err(error) if error.is_not_found() => true,
                    Err(error) => return Err(error),
                };
                gone.insert(*subject, is_gone);
                is_gone
            }
        };
        // A referrer of an orphan is removed as well, although the orphan is still listed at this point.
        let is_orphan = orphans.iter().any(|orphan| orphan.referrer.digest == *subject);
        if !is_gone && !is_orphan {
            continue;
        }
        let list = format!("{}-{}", subject.algorithm().name(), subject.hex()).parse().ok().map(Name::Tag);
        if let Some(list) = list
            && let Ok(found) = place.resolve(&list).await
            && let Ok(Document::Index(index)) = place.document(&found).await
            && index.manifests().iter().any(|entry| entry.digest == referrer.digest)
        {
            match names.iter_mut().find(|(name, _)| *name == list) {
                Some((_, count)) => *count += 1,
                None => names.push((list, 1)),
            }
            continue;
        }
        names.push((tag.clone().map_or(Name::Digest(referrer.digest), Name::Tag), 1));
    }
    Ok(names)
}
