//! The signatures of a digest, read one after the other.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use ocikit_image::{Error, Name, Source};
use ocikit_spec::{Descriptor, Digest, Document, Manifest, Tag};
use tokio::sync::SemaphorePermit;

use crate::budget::{MAX_SIGNATURE_MANIFEST_BYTES, MAX_SIGNATURES_OF_DIGEST, SignatureBudget};
use crate::cosign::simple;
use crate::format::{Format, Storage};
use crate::refusal::{Refusal, malformed};

/// A signature that was found.
#[derive(Debug)]
pub(crate) struct FoundSignature<'a> {
    /// The manifest that holds the signature.
    pub(crate) manifest: Digest,
    /// The format of the signature, if it is known.
    pub(crate) format: Option<Format>,
    /// The layer and its content, or why they cannot be used.
    pub(crate) content: Result<(Descriptor, Bytes), Refusal>,
    /// The share of the budget that the content takes until it is dropped.
    _permit: Option<SemaphorePermit<'a>>,
}

impl FoundSignature<'static> {
    /// Returns a signature that was not read from a location.
    pub(crate) fn given(format: Format, layer: Descriptor, content: Bytes) -> FoundSignature<'static> {
        FoundSignature { manifest: layer.digest, format: Some(format), content: Ok((layer, content)), _permit: None }
    }
}

/// The signatures of a digest in some formats. Damaged signatures are returned with the reason; duplicates are
/// returned once.
#[derive(Debug)]
pub(crate) struct Signatures<'a> {
    source: &'a dyn Source,
    subject: Digest,
    formats: &'a [Format],
    budget: &'a SignatureBudget,
    /// Referrers that the location lists and that are not read yet.
    listed: VecDeque<Descriptor>,
    /// The format that is stored under the signature tag, until the tag is resolved.
    unresolved: Option<Format>,
    /// The manifest under the signature tag, the format, and its layers that are not read yet.
    layers: VecDeque<(Digest, Format, Descriptor)>,
    /// Hashes of everything that decides about a signature, so that a copy is not read again.
    seen: HashSet<Digest>,
    /// The number of signatures examined so far.
    count: usize,
}

impl<'a> Signatures<'a> {
    /// Lists the signatures of a digest. This requests the list of referrers.
    pub(crate) async fn of(
        source: &'a dyn Source,
        subject: Digest,
        formats: &'a [Format],
        budget: &'a SignatureBudget,
    ) -> Result<Signatures<'a>, Error> {
        let mut listed = VecDeque::new();
        let (tagged, referrers): (Vec<Format>, Vec<_>) =
            formats.iter().partition(|format| format.properties().storage == Storage::Tag);
        if !referrers.is_empty() {
            let may_be = |listed: &Descriptor| {
                listed.artifact_type.as_ref().is_none_or(|kind| Format::may_be_listed_as(kind.as_str()))
            };
            listed
                .extend(source.referrers(&subject).await?.iter().filter(|listed| may_be(listed)).map(Descriptor::bare));
        }
        let (unresolved, layers, seen) = (tagged.first().copied(), VecDeque::new(), HashSet::new());
        Ok(Signatures { source, subject, formats, budget, listed, unresolved, layers, seen, count: 0 })
    }

    /// Returns the next signature. Drop the previous one first: both count against the budget.
    pub(crate) async fn next(&mut self) -> Result<Option<FoundSignature<'a>>, Error> {
        while let Some(listed) = self.listed.pop_front() {
            self.count()?;
            if let Some(found) = self.referrer(&listed).await? {
                return Ok(Some(found));
            }
        }
        if let Some(format) = self.unresolved.take()
            && let Some(found) = self.tagged(format).await?
        {
            return Ok(Some(found));
        }
        while let Some((manifest, format, layer)) = self.layers.pop_front() {
            self.count()?;
            if self.is_new(format, &layer) {
                return self.content(manifest, format, layer).await.map(Some);
            }
        }
        Ok(None)
    }

    fn count(&mut self) -> Result<(), Error> {
        self.count += 1;
        self.budget.count_signature(&self.subject, self.count)
    }

    /// Returns whether no earlier signature had this format, layer and content, which alone decide about a signature.
    fn is_new(&mut self, format: Format, layer: &Descriptor) -> bool {
        // Signatures stored as referrers have no annotations here, because theirs are not evaluated.
        let annotations = serde_json::to_string(&layer.annotations).unwrap_or_default();
        let key = format!("{format} {} {} {annotations}", layer.digest, layer.size);
        self.seen.insert(Digest::sha256_of(key.as_bytes()))
    }

    async fn referrer(&mut self, listed: &Descriptor) -> Result<Option<FoundSignature<'a>>, Error> {
        let refused = |format, why| {
            Ok(Some(FoundSignature { manifest: listed.digest, format, content: Err(why), _permit: None }))
        };
        let manifest = self.manifest(listed, MAX_SIGNATURE_MANIFEST_BYTES).await?;
        let part =
            manifest.and_then(|manifest| manifest.map_or(Ok(None), |found| signature_part(&found, &self.subject)));
        let (format, layer) = match part {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(None),
            Err(why) => return refused(None, why),
        };
        if !self.formats.contains(&format) {
            return Ok(None);
        }
        match layer {
            Err(why) => refused(Some(format), why),
            Ok(layer) if self.is_new(format, &layer) => self.content(listed.digest, format, layer).await.map(Some),
            Ok(_) => Ok(None),
        }
    }

    /// Reads the manifest under the signature tag; each of its layers is a signature.
    async fn tagged(&mut self, format: Format) -> Result<Option<FoundSignature<'a>>, Error> {
        let Some(tag) = tag_of(&self.subject) else { return Ok(None) };
        let tagged = match self.source.resolve(&Name::Tag(tag)).await {
            Ok(tagged) => tagged,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let manifest = match self.manifest(&tagged, ocikit_spec::MAX_DOCUMENT_BYTES).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(None),
            Err(why) => {
                let (manifest, format) = (tagged.digest, Some(format));
                return Ok(Some(FoundSignature { manifest, format, content: Err(why), _permit: None }));
            }
        };
        let layers = manifest.layers().iter().filter(|layer| layer.media_type.as_str() == simple::LAYER_TYPE);
        // One more than the limit, so that exceeding it is noticed.
        let layers = layers
            .take(MAX_SIGNATURES_OF_DIGEST + 1)
            .map(|layer| (tagged.digest, format, simple::without_unused_fields(layer)));
        self.layers = layers.collect();
        Ok(None)
    }

    /// Reads a manifest; `None` for an index.
    async fn manifest(
        &self,
        descriptor: &Descriptor,
        max_bytes: u64,
    ) -> Result<Result<Option<Manifest>, Refusal>, Error> {
        if !descriptor.media_type.is_document() {
            return Ok(Err(malformed(format!("its manifest is of type {}", descriptor.media_type))));
        }
        if descriptor.size > max_bytes {
            return Ok(Err(malformed(format!(
                "its manifest has {} bytes, more than the {max_bytes} that are read",
                descriptor.size
            ))));
        }
        let document = match or_refusal(self.budget.document(self.source, descriptor).await)? {
            Ok(reading) => Document::parse(&descriptor.media_type, reading.bytes),
            Err(why) => return Ok(Err(why)),
        };
        Ok(match document {
            Ok(Document::Manifest(manifest)) => Ok(Some(manifest)),
            Ok(Document::Index(_)) => Ok(None),
            Err(error) => Err(malformed(error)),
        })
    }

    async fn content(&self, manifest: Digest, format: Format, layer: Descriptor) -> Result<FoundSignature<'a>, Error> {
        let found = |content, permit| FoundSignature { manifest, format: Some(format), content, _permit: permit };
        let max_bytes = format.properties().max_bytes;
        if layer.size > max_bytes {
            let why = format!("it has {} bytes, more than the {max_bytes} that are read", layer.size);
            return Ok(found(Err(Refusal::Malformed(why)), None));
        }
        Ok(match or_refusal(self.budget.read(self.source, &layer).await)? {
            Ok(reading) => found(Ok((layer, reading.bytes)), Some(reading.permit)),
            Err(why) => found(Err(why), None),
        })
    }
}

/// Returns the tag under which older cosign versions store signatures; `None` if the digest is too long for a tag.
pub(crate) fn tag_of(subject: &Digest) -> Option<Tag> {
    format!("{}-{}.sig", subject.algorithm().name(), subject.hex()).parse().ok()
}

/// The format of a signature and its layer, or why the layer cannot be used; `None` for other artifacts.
type SignaturePart = Option<(Format, Result<Descriptor, Refusal>)>;

fn signature_part(manifest: &Manifest, subject: &Digest) -> Result<SignaturePart, Refusal> {
    let kind = manifest.artifact_type().or_else(|| manifest.config().map(|config| &config.media_type));
    let Some(layer) = manifest.layers().first() else { return Ok(None) };
    let Some(kind) = kind else { return Ok(None) };
    let Some(format) = Format::detect(kind.as_str(), layer.media_type.as_str())? else { return Ok(None) };
    Ok(Some((format, only_layer(manifest, subject))))
}

/// Returns the only layer of a signature manifest about this subject.
fn only_layer(manifest: &Manifest, subject: &Digest) -> Result<Descriptor, Refusal> {
    match manifest.subject() {
        Some(found) if found.digest == *subject => {}
        Some(other) => return Err(Refusal::OtherSubject(other.digest.to_string())),
        None => return Err(malformed("its manifest has no subject")),
    }
    match manifest.layers() {
        [layer] => Ok(layer.bare()),
        _ => Err(malformed("its manifest does not have exactly one layer")),
    }
}

/// Turns a missing or damaged document into a refused signature. Errors of the location and exceeded limits stay
/// errors.
fn or_refusal<T>(read: Result<T, Error>) -> Result<Result<T, Refusal>, Error> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error @ (Error::NotFound { .. } | Error::Mismatch { .. } | Error::Document { .. })) => {
            Ok(Err(malformed(error)))
        }
        Err(error) => Err(error),
    }
}
