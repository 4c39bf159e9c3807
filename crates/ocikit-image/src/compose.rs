//! Indexes from images anywhere: creating one, adding to it, and removing from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use ocikit_spec::{Annotations, Descriptor, Digest, MediaType, NewDocument, Platform};

use crate::error::{Error, Need, Result};
use crate::memory::Memory;
use crate::platform::best_entries;
use crate::root::{Index, Root};
use crate::source::Source;
use crate::walk::limits::{MAX_DEPTH, too_deep};

/// The number of members whose configs are read in parallel.
const MAX_PARALLEL_MEMBERS: usize = 8;

/// An image, artifact or index that becomes part of an index.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Member {
    /// What to add.
    pub root: Root,
    /// The platforms to take from an index, with the attestation manifests of their images; all if empty.
    pub platforms: Vec<Platform>,
    /// The platform of the entry. By default it is that of the config of the image.
    pub platform: Option<Platform>,
    /// Annotations of the new entries, except those of attestation manifests.
    pub annotations: Annotations,
}

impl Member {
    /// Returns a member with the platform of its config.
    pub fn new(root: Root) -> Member {
        Member { root, platforms: Vec::new(), platform: None, annotations: Annotations::new() }
    }
}

/// Options of [`create_index`] and [`add_to_index`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ComposeOptions {
    /// The format of the index. By default a new index has the format of Docker if all its entries have it, and an
    /// existing index keeps its format.
    pub format: Option<IndexFormat>,
    /// Whether the entries of a member that is an index are added instead of the index itself.
    pub flatten: bool,
    /// What to do if the index already has an entry for the platform, or with the digest, of a new one.
    pub on_duplicate: OnDuplicate,
    /// Annotations of the index.
    pub annotations: Annotations,
    /// The subject of a new index.
    pub subject: Option<Descriptor>,
    /// The artifact type of a new index.
    pub artifact_type: Option<MediaType>,
}

ocikit_spec::setters! {
    ComposeOptions {
        format: Option<IndexFormat>,
        flatten: bool,
        on_duplicate: OnDuplicate,
        annotations: Annotations,
        subject: Option<Descriptor>,
        artifact_type: Option<MediaType>,
    }
}

/// The format of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexFormat {
    /// An OCI image index.
    Oci,
    /// A Docker manifest list, which has only Docker manifests, and no annotations, subject and artifact type.
    Docker,
}

impl IndexFormat {
    fn media_type(self) -> MediaType {
        match self {
            IndexFormat::Oci => MediaType::OCI_INDEX,
            IndexFormat::Docker => MediaType::DOCKER_MANIFEST_LIST,
        }
    }
}

/// What happens to an entry for the platform, or with the digest, of a new one. Entries of the same member are not
/// compared with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDuplicate {
    /// The operation fails.
    #[default]
    Refuse,
    /// The new entry takes its position. Attestation manifests of an image that is no longer listed are removed.
    Replace,
    /// Both are listed. An entry with the same digest is not added again.
    Keep,
}

/// An index that was composed or changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Composed {
    /// The index.
    pub index: Index,
    /// The new entries.
    pub added: Vec<Descriptor>,
    /// The entries that are no longer listed, including attestation manifests of removed images.
    pub removed: Vec<Descriptor>,
}

/// A new entry, and the source of its manifest.
struct NewEntry {
    descriptor: Descriptor,
    source: Arc<dyn Source>,
    /// The position of its member.
    member: usize,
    /// The index that lists it at its source.
    listed_in: Option<ocikit_spec::Index>,
}

/// Creates an index of images, artifacts and other indexes, each from any place. Only the configs of images are read.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use ocikit_image::{ComposeOptions, Member, Memory, Root, create_index, testing};
///
/// let mut members = Vec::new();
/// for platform in ["linux/amd64", "linux/arm64"] {
///     let place = Arc::new(Memory::new());
///     let image = testing::image(&place, 1, &platform.parse()?, &[1000]);
///     members.push(Member::new(Root::at(place, image).await?));
/// }
/// let composed = create_index(&members, &ComposeOptions::default()).await?;
/// let platforms = composed.index.manifests().iter().map(|entry| entry.platform.clone().unwrap().to_string());
/// assert_eq!(platforms.collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// [`Error::Exists`] for two members with one platform or digest, see [`ComposeOptions::on_duplicate`];
/// [`Error::NoPlatform`] if a member has no image for a selected platform; [`Error::Unmet`] for an image whose
/// config states no platform, for a schema 1 manifest, and for what a Docker manifest list cannot hold.
pub async fn create_index(members: &[Member], options: &ComposeOptions) -> Result<Composed> {
    let new = entries(members, options).await?;
    let mut list = Entries::default();
    for entry in &new {
        list.add(entry, options.on_duplicate)?;
    }
    let (entries, removed) = list.finish();
    let format = options.format.unwrap_or_else(|| format_of(&entries, options));
    check_format(format, &entries, options)?;
    let fields = NewDocument::default()
        .media_type(Some(format.media_type()))
        .artifact_type(options.artifact_type.clone())
        .subject(options.subject.as_ref().map(Descriptor::bare))
        .annotations(options.annotations.clone());
    let mut edit = fields.index(&entries).map_err(too_large)?.edit();
    add_unknown_fields(&mut edit, &new);
    let document = edit.finish().map_err(too_large)?;
    let base = new.first().map_or_else(|| Arc::new(Memory::new()) as Arc<dyn Source>, |entry| entry.source.clone());
    let index = over(document, None, base, &new);
    Ok(Composed { added: entries, index, removed })
}

/// Adds images, artifacts and other indexes to an index. Its other entries and fields keep their bytes.
///
/// # Errors
///
/// As [`create_index`]; [`Error::Document`] if the annotations of the index are not an object of strings.
pub async fn add_to_index(index: &Index, members: &[Member], options: &ComposeOptions) -> Result<Composed> {
    let new = entries(members, options).await?;
    let old = index.manifests();
    let mut list = Entries::of(old);
    for entry in &new {
        list.add(entry, options.on_duplicate)?;
    }
    let (kept, removed) = list.finish();
    let current = match index.descriptor.media_type == MediaType::DOCKER_MANIFEST_LIST {
        true => IndexFormat::Docker,
        false => IndexFormat::Oci,
    };
    let format = options.format.unwrap_or(current);
    check_format(format, &kept, options)?;
    let mut edit = index.document.edit();
    edit.set_entries(&kept);
    if format != current {
        edit.set_media_type(&format.media_type());
    }
    for (key, value) in options.annotations.iter() {
        edit.annotate(key, value);
    }
    add_unknown_fields(&mut edit, &new);
    let document = edit.finish().map_err(|error| Error::document(&index.digest(), &index.source, error))?;
    let added = kept.iter().filter(|entry| !old.contains(entry)).cloned().collect();
    Ok(Composed { index: over(document, Some(index), index.source.clone(), &new), added, removed })
}

/// Removes entries from an index by their digest or platform, with the attestation manifests of the removed images. A
/// platform without a version of the operating system selects all versions; a variant has to be the same.
///
/// # Errors
///
/// [`Error::NotFound`] for a digest, and [`Error::NoPlatform`] for a platform that no entry has.
pub fn remove_from_index(index: &Index, digests: &[Digest], platforms: &[Platform]) -> Result<Composed> {
    let old = index.manifests();
    let mut removed: Vec<Descriptor> = Vec::new();
    for digest in digests {
        let missing = || Error::not_found(format!("entry {digest} in index {}", index.digest()), &index.source);
        removed.push(old.iter().find(|entry| entry.digest == *digest).ok_or_else(missing)?.clone());
    }
    for platform in platforms {
        let is_selected = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|found| selects(platform, found));
        let selected: Vec<_> = old.iter().filter(is_selected).cloned().collect();
        if selected.is_empty() {
            let available = old.iter().filter_map(|entry| entry.platform.clone());
            return Err(Error::no_platform(std::slice::from_ref(platform), available, &index.source));
        }
        removed.extend(selected);
    }
    let gone: HashSet<_> = removed.iter().map(|entry| entry.digest).collect();
    let is_gone = |entry: &Descriptor| {
        let is_about_gone = || entry.described_image().is_some_and(|image| gone.contains(&image));
        gone.contains(&entry.digest) || (entry.is_attestation() && is_about_gone())
    };
    let (removed, kept): (Vec<_>, Vec<_>) = old.iter().cloned().partition(is_gone);
    let mut edit = index.document.edit();
    edit.set_entries(&kept);
    let document = edit.finish().map_err(|error| Error::document(&index.digest(), &index.source, error))?;
    let index = over(document, Some(index), index.source.clone(), &[]);
    Ok(Composed { index, added: Vec::new(), removed })
}

/// Adds the fields of entries that are unknown here, from the indexes that listed them before.
fn add_unknown_fields(edit: &mut ocikit_spec::IndexEdit, new: &[NewEntry]) {
    let mut seen = HashSet::new();
    for index in new.iter().filter_map(|entry| entry.listed_in.as_ref()).filter(|index| seen.insert(index.digest())) {
        edit.add_fields_of(index);
    }
}

/// Returns the new entries of all members, in order.
async fn entries(members: &[Member], options: &ComposeOptions) -> Result<Vec<NewEntry>> {
    // Boxed, because the compiler cannot prove that the futures over borrowed members are general enough otherwise.
    let each = members.iter().enumerate().map(|(position, member)| of_member(position, member, options).boxed());
    let found: Vec<Vec<NewEntry>> =
        stream::iter(each.collect::<Vec<_>>()).buffered(MAX_PARALLEL_MEMBERS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn of_member(position: usize, member: &Member, options: &ComposeOptions) -> Result<Vec<NewEntry>> {
    let root = &member.root;
    let whole = |artifact_type: Option<&MediaType>| {
        let (artifact_type, platform) = (artifact_type.cloned(), member.platform.clone());
        Descriptor { artifact_type, platform, ..root.descriptor().bare() }
    };
    let mut found = match root {
        Root::Image(image) => {
            let platform = match (&member.platform, &member.platforms[..]) {
                (Some(platform), []) => platform.clone(),
                (stated, wanted) => {
                    let config = image.config().await?;
                    let found = config.platform().map(tidy);
                    let is_missing = |wanted: &&Platform| !found.as_ref().is_some_and(|found| wanted.accepts(found));
                    if let Some(missing) = wanted.iter().find(is_missing) {
                        return Err(Error::no_platform(std::slice::from_ref(missing), found, root.source()));
                    }
                    stated.clone().or(found).ok_or_else(|| no_platform(root))?
                }
            };
            vec![(Descriptor { platform: Some(platform), ..root.descriptor().bare() }, None)]
        }
        Root::Other(artifact) => {
            if !member.platforms.is_empty() {
                return Err(Error::no_platform(&member.platforms, [], root.source()));
            }
            let manifest = artifact.manifest().ok_or_else(|| not_an_entry(root))?;
            vec![(whole(manifest.artifact_type()), None)]
        }
        Root::Index(index) if member.platforms.is_empty() && !options.flatten => {
            vec![(whole(index.document.artifact_type()), None)]
        }
        Root::Index(index) => of_index(index, member, 0).await?,
    };
    for (entry, _) in found.iter_mut().filter(|(entry, _)| !entry.is_attestation()) {
        for (key, value) in member.annotations.iter() {
            entry.annotations.insert(key, value);
        }
    }
    let entry =
        |(descriptor, listed_in)| NewEntry { descriptor, source: root.source().clone(), member: position, listed_in };
    Ok(found.into_iter().map(entry).collect())
}

/// An entry, and the index that lists it at its source.
type Listed = (Descriptor, Option<ocikit_spec::Index>);

/// Returns the selected entries of an index, and those of the indexes below it if all are selected.
fn of_index<'a>(index: &'a Index, member: &'a Member, depth: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
    async move {
        if depth > MAX_DEPTH {
            return Err(too_deep(&index.digest(), &index.source));
        }
        let platforms = index.platforms().await?;
        let entries = index.manifests().iter().zip(&platforms);
        let chosen: Option<HashSet<Digest>> = match member.platforms.is_empty() {
            true => None,
            false => {
                let missing =
                    |missing| Error::no_platform(&[missing], platforms.iter().flatten().cloned(), &index.source);
                let best = best_entries(&member.platforms, &platforms).map_err(missing)?;
                Some(best.into_iter().map(|position| index.manifests()[position].digest).collect())
            }
        };
        let mut found = Vec::new();
        for (entry, platform) in entries {
            let selected_by = if entry.is_attestation() { entry.described_image() } else { Some(entry.digest) };
            let is_chosen = chosen.as_ref().is_none_or(|chosen| selected_by.is_some_and(|of| chosen.contains(&of)));
            if !is_chosen {
                continue;
            }
            if entry.media_type.is_index() {
                let Root::Index(nested) = index.open(entry).await? else { return Err(not_an_entry_of(entry, index)) };
                found.extend(of_index(&nested, member, depth + 1).await?);
                continue;
            }
            let stated = entry.platform.clone().or_else(|| platform.clone());
            found.push((Descriptor { platform: stated, ..entry.clone() }, Some(index.document.clone())));
        }
        Ok(found)
    }
    .boxed()
}

/// The entries of an index that is composed, which are found by their digest and their platform.
#[derive(Default)]
struct Entries {
    /// The entries, each with the position of the member that it comes from; `None` for one that was replaced.
    list: Vec<Option<(Option<usize>, Descriptor)>>,
    by_digest: HashMap<Digest, Vec<usize>>,
    /// The images by their normalized platform.
    by_platform: HashMap<Platform, Vec<usize>>,
    removed: Vec<Descriptor>,
}

impl Entries {
    /// Returns the entries of an existing index.
    fn of(old: &[Descriptor]) -> Entries {
        let mut entries = Entries::default();
        for entry in old {
            entries.push(None, entry.clone());
        }
        entries
    }

    fn push(&mut self, member: Option<usize>, entry: Descriptor) {
        self.list.push(None);
        self.set(self.list.len() - 1, member, entry);
    }

    fn set(&mut self, position: usize, member: Option<usize>, entry: Descriptor) {
        self.by_digest.entry(entry.digest).or_default().push(position);
        if let Some(platform) = image_platform(&entry) {
            self.by_platform.entry(platform).or_default().push(position);
        }
        self.list[position] = Some((member, entry));
    }

    /// Returns the positions of the entries of other members with the digest or the platform of a new one.
    fn duplicates(&self, new: &NewEntry) -> Vec<usize> {
        let by_platform = image_platform(&new.descriptor).and_then(|platform| self.by_platform.get(&platform));
        let same = self.by_digest.get(&new.descriptor.digest).into_iter().chain(by_platform).flatten().copied();
        // A replaced entry is still found under its old digest and platform.
        let is_same = |position: &usize| {
            self.list[*position].as_ref().is_some_and(|(member, old)| {
                let same_platform =
                    || image_platform(old).is_some_and(|old| Some(old) == image_platform(&new.descriptor));
                *member != Some(new.member) && (old.digest == new.descriptor.digest || same_platform())
            })
        };
        let mut same: Vec<_> = same.filter(is_same).collect();
        same.sort_unstable();
        same.dedup();
        same
    }

    fn add(&mut self, entry: &NewEntry, on_duplicate: OnDuplicate) -> Result<()> {
        let (new, member) = (&entry.descriptor, Some(entry.member));
        let same = self.duplicates(entry);
        let Some((first, others)) = same.split_first() else {
            self.push(member, new.clone());
            return Ok(());
        };
        let old = self.list[*first].as_ref().map(|(_, old)| old.clone());
        let listed = self.by_digest.get(&new.digest).into_iter().flatten();
        let is_listed =
            listed.filter_map(|position| self.list[*position].as_ref()).any(|(_, old)| old.digest == new.digest);
        match on_duplicate {
            // The attestation manifest of an image that is listed already.
            _ if new.is_attestation() => {}
            OnDuplicate::Refuse => {
                let what = match old {
                    Some(Descriptor { platform: Some(platform), digest, .. }) if digest != new.digest => {
                        format!("an entry for {platform} ({digest})")
                    }
                    _ => format!("the entry {}", new.digest),
                };
                return Err(Error::Exists { what, place: "the index".to_owned() });
            }
            OnDuplicate::Keep if is_listed => {}
            OnDuplicate::Keep => self.push(member, new.clone()),
            OnDuplicate::Replace => {
                for position in others {
                    self.removed.extend(self.list[*position].take().map(|(_, old)| old));
                }
                let new = match old {
                    Some(old) if old.digest == new.digest => updated(old, new),
                    old => {
                        self.removed.extend(old);
                        new.clone()
                    }
                };
                self.set(*first, member, new);
            }
        }
        Ok(())
    }

    /// Returns the entries, and the replaced ones with their attestation manifests.
    fn finish(self) -> (Vec<Descriptor>, Vec<Descriptor>) {
        let mut entries: Vec<_> = self.list.into_iter().flatten().map(|(_, entry)| entry).collect();
        let listed: HashSet<_> = entries.iter().map(|entry| entry.digest).collect();
        let mut removed: Vec<_> = self.removed.into_iter().filter(|entry| !listed.contains(&entry.digest)).collect();
        let gone: HashSet<_> = removed.iter().map(|entry| entry.digest).collect();
        entries.retain(|entry| {
            let is_orphan =
                entry.is_attestation() && entry.described_image().is_some_and(|image| gone.contains(&image));
            if is_orphan {
                removed.push(entry.clone());
            }
            !is_orphan
        });
        (entries, removed)
    }
}

/// Returns the normalized platform of an image, by which duplicates are found.
fn image_platform(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform.as_ref().filter(|platform| !entry.is_attestation() && !platform.is_unknown());
    platform.map(Platform::normalized)
}

/// Returns an entry with the platform and the annotations of a new one with the same digest. Its other fields are kept.
fn updated(old: Descriptor, new: &Descriptor) -> Descriptor {
    let mut entry = old;
    if image_platform(&entry) != image_platform(new) && new.platform.is_some() {
        entry.platform.clone_from(&new.platform);
    }
    for (key, value) in new.annotations.iter() {
        entry.annotations.insert(key, value);
    }
    entry
}

/// Returns the index over the sources of its entries.
fn over(document: ocikit_spec::Index, old: Option<&Index>, base: Arc<dyn Source>, new: &[NewEntry]) -> Index {
    let digest = match old {
        Some(old) => Digest::of(old.digest().algorithm(), document.bytes()),
        None => document.digest(),
    };
    let descriptor = Descriptor::new(document.media_type(), digest, document.bytes().len() as u64);
    // What the index had before stays where it was.
    let known: HashSet<_> = old.into_iter().flat_map(Index::manifests).map(|entry| entry.digest).collect();
    let owned = new.iter().filter(|entry| !known.contains(&entry.descriptor.digest));
    let owned = owned.map(|entry| (entry.descriptor.digest, entry.source.clone()));
    let source = Memory::over(base).with_document(digest, document.bytes().clone()).with_parts(owned);
    Index { descriptor, document, source: Arc::new(source) }
}

fn format_of(entries: &[Descriptor], options: &ComposeOptions) -> IndexFormat {
    let fits = !entries.is_empty() && check_format(IndexFormat::Docker, entries, options).is_ok();
    if fits { IndexFormat::Docker } else { IndexFormat::Oci }
}

/// Checks that a format can hold these entries and fields.
fn check_format(format: IndexFormat, entries: &[Descriptor], options: &ComposeOptions) -> Result<()> {
    let refuse = |what: String| Err(Error::unmet("a docker manifest list", what, Need::OciIndex));
    match format {
        IndexFormat::Oci => Ok(()),
        IndexFormat::Docker if !options.annotations.is_empty() => refuse("it cannot have annotations".to_owned()),
        IndexFormat::Docker if options.subject.is_some() => refuse("it cannot have a subject".to_owned()),
        IndexFormat::Docker if options.artifact_type.is_some() => refuse("it cannot have an artifact type".to_owned()),
        IndexFormat::Docker => {
            let is_docker =
                |kind: &MediaType| *kind == MediaType::DOCKER_MANIFEST || *kind == MediaType::DOCKER_MANIFEST_LIST;
            match entries.iter().find(|entry| !is_docker(&entry.media_type) || !entry.annotations.is_empty()) {
                None => Ok(()),
                Some(other) if is_docker(&other.media_type) => {
                    refuse(format!("it cannot have annotations, as on the entry {}", other.digest))
                }
                Some(other) => {
                    refuse(format!("it cannot list {}, which is of type {}", other.digest, other.media_type))
                }
            }
        }
    }
}

/// Returns a platform of a config without empty fields.
fn tidy(platform: &Platform) -> Platform {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Platform { variant: filled(&platform.variant), os_version: filled(&platform.os_version), ..platform.clone() }
}

/// Returns whether a platform on the command line selects that of an entry.
fn selects(wanted: &Platform, found: &Platform) -> bool {
    let (wanted, mut found) = (wanted.normalized(), found.normalized());
    if wanted.os_version.is_none() {
        found.os_version = None;
    }
    if wanted.os_features.is_empty() {
        found.os_features.clear();
    }
    wanted == found
}

fn no_platform(root: &Root) -> Error {
    let what = format!("the config of {} states no platform", root.digest());
    Error::unmet(root.source(), what, Need::EntryPlatform)
}

fn not_an_entry(root: &Root) -> Error {
    let what = format!("{} is of type {}, which an index cannot list", root.digest(), root.descriptor().media_type);
    Error::Unsupported { place: root.source().to_string(), what }
}

fn not_an_entry_of(entry: &Descriptor, index: &Index) -> Error {
    let what = format!("{} is listed as an index and is none", entry.digest);
    Error::Unsupported { place: index.source.to_string(), what }
}

fn too_large(error: ocikit_spec::Error) -> Error {
    Error::Unsupported { place: "the new index".to_owned(), what: error.to_string() }
}

#[cfg(feature = "testing")]
#[cfg(test)]
mod tests;
