//! The signatures that are about a digest, as far as they can be read.

use bytes::Bytes;
use ocikit_image::{Error, Name, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, Manifest};

use crate::cosign::{bundle, simple};
use crate::format::Format;
use crate::refusal::Refusal;
use crate::sign::tag_of;

/// More signatures of one digest are not read.
const MOST: usize = 1000;
/// No envelope, bundle or payload is longer than this many bytes.
pub(crate) const LONGEST: u64 = 16 << 20;

/// A signature that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The manifest that leads to it.
    pub(crate) manifest: Digest,
    /// What it claims to be, if it got so far.
    pub(crate) format: Option<Format>,
    /// Layer and content, or why there is none.
    pub(crate) content: Result<(Descriptor, Bytes), Refusal>,
}

/// Reads the signatures of a digest in these formats. What is damaged is among them, and says so.
pub(crate) async fn find(source: &dyn Source, subject: &Digest, formats: &[Format]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    if formats.iter().any(|format| *format != Format::CosignLegacy) {
        for listed in source.referrers(subject).await? {
            if listed.artifact_type.as_ref().is_some_and(|kind| !is_of_signature(kind.as_str())) {
                continue;
            }
            found.extend(referrer(source, &listed, subject, formats).await?);
            limit(&found, subject)?;
        }
    }
    if formats.contains(&Format::CosignLegacy)
        && let Some(tag) = tag_of(subject)
    {
        match source.resolve(&Name::Tag(tag)).await {
            Ok(tagged) => found.extend(layers(source, &tagged).await?),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        limit(&found, subject)?;
    }
    Ok(found)
}

fn limit(found: &[Found], subject: &Digest) -> Result<(), Error> {
    if found.len() > MOST {
        return Err(Error::broken(subject, format!("more than {MOST} signatures are about it")));
    }
    Ok(())
}

/// Registries may leave out the type, or name that of the config.
fn is_of_signature(kind: &str) -> bool {
    kind.is_empty()
        || kind == NOTATION_TYPE
        || kind == "application/vnd.oci.empty.v1+json"
        || kind.starts_with("application/vnd.dev.sigstore.bundle")
}

/// The artifact type of signatures of the Notary Project, and once the type of their config.
pub(crate) const NOTATION_TYPE: &str = "application/vnd.cncf.notary.signature";
pub(crate) const JWS_TYPE: &str = "application/jose+json";
pub(crate) const COSE_TYPE: &str = "application/cose";

async fn referrer(
    source: &dyn Source,
    listed: &Descriptor,
    subject: &Digest,
    formats: &[Format],
) -> Result<Option<Found>, Error> {
    let refused = |why| Ok(Some(Found { manifest: listed.digest, format: None, content: Err(why) }));
    let manifest = match document(source, listed).await? {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => return Ok(None),
        Err(why) => return refused(why),
    };
    let kind = manifest.artifact_type().or_else(|| manifest.config().map(|config| &config.media_type));
    let Some(layer) = manifest.layers().first() else { return Ok(None) };
    let format = match (kind.map(|kind| kind.as_str()), layer.media_type.as_str()) {
        (Some(NOTATION_TYPE), JWS_TYPE) => Format::NotationJws,
        (Some(NOTATION_TYPE), COSE_TYPE) => Format::NotationCose,
        (Some(NOTATION_TYPE), other) => return refused(Refusal::NotUnderstood(format!("envelopes of type {other}"))),
        (Some(kind), _) if kind == bundle::MEDIA_TYPE => Format::Cosign,
        (Some(kind), _) if kind.starts_with("application/vnd.dev.sigstore.bundle") => {
            return refused(Refusal::NotUnderstood(format!("bundles of type {kind}")));
        }
        _ => return Ok(None),
    };
    if !formats.contains(&format) {
        return Ok(None);
    }
    let content = match well_formed(&manifest, subject) {
        Ok(layer) => content(source, &layer).await?,
        Err(why) => Err(why),
    };
    Ok(Some(Found { manifest: listed.digest, format: Some(format), content }))
}

/// The one layer of a signature about the subject.
fn well_formed(manifest: &Manifest, subject: &Digest) -> Result<Descriptor, Refusal> {
    match manifest.subject() {
        Some(found) if found.digest == *subject => {}
        Some(other) => return Err(Refusal::OtherSubject(other.digest.to_string())),
        None => return Err(Refusal::Malformed("its manifest has no subject".to_owned())),
    }
    match manifest.layers() {
        [layer] => Ok(layer.clone()),
        _ => Err(Refusal::Malformed("its manifest has not one layer".to_owned())),
    }
}

/// The signatures below cosign's tag: one in each layer.
async fn layers(source: &dyn Source, tagged: &Descriptor) -> Result<Vec<Found>, Error> {
    let format = Some(Format::CosignLegacy);
    let found = |content| Found { manifest: tagged.digest, format, content };
    let manifest = match document(source, tagged).await? {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => return Ok(Vec::new()),
        Err(why) => return Ok(vec![found(Err(why))]),
    };
    let mut all = Vec::new();
    let wanted = manifest.layers().iter().filter(|layer| layer.media_type.as_str() == simple::LAYER_TYPE);
    for layer in wanted.take(MOST + 1) {
        all.push(found(content(source, layer).await?));
    }
    Ok(all)
}

async fn document(source: &dyn Source, descriptor: &Descriptor) -> Result<Result<Document, Refusal>, Error> {
    if !descriptor.media_type.is_document() {
        return Ok(Err(Refusal::Malformed(format!("its manifest is of type {}", descriptor.media_type))));
    }
    or_refusal(source.document(descriptor).await)
}

async fn content(source: &dyn Source, layer: &Descriptor) -> Result<Result<(Descriptor, Bytes), Refusal>, Error> {
    if layer.size > LONGEST {
        return Ok(Err(Refusal::Malformed(format!("it has {} bytes", layer.size))));
    }
    let bytes = or_refusal(source.read(layer).await)?;
    Ok(bytes.map(|bytes| (layer.clone(), bytes)))
}

/// What is damaged or missing is a signature that does not count; a place that does not answer is no answer.
fn or_refusal<T>(read: Result<T, Error>) -> Result<Result<T, Refusal>, Error> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(
            error @ (Error::NotFound { .. }
            | Error::Mismatch { .. }
            | Error::Document { .. }
            | Error::Unsupported { .. }),
        ) => Ok(Err(Refusal::Malformed(error.to_string()))),
        Err(error) => Err(error),
    }
}
