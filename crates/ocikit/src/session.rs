use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_image::{
    AnnotateOptions, Copied, CopyOptions, Error, Mismatch, Name, Naming, Observer, Orphan, PerTarget, Planned,
    Referrers, Result, Root, Sink, Source, SourceExt, annotate, orphans,
};
use ocikit_layout::{Compression, Dir, DockerList, OutputFile, Scratch, TarEdit, TarOptions, TarWriter};
use ocikit_registry::Client;
use ocikit_spec::{Descriptor, Digest, Document, Platform, Reference, Repository, Tag};

use crate::inspect::{Inspection, inspect};
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
    /// What goes along with what is copied.
    pub referrers: Referrers,
    /// Of indexes, only the images for these platforms are copied, if any are named; see [`CopyOptions::only`].
    pub only: Vec<Platform>,
    /// Whether every part is looked for although a target has the image by its name; see [`CopyOptions::recheck`].
    pub recheck: bool,
    /// Whether tags of a target that stand for signatures, attestations and lists of referrers stay as they are; see
    /// [`CopyOptions::keep_tags`].
    pub keep_tags: bool,
    /// Whether layers that may not be distributed are copied; see [`CopyOptions::foreign_layers`].
    pub foreign_layers: bool,
    /// How archives are written. The name of a file says how it is compressed.
    pub archive: TarOptions,
    /// Adds to the archives that are there already instead of replacing them.
    pub append: bool,
    /// Where layouts keep their blobs, if they share them.
    pub shared_blobs: Option<PathBuf>,
    /// Where temporary files go that cannot be avoided; see [`Scratch`].
    pub scratch: Option<PathBuf>,
}

/// What annotating did.
#[derive(Debug, Clone)]
pub struct Annotated {
    /// The digest before.
    pub before: Digest,
    /// The root with its new annotations.
    pub after: Root,
    /// Signatures and other referrers that do not apply to the new digest.
    pub orphans: Vec<Orphan>,
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

    /// How it works.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// The same session with another choice of referrers.
    #[must_use]
    pub fn with_referrers(&self, referrers: Referrers) -> Session {
        Session { client: self.client.clone(), options: SessionOptions { referrers, ..self.options.clone() } }
    }

    /// Opens a place for reading.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::Broken`] as the place is missing or not what it should be.
    /// [`Error::Unsupported`] for a pipe, which [`Session::receive`] reads.
    pub async fn source(&self, location: &Location) -> Result<Arc<dyn Source>> {
        match location {
            Location::Layout { path, .. } => Ok(Arc::new(self.shared(Dir::open(path).await?))),
            Location::Path { path, .. } if path.is_dir() => Ok(Arc::new(self.shared(Dir::open(path).await?))),
            Location::Archive { path, .. } => ocikit_layout::open_archive(path, &self.scratch()).await,
            Location::DockerArchive { path, .. } => ocikit_layout::open_docker_archive(path, &self.scratch()).await,
            Location::Path { path, .. } => ocikit_layout::open(path, &self.scratch()).await,
            Location::Registry(reference) => Ok(Arc::new(self.client.repository(reference.repository().clone())?)),
            Location::Stdio => Err(Error::pipe(location)),
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
                Ok(Arc::new(self.client.repository(reference.repository().clone())?))
            }
            Location::Stdio => Err(unsupported(location, "a pipe cannot be opened, only streamed to")),
        }
    }

    /// A new archive, or the one that is there.
    async fn archive(&self, path: &Path, options: TarOptions) -> Result<Arc<dyn Sink>> {
        if self.options.append && path.exists() {
            return Ok(Arc::new(TarEdit::open(path).await?.for_docker(options.docker)));
        }
        let compression = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "tgz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            Some("xz" | "bz2") => {
                let what = "archives in xz and bzip2 are read and not written; name it `.tar`, `.tar.gz` or `.tar.zst`";
                return Err(Error::Unsupported { place: path.display().to_string(), what: what.to_owned() });
            }
            _ => options.compression,
        };
        Ok(Arc::new(TarWriter::create(path, TarOptions { compression, ..options }).await?))
    }

    /// The platform that docker archives are written for.
    fn docker_platform(&self) -> Platform {
        match &self.options.archive.docker {
            DockerList::For(platform) | DockerList::IfLoadable(platform) => platform.clone(),
            _ => Platform::of_this_machine(),
        }
    }

    pub(crate) fn shared(&self, dir: Dir) -> Dir {
        match &self.options.shared_blobs {
            Some(blobs) => dir.sharing(blobs),
            None => dir,
        }
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch { directory: self.options.scratch.clone(), observer: self.options.observer.clone() }
    }

    /// Copies an image from one place to another, byte for byte. Of an archive by `docker save` that holds less than its
    /// index lists, what is there: see [`Session::open_present`].
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn copy(&self, from: &Location, to: &Location) -> Result<Copied> {
        self.expect_transfer();
        let (root, _) = self.open_present(from).await?;
        self.copy_root(&root, from, to).await
    }

    /// Copies a root that was opened, or edited, to a place; `from` is where it gets its name from if `to` gives none.
    ///
    /// # Errors
    ///
    /// Those of either side; [`Error::Mismatch`] if `to` asks for another digest.
    pub async fn copy_root(&self, root: &Root, from: &Location, to: &Location) -> Result<Copied> {
        let root = self.fit(root, to).await?;
        let naming = naming(&root, from, to)?;
        self.copy_to(&root, &self.sink(to).await?, vec![naming]).await
    }

    /// Pushes an image to several registries, repositories or tags at the same time. It is opened once, each blob is read
    /// once, and goes to each repository once.
    ///
    /// What became of each is told in the order in which they were given: one that fails does not keep the others from
    /// being pushed to.
    ///
    /// # Errors
    ///
    /// Those of opening the image.
    pub async fn push(&self, from: &Location, to: &[Reference]) -> Result<PerTarget<Copied>> {
        let (root, _) = self.open_present(from).await?;
        let to: Vec<_> = to.iter().cloned().map(Location::Registry).collect();
        Ok(self.copy_root_to_each(&root, from, &to).await)
    }

    /// Says what there is to know about what a location names, without its layers.
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`] and [`inspect`].
    pub async fn inspect(&self, location: &Location) -> Result<Inspection> {
        inspect(&self.open(location).await?).await
    }

    /// The tags of a repository.
    ///
    /// # Errors
    ///
    /// Those of the registry; [`Error::NotFound`] if there is no such repository.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        self.client.repository(repository.clone())?.tags().await
    }

    /// Says what [`Session::copy_root`] would do.
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub async fn plan(&self, root: &Root, from: &Location, to: &Location) -> Result<Planned> {
        let root = self.fit(root, to).await?;
        let naming = naming(&root, from, to)?;
        ocikit_image::plan(&root, &self.sink(to).await?, &self.copy_options(vec![naming])).await
    }

    /// What a place can hold of a root: a docker archive, one image for one platform.
    async fn fit(&self, root: &Root, to: &Location) -> Result<Root> {
        if !matches!(to, Location::DockerArchive { .. }) {
            return Ok(root.clone());
        }
        match root {
            Root::Index(index) => Ok(Root::Image(index.image_for(&self.docker_platform()).await?)),
            Root::Image(_) => Ok(root.clone()),
            Root::Other(_) => Err(unsupported(to, "docker archives hold images and nothing else")),
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

    /// Says that images will be moved, before the first of them is opened: connections to registries that are far away
    /// are then opened before they are needed. Without it nothing fails, and the first blobs wait a little longer;
    /// [`Session::copy`] and [`Session::sink`] say it by themselves.
    pub fn expect_transfer(&self) {
        // As many requests as a copy makes at the same time: for twice as many blobs, each of which is asked for as its
        // upload begins.
        self.client.open_ahead(self.copy_options(Vec::new()).jobs.saturating_mul(4));
    }

    /// How the session copies.
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
            observer: observer.clone(),
        }
    }

    /// Copies the image of an archive that comes through a pipe, while it comes; compressed or not. A docker archive is
    /// read to its end first.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] and [`Error::Mismatch`] if the archive is incomplete or damaged, and those of the target.
    pub async fn receive(&self, reader: impl Read + Send + 'static, to: &Location) -> Result<Copied> {
        let mut copied = self.receive_to_each(reader, std::slice::from_ref(to)).await?.all()?;
        Ok(copied.remove(0))
    }

    /// Changes annotations of an image where it is: a local archive or layout is changed in place, a tag in a registry
    /// is moved.
    ///
    /// # Errors
    ///
    /// Those of the place and of [`annotate`]; [`Error::Unsupported`] for what has no tag that could be moved.
    pub async fn annotate(&self, location: &Location, options: &AnnotateOptions) -> Result<Annotated> {
        if let Location::Registry(reference) = location
            && reference.digest().is_some()
        {
            let what = "an image that is named by its digest cannot be changed; name a tag, or write elsewhere";
            return Err(unsupported(location, what));
        }
        let sink = self.in_place(location).await?;
        let root = Root::open(sink.clone(), &location.name()).await?;
        let before = root.digest();
        let after = annotate(&root, options).await?;
        let orphans = orphans(&root, &after).await?;
        if after.digest() != before {
            let tag = match location.name() {
                Name::Tag(tag) => Some(tag),
                _ => None,
            };
            let naming = Naming { tag, full: None, replaces: Some(before) };
            self.put_back(&after, &sink, naming).await?;
        }
        Ok(Annotated { before, after, orphans })
    }

    /// Removes referrers that [`Session::annotate`] left without the image that they are about, and returns how many. Those whose
    /// subject is still listed in an archive or layout stay; a registry does not tell which tags lead to a subject, so there all
    /// are removed.
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Refused`] by registries that do not delete.
    pub async fn drop_referrers(&self, location: &Location, orphans: &[Orphan]) -> Result<usize> {
        match Local::of(location) {
            Some(Local::Archive(path)) => {
                let edit = TarEdit::open(path).await?;
                let mut dropped = 0;
                for (name, count) in removable(&edit, orphans).await? {
                    match edit.remove(&name).await {
                        Ok(_) => dropped += count,
                        Err(error) if error.is_not_found() => {}
                        Err(error) => return Err(error),
                    }
                }
                edit.finish().await?;
                Ok(dropped)
            }
            Some(Local::Layout(path)) => {
                let dir = self.shared(Dir::open(path).await?);
                let mut dropped = 0;
                for (name, count) in removable(&dir, orphans).await? {
                    match dir.remove(&name).await {
                        Ok(_) => dropped += count,
                        Err(error) if error.is_not_found() => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(dropped)
            }
            None => {
                let Location::Registry(reference) = location else {
                    return Err(unsupported(location, "it cannot be changed"));
                };
                let repository = self.client.repository(reference.repository().clone())?;
                for orphan in orphans {
                    // Deleting the manifest deletes its tag as well, and many registries delete no tags.
                    match repository.delete_manifest(&orphan.referrer.digest).await {
                        Err(error) if !error.is_not_found() => return Err(error),
                        _ => {}
                    }
                }
                Ok(orphans.len())
            }
        }
    }

    /// Takes an image off the list of a local archive or layout, and says what went. Its blobs stay.
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for what cannot be changed, and for registries.
    pub async fn remove(&self, location: &Location) -> Result<Vec<Descriptor>> {
        match Local::of(location) {
            Some(Local::Archive(path)) => {
                let edit = TarEdit::open(path).await?;
                let removed = edit.remove(&location.name()).await?;
                edit.finish().await?;
                Ok(removed)
            }
            Some(Local::Layout(path)) => self.shared(Dir::open(path).await?).remove(&location.name()).await,
            None => Err(unsupported(location, "images are taken off the lists of local archives and layouts")),
        }
    }

    /// What was changed goes to where it came from; what is about it is there.
    async fn put_back(&self, root: &Root, sink: &Arc<dyn Sink>, naming: Naming) -> Result<Copied> {
        let options = CopyOptions { referrers: Referrers::None, only: Vec::new(), ..self.copy_options(vec![naming]) };
        ocikit_image::copy(root, sink, &options).await
    }

    /// A place that is changed where it is. An archive is locked before it is read, so that two edits at once both count.
    pub(crate) async fn in_place(&self, location: &Location) -> Result<Arc<dyn Sink>> {
        match (Local::of(location), location) {
            (Some(Local::Archive(path)), _) => Ok(Arc::new(TarEdit::open(path).await?)),
            (Some(Local::Layout(path)), _) => Ok(Arc::new(self.shared(Dir::open(path).await?))),
            (None, Location::Registry(_)) => self.sink(location).await,
            (None, Location::Stdio) => Err(Error::pipe(location)),
            (None, _) => Err(unsupported(location, "it cannot be changed")),
        }
    }
}

/// What can be changed in place without a registry.
enum Local<'a> {
    Archive(&'a Path),
    Layout(&'a Path),
}

impl Local<'_> {
    fn of(location: &Location) -> Option<Local<'_>> {
        match location {
            Location::Archive { path, .. } | Location::DockerArchive { path, .. } => Some(Local::Archive(path)),
            Location::Layout { path, .. } => Some(Local::Layout(path)),
            Location::Path { path, .. } if path.is_dir() => Some(Local::Layout(path)),
            Location::Path { path, .. } => Some(Local::Archive(path)),
            Location::Registry(_) | Location::Stdio => None,
        }
    }
}

/// What to take off the list of an archive or layout for orphans to go, and how many go with each: the list of a subject's
/// referrers goes as a whole.
async fn removable(place: &dyn Source, orphans: &[Orphan]) -> Result<Vec<(Name, usize)>> {
    let mut names = Vec::new();
    let mut gone = HashMap::new();
    for Orphan { subject, referrer, tag } in orphans {
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
        // What is about an orphan goes with it, though the orphan is listed until then.
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

/// The name that a copy gets.
pub(crate) fn naming(root: &Root, from: &Location, to: &Location) -> Result<Naming> {
    if let Location::Registry(reference) = to {
        if let Some(digest) = reference.digest().filter(|digest| **digest != root.digest()) {
            return Err(Error::mismatch(digest, root.source(), Mismatch::Digest(root.digest())));
        }
        return Ok(Naming { tag: reference.tag().cloned(), ..Naming::default() });
    }
    Ok(match (to.name(), from) {
        (Name::Tag(tag), _) => Naming { tag: Some(tag), ..Naming::default() },
        (Name::Full(full), _) => {
            let reference = full.parse::<Reference>().ok();
            let tag = reference.as_ref().and_then(|reference| reference.tag().cloned());
            // Docker takes whole names only; other readers look for the name as it was given.
            let whole = reference.filter(|_| matches!(to, Location::DockerArchive { .. }));
            Naming { tag, full: Some(whole.map_or(full, |whole| whole.to_string())), replaces: None }
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
