use std::fmt::{self, Debug, Display};

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_spec::{Content, Descriptor, Digest, Document, MAX_DOCUMENT_SIZE, Reference, Repository, Tag};

use crate::body::Body;
use crate::error::{Error, Mismatch, Result};

/// A place that images are read from.
///
/// Shown with `Display` it says where it is, for messages.
#[async_trait]
pub trait Source: Debug + Display + Send + Sync + 'static {
    /// The descriptor that a name stands for.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing has that name, [`Error::Ambiguous`] if [`Name::Only`] finds several.
    async fn resolve(&self, name: &Name) -> Result<Descriptor>;

    /// The bytes of a blob or document, from the range on, not checked: see [`SourceExt::open`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it is not here.
    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body>;

    /// Whether a blob or document is here.
    ///
    /// # Errors
    ///
    /// Only where the place could not be asked.
    async fn has(&self, descriptor: &Descriptor) -> Result<bool>;

    /// The manifests and indexes whose subject this digest is.
    ///
    /// # Errors
    ///
    /// Only where the place could not be asked; none is an empty list.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;

    /// The repository that holds a blob, if it is one: its registry can take the blob over without any bytes.
    fn repository(&self, _descriptor: &Descriptor) -> Option<&Repository> {
        None
    }
}

/// What every source can do, because it follows from the rest.
#[async_trait]
pub trait SourceExt: Source {
    /// The bytes of a blob, checked against size and digest as they pass.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] at once; [`Error::Mismatch`] as soon as it is known, at the latest in place of the last
    /// chunk.
    async fn open(&self, descriptor: &Descriptor) -> Result<Body> {
        let body = self.open_unverified(descriptor, ByteRange::ALL).await?;
        if body.length() != descriptor.size {
            let mismatch = Mismatch::Size { expected: descriptor.size, actual: body.length() };
            return Err(Error::mismatch(&descriptor.digest, self, mismatch));
        }
        Ok(body.verified(descriptor, self))
    }

    /// A whole blob in memory, checked.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::open`]; [`Error::Unsupported`] for a blob beyond 16 MiB, which is not what this is for.
    async fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        read_at_most(self, descriptor, MAX_READ_SIZE)?;
        self.open(descriptor).await?.bytes().await
    }

    /// The descriptor that a name stands for. If the name is a digest the descriptor has it, whatever the source says.
    ///
    /// # Errors
    ///
    /// As [`Source::resolve`]; [`Error::Mismatch`] if the source answers a digest with something else.
    async fn find(&self, name: &Name) -> Result<Descriptor> {
        let found = self.resolve(name).await?;
        match name {
            Name::Digest(pinned) if *pinned != found.digest => {
                Err(Error::mismatch(pinned, self, Mismatch::Digest(found.digest)))
            }
            _ => Ok(found),
        }
    }

    /// Finds out what is behind a descriptor: a document, checked and parsed, or a blob, of which no more is read than that
    /// takes. The bytes decide, since the media type of a descriptor may be wrong, unknown or missing.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::document`]. Also [`Error::Document`] for documents that are not understood and name other blobs.
    async fn content(&self, descriptor: &Descriptor) -> Result<Content> {
        if !descriptor.media_type.is_document() {
            let start = ByteRange { offset: 0, length: Some(SNIFFED_BYTES) };
            let start = self.open_unverified(descriptor, start).await?.bytes().await?;
            if start.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
                return Ok(Content::Blob);
            }
        }
        read_at_most(self, descriptor, MAX_DOCUMENT_SIZE)?;
        let bytes = self.read(descriptor).await?;
        Content::of(&descriptor.media_type, bytes).map_err(|source| Error::document(&descriptor.digest, self, source))
    }

    /// The manifest or index behind a descriptor, checked and understood.
    ///
    /// # Errors
    ///
    /// As [`SourceExt::read`], with [`MAX_DOCUMENT_SIZE`] as the limit, and [`Error::Document`].
    async fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        read_at_most(self, descriptor, MAX_DOCUMENT_SIZE)?;
        let bytes = self.read(descriptor).await?;
        Document::parse(&descriptor.media_type, bytes)
            .map_err(|source| Error::document(&descriptor.digest, self, source))
    }
}

impl<S: Source + ?Sized> SourceExt for S {}

/// How many bytes are read of what is not said to be a document, to see whether it may be one.
const SNIFFED_BYTES: u64 = 512;

/// The longest blob that is held in memory as a whole.
const MAX_READ_SIZE: u64 = 16 << 20;

/// Refuses what is too long for what it is.
pub(crate) fn read_at_most(place: &(impl Source + ?Sized), descriptor: &Descriptor, most: u64) -> Result<()> {
    if descriptor.size <= most {
        return Ok(());
    }
    let what =
        format!("{} has {} bytes, more than the {most} that are read at once", descriptor.digest, descriptor.size);
    Err(Error::Unsupported { place: place.to_string(), what })
}

/// A place that images are written to.
///
/// A sink is told what to hold and where to read it, and reads when and as often as it likes: retries, resuming,
/// mounting and "already there" are its own business.
#[async_trait]
pub trait Sink: Source {
    /// What is about to be put, in the order in which it will be. Places that lay things out in a row, or ask for many
    /// at once, make use of it; it is a promise of the caller only as to the order.
    ///
    /// # Errors
    ///
    /// Where the place cannot hold that much, for example.
    async fn expect(&self, _descriptors: &[Descriptor]) -> Result<()> {
        Ok(())
    }

    /// Holds a blob or document from now on, read from the source and checked on the way.
    ///
    /// Whatever a document points to has been put before. Nothing is visible under a name yet.
    ///
    /// # Errors
    ///
    /// Those of either side; then the place is as it was.
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put>;

    /// Makes sure that the place gives a root that was put to whoever asks for it, before it gets a name. Places that
    /// cannot take a document and lose it need not do anything.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if it gives another one, [`Error::Protocol`] if it gives none.
    async fn confirm(&self, _root: &Descriptor) -> Result<()> {
        Ok(())
    }

    /// Makes a root that was put visible, under a tag if there is one.
    ///
    /// # Errors
    ///
    /// Those of the place.
    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()>;

    /// Whether the order in which roots become visible can be seen afterwards: archives and layouts list them in it. Where
    /// there is no such order many are published at the same time.
    fn keeps_order(&self) -> bool {
        true
    }

    /// Completes the place; archives become files now. Dropped without it, what is new is not kept.
    ///
    /// # Errors
    ///
    /// Those of the place; then it is as it was.
    async fn finish(&self) -> Result<()> {
        Ok(())
    }

    /// The root that has a tag here, if there is one. Whoever is about to add to it asks the place itself, and not a mirror.
    ///
    /// # Errors
    ///
    /// Only where the place could not be asked.
    async fn tagged(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        match self.resolve(&Name::Tag(tag.clone())).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a root and everything below it is here already, under that tag if there is one, as far as the place can
    /// say so by itself. `false` is always a good answer: then everything is put, one by one.
    ///
    /// # Errors
    ///
    /// Only where the place could not be asked.
    async fn is_complete(&self, _root: &Descriptor, _naming: &Naming) -> Result<bool> {
        Ok(false)
    }
}

/// What chooses an image in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The only one there is.
    Only,
    /// The one with this tag.
    Tag(Tag),
    /// The one with this digest, or any document with it that a root leads to.
    Digest(Digest),
    /// The one with this full name, in a place that keeps full names.
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

impl From<&Reference> for Name {
    /// The digest if there is one, or the tag.
    fn from(reference: &Reference) -> Name {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Name::Digest(*digest),
            (None, tag) => Name::Tag(tag.cloned().unwrap_or_else(Tag::latest)),
        }
    }
}

/// How a root becomes visible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// The tag to give it.
    pub tag: Option<Tag>,
    /// Its full name, for places that keep one beside the tag.
    pub full: Option<String>,
    /// The root whose place and names it takes, if the place lists roots one by one. With a tag, only under that tag.
    pub replaces: Option<Digest>,
}

/// What it took to hold a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// It was there.
    Present,
    /// The registry took it over from another of its repositories.
    Mounted,
    /// Its bytes were read and written.
    Copied,
}

/// A range of a blob in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// Where it begins; at the end or behind it the range is empty.
    pub offset: u64,
    /// How many bytes it has at most; `None` for all that follow.
    pub length: Option<u64>,
}

impl ByteRange {
    /// The whole blob.
    pub const ALL: ByteRange = ByteRange { offset: 0, length: None };

    /// From this byte on.
    pub fn from(offset: u64) -> ByteRange {
        ByteRange { offset, length: None }
    }

    /// Offset and length of the range within this many bytes.
    pub fn within(&self, size: u64) -> (u64, u64) {
        let offset = self.offset.min(size);
        let rest = size - offset;
        (offset, self.length.map_or(rest, |length| length.min(rest)))
    }

    /// The range of these bytes, without a copy.
    pub fn of(&self, bytes: &Bytes) -> Bytes {
        let (offset, length) = self.within(bytes.len() as u64);
        // Both are within the length of the bytes.
        bytes.slice(offset as usize..(offset + length) as usize)
    }
}
