use std::fmt::{self, Debug, Display};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Config, Content, Descriptor, Digest, Document, MAX_DOCUMENT_BYTES, Reference, Repository, Tag};

use crate::body::Body;
use crate::error::{Error, Mismatch, Result};

/// A place that images are read from.
///
/// `Display` shows its location, for messages.
#[async_trait]
pub trait Source: Debug + Display + Send + Sync + 'static {
    /// Resolves a name to a descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the name does not exist, [`Error::Ambiguous`] if [`Name::Only`] matches several roots.
    async fn resolve(&self, name: &Name) -> Result<Descriptor>;

    /// Opens a range of a blob or document without checking its digest; see [`SourceExt::open`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it does not exist.
    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body>;

    /// Opens a range of at most [`MAX_DOCUMENT_BYTES`] bytes that is read into memory at once, without checking its digest. A
    /// place behind a network limits the total time; the default is [`Source::open_unverified`].
    ///
    /// # Errors
    ///
    /// As [`Source::open_unverified`]; reading fails with [`Error::Unreachable`] if it takes too long.
    async fn open_small(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.open_unverified(descriptor, range).await
    }

    /// Returns whether a blob or document exists.
    ///
    /// # Errors
    ///
    /// Only if the query fails.
    async fn has(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Returns the manifests and indexes with this digest as their subject, or an empty list.
    ///
    /// # Errors
    ///
    /// Only if the query fails.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;

    /// Returns all tags, if there are so few that listing them is one request to a registry; `None` if there are more, or if
    /// the place looks up a tag without a request.
    ///
    /// # Errors
    ///
    /// Only if the query fails.
    async fn few_tags(&self) -> Result<Option<Vec<Tag>>> {
        Ok(None)
    }

    /// Returns bytes that the source holds in memory, without looking anywhere else.
    fn held(&self, _digest: &Digest) -> Option<Bytes> {
        None
    }

    /// Returns whether an edit has created a document, so that no other place can be expected to have it.
    fn is_new(&self, _digest: &Digest) -> bool {
        false
    }

    /// Returns the repository that holds a blob, if the source is a registry, for a cross-repository mount.
    fn repository(&self, _descriptor: &Descriptor) -> Option<&Repository> {
        None
    }
}

/// Operations that follow from [`Source`], available on every source.
#[async_trait]
pub trait SourceExt: Source {
    /// Opens a blob, which is checked against size and digest as it is read.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] immediately; [`Error::Mismatch`] as soon as it is detected, at the latest in place of the
    /// last chunk.
    async fn open(&self, descriptor: &Descriptor) -> Result<Body> {
        verified(self, self.open_unverified(descriptor, ByteRange::ALL).await?, descriptor)
    }

    /// Reads a whole blob into memory and checks it.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::open`]; [`Error::Unsupported`] for a blob larger than 16 MiB.
    async fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        read_at_most(self, descriptor, MAX_READ_SIZE)?;
        let body = match descriptor.size <= MAX_DOCUMENT_BYTES {
            true => self.open_small(descriptor, ByteRange::ALL).await?,
            false => self.open_unverified(descriptor, ByteRange::ALL).await?,
        };
        verified(self, body, descriptor)?.bytes().await
    }

    /// Resolves a name to a descriptor. If the name is a digest, the descriptor is checked to have it.
    ///
    /// # Errors
    ///
    /// As [`Source::resolve`]; [`Error::Mismatch`] if the source answers a digest with another one.
    async fn find(&self, name: &Name) -> Result<Descriptor> {
        let found = self.resolve(name).await?;
        match name {
            Name::Digest(pinned) if *pinned != found.digest => {
                Err(Error::mismatch(pinned, self, Mismatch::Digest(found.digest)))
            }
            _ => Ok(found),
        }
    }

    /// As [`SourceExt::find`], and reads the root and checks that it can be a manifest or index, see
    /// [`Content::check_root`].
    ///
    /// # Errors
    ///
    /// As [`SourceExt::find`] and [`SourceExt::read`], and [`Error::Document`].
    async fn find_root(&self, name: &Name) -> Result<Descriptor> {
        let found = self.find(name).await?;
        let bytes = read_document(self, &found).await?;
        Content::check_root(&bytes).map_err(|source| Error::document(&found.digest, self, source))?;
        Ok(found)
    }

    /// Determines whether a descriptor leads to a document, which is checked and parsed, or to a blob, of which only
    /// the first bytes are read. The bytes decide, because the media type of a descriptor may be wrong, unknown or
    /// missing.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::document`]. Also [`Error::Document`] for documents of an unknown kind that list other blobs.
    async fn content(&self, descriptor: &Descriptor) -> Result<Content> {
        if !descriptor.media_type.is_document() {
            let start = ByteRange { offset: 0, length: Some(SNIFFED_BYTES) };
            let start = self.open_small(descriptor, start).await?.bytes().await?;
            if start.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
                return Ok(Content::Blob);
            }
        }
        let bytes = read_document(self, descriptor).await?;
        Content::of(&descriptor.media_type, bytes).map_err(|source| Error::document(&descriptor.digest, self, source))
    }

    /// Reads, checks and parses a manifest or index.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::read`], with [`MAX_DOCUMENT_BYTES`] as the limit, and [`Error::Document`].
    async fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = read_document(self, descriptor).await?;
        Document::parse(&descriptor.media_type, bytes)
            .map_err(|source| Error::document(&descriptor.digest, self, source))
    }
}

impl<S: Source + ?Sized> SourceExt for S {}

/// Checks the length of a body, and its bytes as they are read.
fn verified(place: &(impl Source + ?Sized), body: Body, descriptor: &Descriptor) -> Result<Body> {
    if body.length() != descriptor.size {
        let mismatch = Mismatch::Size { expected: descriptor.size, actual: body.length() };
        return Err(Error::mismatch(&descriptor.digest, place, mismatch));
    }
    Ok(body.verified(descriptor, place))
}

/// The number of bytes that are read of a blob to detect a document with another media type.
const SNIFFED_BYTES: u64 = 512;

/// The maximum size in bytes of a blob that is read into memory.
const MAX_READ_SIZE: u64 = 16 << 20;

/// Reads a blob of at most [`MAX_DOCUMENT_BYTES`].
pub(crate) async fn read_document(place: &(impl Source + ?Sized), descriptor: &Descriptor) -> Result<Bytes> {
    read_at_most(place, descriptor, MAX_DOCUMENT_BYTES)?;
    place.read(descriptor).await
}

/// Reads, checks and parses the config of an image.
pub(crate) async fn read_config(place: &(impl Source + ?Sized), descriptor: &Descriptor) -> Result<Config> {
    let bytes = read_document(place, descriptor).await?;
    Config::parse(bytes).map_err(|source| Error::document(&descriptor.digest, place, source))
}

/// Returns an error if a blob is larger than `most` bytes.
fn read_at_most(place: &(impl Source + ?Sized), descriptor: &Descriptor, most: u64) -> Result<()> {
    if descriptor.size <= most {
        return Ok(());
    }
    let what = format!("{} has {} bytes, which exceeds the limit of {most} bytes", descriptor.digest, descriptor.size);
    Err(Error::Unsupported { place: place.to_string(), what })
}

/// A place that images are written to.
///
/// A sink receives a descriptor and the source to read it from, and decides when and how often to read. It implements
/// retries, resumed uploads, mounts and the check for blobs that already exist.
#[async_trait]
pub trait Sink: Source {
    /// Announces what will be put, in this order. Archives use it for their layout, registries to query many blobs at
    /// once. The caller guarantees only the order.
    ///
    /// # Errors
    ///
    /// For example if the place has no room for that much.
    async fn expect(&self, _descriptors: &[Descriptor]) -> Result<()> {
        Ok(())
    }

    /// Stores a blob or document, which is read from the source and checked.
    ///
    /// The caller has put everything that a document lists before the document. Nothing becomes visible under a name
    /// yet.
    ///
    /// # Errors
    ///
    /// Those of either side; the place is then unchanged.
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put>;

    /// Announces that a root, which is new everywhere, gets this name and no other. A place that stores a document together
    /// with its name then leaves [`Sink::put`] and [`Sink::confirm`] of this root to [`Sink::publish`], and checks there that
    /// the root was stored.
    fn announce(&self, _root: &Descriptor, _naming: &Naming) {}

    /// Reads back a root that was put, before it gets a name. Places that cannot lose an accepted document need not
    /// implement this.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if the place returns another document, [`Error::Protocol`] if it returns none.
    async fn confirm(&self, _root: &Descriptor) -> Result<()> {
        Ok(())
    }

    /// Makes a root that was put visible, under a tag if there is one.
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Conflict`] if the tag does not lead to [`Naming::replaces`], before or after.
    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()>;

    /// Returns whether the order of publication is visible afterwards, as it is in archives and layouts, which list
    /// their roots. If not, roots are published in parallel.
    fn keeps_order(&self) -> bool {
        true
    }

    /// Completes the place; an archive becomes a file. If the sink is dropped without this call, nothing new is kept.
    ///
    /// # Errors
    ///
    /// Those of the place; it is then unchanged.
    async fn finish(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the root with a tag, if there is one. A registry reads it from the origin and not from a mirror, because
    /// the caller is about to merge into it.
    ///
    /// # Errors
    ///
    /// Only if the query fails.
    async fn tagged(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        match self.resolve(&Name::Tag(tag.clone())).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Sink::tagged`], after a delay in which another client that had read the tag before it was moved has probably
    /// moved it too. A place that no client changes at the same time, or only under a lock, has no delay.
    ///
    /// # Errors
    ///
    /// Only if the query fails.
    async fn tagged_later(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        self.tagged(tag).await
    }

    /// Returns whether a root and everything below it already exists, under the tag of `naming` if it has one, as far
    /// as the place knows without checking each blob. `false` is always correct and causes every blob to be checked.
    ///
    /// # Errors
    ///
    /// Only if the query fails.
    async fn is_complete(&self, _root: &Descriptor, _naming: &Naming) -> Result<bool> {
        Ok(false)
    }
}

/// The name that selects an image in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The only image.
    Only,
    /// The image with this tag.
    Tag(Tag),
    /// The image or any other document with this digest that a root leads to.
    Digest(Digest),
    /// The image with this full name, in a place that stores full names.
    Full(String),
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Only => f.write_str("image"),
            Name::Tag(tag) => write!(f, "tag {tag}"),
            Name::Digest(digest) => write!(f, "{digest}"),
            Name::Full(name) => write!(f, "image named {name}"),
        }
    }
}

impl From<Tag> for Name {
    fn from(tag: Tag) -> Name {
        Name::Tag(tag)
    }
}

impl From<Digest> for Name {
    fn from(digest: Digest) -> Name {
        Name::Digest(digest)
    }
}

impl From<&Reference> for Name {
    /// Returns the digest if the reference has one, otherwise its tag, or `latest`.
    fn from(reference: &Reference) -> Name {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Name::Digest(*digest),
            (None, tag) => Name::Tag(tag.cloned().unwrap_or_else(Tag::latest)),
        }
    }
}

/// How a root is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Naming {
    /// The tag to give it.
    pub tag: Option<Tag>,
    /// Its full name, for places that store one in addition to the tag.
    pub full: Option<String>,
    /// The root to replace: the new one takes its position and names, if the place lists its roots. With a tag, only
    /// the entry with that tag is replaced.
    pub replaces: Option<Digest>,
}

ocikit_spec::setters! {
    Naming {
        tag: Option<Tag>,
        full: Option<String>,
        replaces: Option<Digest>,
    }
}

impl Naming {
    /// Returns the naming by a tag.
    ///
    /// ```
    /// use ocikit_image::Naming;
    ///
    /// let naming = Naming::of_tag("v1".parse()?);
    /// assert_eq!(naming.tag, Some("v1".parse()?));
    /// # Ok::<(), ocikit_spec::Error>(())
    /// ```
    pub fn of_tag(tag: Tag) -> Naming {
        Naming { tag: Some(tag), full: None, replaces: None }
    }
}

/// The outcome of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// The blob already existed.
    Present,
    /// The registry mounted it from another of its repositories.
    Mounted,
    /// Its bytes were copied.
    Copied,
}

/// A range of bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The offset of the first byte; at or beyond the end of the blob, the range is empty.
    pub offset: u64,
    /// The maximum number of bytes; `None` for all that follow.
    pub length: Option<u64>,
}

impl ByteRange {
    /// The whole blob.
    pub const ALL: ByteRange = ByteRange { offset: 0, length: None };

    /// Returns the range from this offset to the end.
    pub fn from(offset: u64) -> ByteRange {
        ByteRange { offset, length: None }
    }

    /// Returns the offset and length of the range within a blob of `size` bytes.
    pub fn within(&self, size: u64) -> (u64, u64) {
        let offset = self.offset.min(size);
        let rest = size - offset;
        (offset, self.length.map_or(rest, |length| length.min(rest)))
    }

    /// Returns the bytes of the range, without copying.
    pub fn of(&self, bytes: &Bytes) -> Bytes {
        let (offset, length) = self.within(bytes.len() as u64);
        // Both are within the length of the bytes, so the casts are lossless.
        bytes.slice(offset as usize..(offset + length) as usize)
    }
}
