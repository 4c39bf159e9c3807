use jiff::Timestamp;
use ocikit_image::{Name, Root, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, Manifest, MediaType, annotations};

use crate::budget::{MAX_BUNDLE_BYTES, SignatureBudget};
use crate::cosign::{bundle, statement};
use crate::created::Created;
use crate::error::{Error, OtherStatement, Result, expect_digest};
use crate::format::{Format, of_bundle};
use crate::predicate::check_not_reserved;
use crate::refusal::Refusal;
use crate::sign::check_certificate;
use crate::signatures::Signatures;
use crate::signer::Signer;
use crate::sigstore::VerificationMaterial;
use crate::store::{NewSignatures, Signature};
use crate::subjects::{Depth, Subject, subjects};

/// Options of promoting BuildKit attestations.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PromoteOptions {
    /// The predicate types to sign; empty for all.
    pub predicate_types: Vec<String>,
    /// Digests of images before they were annotated. A statement about one of them is signed for the image as it is
    /// now, and records the digest that it named.
    pub annotated_from: Vec<Digest>,
    /// The expected digest of the root.
    pub expect: Option<Digest>,
    /// The creation time in the new attestations.
    pub created: Timestamp,
    /// The verification material to add: certificates, log entries, timestamps.
    pub material: Option<VerificationMaterial>,
}

ocikit_spec::setters! {
    PromoteOptions {
        predicate_types: Vec<String>,
        annotated_from: Vec<Digest>,
        expect: Option<Digest>,
        created: Timestamp,
        material: Option<VerificationMaterial>,
    }
}

impl PromoteOptions {
    /// Returns options for this time: statements of all types, any digest. The time is as in
    /// [`SignOptions::new`](crate::SignOptions::new).
    pub fn new(created: impl Into<Created>) -> PromoteOptions {
        PromoteOptions {
            predicate_types: Vec::new(),
            annotated_from: Vec::new(),
            expect: None,
            created: created.into().timestamp(),
            material: None,
        }
    }
}

/// Signs the statements that BuildKit attached to the images of an index, byte for byte, as bundles about these
/// images. Nothing is written; BuildKit's own attestation manifests are unchanged.
///
/// The only subject of a statement must be the image that its index entry and its manifest name. BuildKit omits the
/// subject if the image had no name yet; it is then inserted. A statement that the same key signed already is
/// skipped, unless verification material is added.
///
/// # Errors
///
/// [`Error::OtherStatement`] if a statement names another digest, [`Error::Refused`] if it is malformed,
/// [`Error::Unsupported`] if there is none to sign, [`Error::Moved`] if the root is not the expected one;
/// [`Error::Signer`]; errors of the location.
pub async fn promote(root: &Root, signer: &dyn Signer, options: &PromoteOptions) -> Result<Vec<Signature>> {
    expect_digest(root, options.expect)?;
    check_certificate(signer, options.material.as_ref())?;
    let new = &NewSignatures::default();
    let (mut made, mut is_there, mut other) = (Vec::new(), false, Vec::new());
    let all = subjects(root, Depth::Everything, &new.budget).await?;
    for attestation in all.iter().filter(|subject| subject.claims.is_some()) {
        let Document::Manifest(manifest) = attestation.source.document(&attestation.descriptor).await? else {
            return Err(Error::Refused(malformed(attestation, "it is an index")));
        };
        let image = about(attestation, &manifest, &all).map_err(Error::Refused)?;
        for layer in manifest.layers() {
            let Some(bytes) = read_statement(attestation, layer, options, &new.budget).await? else { continue };
            let is_before = |digest: &Digest| options.annotated_from.contains(digest);
            let unsigned = match statement::for_subject(&bytes, &image.digest(), is_before) {
                Err(Refusal::OtherSubject(named)) => {
                    let named = OtherStatement { image: image.digest(), named, is_annotated: false };
                    if !other.iter().any(|known: &OtherStatement| known.named == named.named) {
                        other.push(named);
                    }
                    continue;
                }
                unsigned => unsigned.map_err(Error::Refused)?,
            };
            drop(bytes);
            check_not_reserved(&unsigned.kind)?;
            if !options.predicate_types.is_empty() && !options.predicate_types.contains(&unsigned.kind) {
                continue;
            }
            if let Some(before) = unsigned.before
                && origin(image, &before).await? == Origin::Other
            {
                return Err(Error::Unsupported(format!(
                    "cannot sign statements about {before} for {}: the two have different configs",
                    image.digest()
                )));
            }
            // The existing signature may lack the verification material.
            if options.material.is_none() && is_signed(image, &unsigned.bytes, signer, &new.budget).await? {
                is_there = true;
                continue;
            }
            made.push(promoted(image, unsigned, signer, options, new).await?);
        }
    }
    if !other.is_empty() {
        for statement in &mut other {
            let image = all.iter().find(|subject| subject.digest() == statement.image);
            let named: Option<Digest> = statement.named.parse().ok();
            if let (Some(image), Some(named)) = (image, named) {
                statement.is_annotated = origin(image, &named).await? == Origin::Annotated;
            }
        }
        return Err(Error::OtherStatement(other));
    }
    match made.is_empty() && !is_there {
        true => Err(Error::Unsupported("it has no attestations of BuildKit that could be signed".to_owned())),
        false => Ok(made),
    }
}

async fn promoted(
    image: &Subject,
    unsigned: statement::Unsigned,
    signer: &dyn Signer,
    options: &PromoteOptions,
    new: &NewSignatures,
) -> Result<Signature> {
    let bundle = bundle::seal(&unsigned.bytes, signer, options.material.as_ref()).await?;
    let mut content = of_bundle(bundle.into(), unsigned.kind, options.created);
    let annotated_from = unsigned.before.map(|before| (statement::ANNOTATED_FROM.to_owned(), before.to_string()));
    content.annotations.extend(annotated_from);
    new.add(image, Format::Cosign, content).await
}

/// Returns whether the same key signed this statement already.
async fn is_signed(image: &Subject, statement: &[u8], signer: &dyn Signer, budget: &SignatureBudget) -> Result<bool> {
    let mut signatures = Signatures::of(&*image.source, image.digest(), &[Format::Cosign], budget).await?;
    while let Some(found) = signatures.next().await? {
        if let Ok((_, bundle)) = &found.content
            && bundle::is_of(bundle, statement, signer.public_key())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How an image differs from an earlier one.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    /// In annotations only.
    Annotated,
    /// In the compression of its layers: the config, which lists the uncompressed ones, is the same.
    Recompressed,
    /// In its config or layers as well.
    Other,
    /// Unknown, because the earlier manifest no longer exists.
    Unknown,
}

/// The maximum number of annotations that are removed in all combinations.
const MAX_TRIED_ANNOTATIONS: usize = 8;

/// Returns how an image differs from the one with digest `before`. Compares the two manifests if the location still
/// has the earlier one; otherwise removes annotations until the digest matches.
async fn origin(image: &Subject, before: &Digest) -> Result<Origin> {
    let Document::Manifest(now) = image.source.document(&image.descriptor).await? else { return Ok(Origin::Unknown) };
    let parts = |manifest: &Manifest| {
        let parts = manifest.config().into_iter().chain(manifest.layers());
        parts.map(|part| part.digest).collect::<Vec<_>>()
    };
    match image.source.resolve(&Name::Digest(*before)).await {
        Ok(found) if found.digest == *before && found.media_type.is_manifest() => {
            let Document::Manifest(old) = image.source.document(&found).await? else { return Ok(Origin::Unknown) };
            let config = |manifest: &Manifest| manifest.config().map(|config| config.digest);
            return Ok(match parts(&old) == parts(&now) {
                true => Origin::Annotated,
                false if config(&old).is_some() && config(&old) == config(&now) => Origin::Recompressed,
                false => Origin::Other,
            });
        }
        Ok(_) => return Ok(Origin::Other),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let keys: Vec<_> = now.annotations().iter().map(|(key, _)| key).take(MAX_TRIED_ANNOTATIONS + 1).collect();
    if keys.len() > MAX_TRIED_ANNOTATIONS {
        return Ok(Origin::Unknown);
    }
    for chosen in 1_usize..1 << keys.len() {
        let mut edit = now.edit();
        for (_, key) in keys.iter().enumerate().filter(|(position, _)| chosen & (1 << position) != 0) {
            edit.remove_annotation(key);
        }
        if edit.finish().is_ok_and(|old| Digest::of(before.algorithm(), old.bytes()) == *before) {
            return Ok(Origin::Annotated);
        }
    }
    Ok(Origin::Unknown)
}

fn malformed(attestation: &Subject, why: &str) -> Refusal {
    Refusal::Malformed(format!("the attestation {}: {why}", attestation.digest()))
}

/// Returns the image that an attestation is about: the one that the index entry names, and the manifest too if it has
/// a subject.
fn about<'a>(attestation: &Subject, manifest: &Manifest, all: &'a [Subject]) -> Result<&'a Subject, Refusal> {
    let named = attestation.claims.as_ref().and_then(|claim| claim.about.as_ref());
    let named: Digest =
        named.and_then(|text| text.parse().ok()).ok_or_else(|| malformed(attestation, "it names no image"))?;
    if manifest.subject().is_some_and(|own| own.digest != named) {
        return Err(malformed(attestation, "its index entry and its manifest name different images"));
    }
    let image = all.iter().find(|subject| subject.digest() == named && subject.claims.is_none());
    image.ok_or_else(|| malformed(attestation, "the image that it names is not in the index"))
}

/// Reads the statement in a layer, if it is one and its type is wanted.
async fn read_statement(
    attestation: &Subject,
    layer: &Descriptor,
    options: &PromoteOptions,
    budget: &SignatureBudget,
) -> Result<Option<Vec<u8>>> {
    if layer.media_type != MediaType::IN_TOTO {
        return Ok(None);
    }
    let types = &options.predicate_types;
    // The annotation is only a hint that saves reading unwanted statements.
    let hint = layer.annotations.get(annotations::PREDICATE_TYPE);
    if !types.is_empty() && hint.is_some_and(|hint| !types.iter().any(|kind| kind == hint)) {
        return Ok(None);
    }
    if layer.size > MAX_BUNDLE_BYTES {
        return Err(Error::Unsupported(format!(
            "the statement {} has {} bytes, more than the {MAX_BUNDLE_BYTES} that are read",
            layer.digest, layer.size
        )));
    }
    Ok(Some(budget.read(&*attestation.source, layer).await?.bytes.to_vec()))
}
