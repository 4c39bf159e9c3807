use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ocikit_image::{CopyOptions, Memory, Name, Naming, Referrers, Root, Sink, SourceExt, copy_all};
use ocikit_spec::{Annotations, Descriptor, Digest, MediaType, Platform, annotations};
use serde_json::{Map, Value, json};

use crate::budget::{Budget, MAX_BUNDLE_BYTES, MAX_SIGNATURES_OF_DIGEST, limit};
use crate::cosign::{bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::notation::{self, Chain, EnvelopeFormat, EnvelopeSigner, NotationPlugin, SigningScheme};
use crate::overlay::Overlay;
use crate::signatures::{COSE_TYPE, JWS_TYPE, NOTATION_TYPE, tag_of};
use crate::signer::Signer;
use crate::sigstore::VerificationMaterial;
use crate::subjects::{Depth, Subject, SubjectKind, subjects};
use crate::timestamp::TimestampAuthority;

/// Options of signing.
#[derive(Debug, Clone)]
pub struct SignOptions {
    /// The signature formats; each digest gets one signature per format.
    pub formats: Vec<Format>,
    /// Which manifests below the root are signed.
    pub depth: Depth,
    /// The expected digest of the root, for callers that resolved a tag before.
    pub expect: Option<Digest>,
    /// The name under which images are signed, in formats that have one: registry and repository. Empty for an image
    /// outside of a repository, such as in an archive.
    pub reference: String,
    /// The creation time in signatures.
    pub created: Timestamp,
    /// Options for the Notary Project formats; required for them.
    pub notation: Option<NotationOptions>,
    /// The verification material to add in cosign's formats: certificates, log entries, timestamps.
    pub material: Option<VerificationMaterial>,
}

/// Options for Notary Project envelopes.
#[derive(Debug, Clone)]
pub struct NotationOptions {
    /// The certificate chain of the signer; ignored for plugins, which have their own.
    pub chain: Option<Chain>,
    /// The expiry time of the signature.
    pub expiry: Option<Timestamp>,
    /// Additional metadata to sign.
    pub metadata: Annotations,
    /// Where the signing time comes from.
    pub scheme: SigningScheme,
    /// A timestamp authority. It is requested for each signature, and the timestamp is verified and stored with the
    /// signature.
    pub authority: Option<TimestampAuthority>,
}

impl SignOptions {
    /// Returns options for these formats and this time: the root only, any digest, no name.
    pub fn new(formats: Vec<Format>, created: Timestamp) -> SignOptions {
        SignOptions {
            formats,
            depth: Depth::Root,
            expect: None,
            reference: String::new(),
            created,
            notation: None,
            material: None,
        }
    }
}

/// A signature that is not stored yet; [`attach`] stores it with its subject.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The signed subject: media type, digest and size.
    pub subject: Descriptor,
    /// The platform of the index entry, if it has one.
    pub platform: Option<Platform>,
    /// The format.
    pub format: Format,
    /// The manifest of the signature and everything below it.
    pub root: Root,
    /// The tag of the signature, in formats that have one.
    pub naming: Naming,
}

/// Signs a root and, depending on the options, manifests below it. Nothing is written.
///
/// # Errors
///
/// [`Error::Moved`] if the root is not the expected one; [`Error::Signer`] if the signer fails; errors of the image's
/// location.
pub async fn sign(root: &Root, signer: &dyn Signer, options: &SignOptions) -> Result<Vec<Signature>> {
    if let Some(expected) = options.expect.filter(|expected| *expected != root.digest()) {
        return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) });
    }
    is_of(signer, options.material.as_ref())?;
    let place = &SigningContext::default();
    let subjects = signable(root, options.depth, &place.budget).await?;
    let all = subjects.iter().flat_map(|subject| options.formats.iter().map(move |format| (subject, *format)));
    let made = all.map(|(subject, format)| one(subject, format, signer, options, place).boxed());
    at_once(made.collect(), options.material.as_ref()).await
}

/// New signatures before they are stored, and the budget of the operation.
#[derive(Debug, Default)]
pub(crate) struct SigningContext {
    pub(crate) memory: Arc<Memory>,
    pub(crate) budget: Budget,
}

/// Returns the subjects to sign. All must be understood: verification refuses signatures of anything else.
async fn signable(root: &Root, depth: Depth, budget: &Budget) -> Result<Vec<Subject>> {
    let subjects = subjects(root, depth, budget).await?;
    for subject in &subjects {
        if let SubjectKind::NotUnderstood(why) = &subject.kind {
            let digest = subject.digest();
            return Err(Error::Unsupported(format!("cannot sign {digest} below {}: {why}", root.digest())));
        }
    }
    Ok(subjects)
}

/// Signs one subject in one format.
async fn one(
    subject: &Subject,
    format: Format,
    signer: &dyn Signer,
    options: &SignOptions,
    place: &SigningContext,
) -> Result<Signature> {
    let by = || {
        let needs = || Error::Unsupported("a signature of the Notary Project needs certificates".to_owned());
        let chain = options.notation.as_ref().and_then(|notation| notation.chain.as_ref()).ok_or_else(needs)?;
        Ok::<_, Error>(EnvelopeSigner::Key { signer, chain })
    };
    let (manifest, naming) = match format {
        Format::Cosign => {
            let (kind, nothing) = (bundle::PREDICATE_TYPE, Value::Object(Map::new()));
            let beside = (options.created, options.material.as_ref());
            (bundled(subject, kind, &nothing, signer, beside, place).await?, Naming::default())
        }
        Format::CosignLegacy => simply(subject, signer, options, place).await?,
        Format::NotationJws => (sealed(EnvelopeFormat::Jws, subject, by()?, options, place).await?, Naming::default()),
        Format::NotationCose => {
            (sealed(EnvelopeFormat::Cose, subject, by()?, options, place).await?, Naming::default())
        }
    };
    signature(subject, format, &manifest, naming, place).await
}

/// Returns the signature for a manifest that was created.
pub(crate) async fn signature(
    subject: &Subject,
    format: Format,
    manifest: &Bytes,
    naming: Naming,
    place: &SigningContext,
) -> Result<Signature> {
    place.budget.count_created_manifest(&subject.digest(), manifest.len())?;
    // Existing layers are not copied to memory but read from the location of the subject.
    let source = Overlay { made: place.memory.clone(), place: subject.source.clone() };
    let root = Root::at(Arc::new(source), Descriptor::of(MediaType::OCI_MANIFEST, manifest)).await?;
    Ok(Signature { subject: subject.descriptor(), platform: subject.platform.clone(), format, root, naming })
}

/// Runs the signing operations, in order. Logs take about a second per entry, so with verification material 8 run
/// concurrently. A signer alone runs one at a time.
async fn at_once(
    made: Vec<BoxFuture<'_, Result<Signature>>>,
    material: Option<&VerificationMaterial>,
) -> Result<Vec<Signature>> {
    let jobs = if material.is_some() { 8 } else { 1 };
    stream::iter(made).buffered(jobs).try_collect().await
}

/// Signs with a notation plugin, in the Notary Project formats. Nothing is written.
///
/// # Errors
///
/// Those of [`sign`]; [`Error::Unsupported`] for other formats; [`Error::Refused`] if the plugin creates an envelope
/// that verification would refuse.
pub async fn sign_by_plugin(root: &Root, plugin: &NotationPlugin, options: &SignOptions) -> Result<Vec<Signature>> {
    if let Some(expected) = options.expect.filter(|expected| *expected != root.digest()) {
        return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) });
    }
    let place = &SigningContext::default();
    let mut made = Vec::new();
    for subject in signable(root, options.depth, &place.budget).await? {
        for format in &options.formats {
            let envelope_format = match format {
                Format::NotationJws => EnvelopeFormat::Jws,
                Format::NotationCose => EnvelopeFormat::Cose,
                other => return Err(Error::Unsupported(format!("a plugin of notation does not sign as {other}"))),
            };
            let manifest = sealed(envelope_format, &subject, EnvelopeSigner::Plugin(plugin), options, place).await?;
            made.push(signature(&subject, *format, &manifest, Naming::default(), place).await?);
        }
    }
    Ok(made)
}

/// Options of attesting.
#[derive(Debug, Clone)]
pub struct AttestOptions {
    /// The predicate type, a URI.
    pub predicate_type: String,
    /// The predicate, in the format that its type defines.
    pub predicate: Value,
    /// Which manifests below the root are attested; each gets the same predicate.
    pub depth: Depth,
    /// The expected digest of the root.
    pub expect: Option<Digest>,
    /// The creation time in attestations.
    pub created: Timestamp,
    /// The verification material to add: certificates, log entries, timestamps.
    pub material: Option<VerificationMaterial>,
}

/// Attests a root and, depending on the options, manifests below it: signs an in-toto statement in a bundle, as
/// cosign does. Nothing is written.
///
/// # Errors
///
/// Those of [`sign`]; [`Error::Unsupported`] if the predicate type is that of plain signatures, or the statement is
/// longer than what verification reads.
pub async fn attest(root: &Root, signer: &dyn Signer, options: &AttestOptions) -> Result<Vec<Signature>> {
    if let Some(expected) = options.expect.filter(|expected| *expected != root.digest()) {
        return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) });
    }
    let AttestOptions { predicate_type, predicate, created, .. } = options;
    is_of(signer, options.material.as_ref())?;
    // An attestation must not be mistaken for an approval of the image.
    if predicate_type == bundle::PREDICATE_TYPE {
        return Err(Error::Unsupported("that predicate type is reserved for signatures".to_owned()));
    }
    let place = &SigningContext::default();
    let subjects = signable(root, options.depth, &place.budget).await?;
    let made = subjects.iter().map(|subject| {
        async move {
            let beside = (*created, options.material.as_ref());
            let manifest = bundled(subject, predicate_type, predicate, signer, beside, place).await?;
            signature(subject, Format::Cosign, &manifest, Naming::default(), place).await
        }
        .boxed()
    });
    at_once(made.collect(), options.material.as_ref()).await
}

/// Checks that the certificate in the verification material belongs to the signer.
pub(crate) fn is_of(signer: &dyn Signer, material: Option<&VerificationMaterial>) -> Result<()> {
    let Some(leaf) = material.and_then(VerificationMaterial::leaf) else { return Ok(()) };
    match leaf.key() {
        Ok(key) if key == *signer.public_key() => Ok(()),
        _ => Err(Error::Certificates(format!("that of `{}` is for another key", leaf.subject()))),
    }
}

/// Stores signatures with their subjects: as referrers, or under their tags. Nothing else is changed, and the sink is
/// finished.
///
/// # Errors
///
/// Errors of the location.
pub async fn attach(signatures: &[Signature], to: &Arc<dyn Sink>, options: &CopyOptions) -> Result<()> {
    let roots: Vec<_> =
        signatures.iter().map(|signature| (signature.root.clone(), vec![signature.naming.clone()])).collect();
    let options = CopyOptions { referrers: Referrers::None, only: Vec::new(), ..options.clone() };
    let copied = copy_all(&roots, to, &options).await?;
    match copied.iter().flat_map(|copied| &copied.kept).next() {
        // The tag points to something other than signatures, and was not overwritten.
        Some(kept) => {
            let what = format!("{} ({})", kept.tag, kept.there);
            Err(ocikit_image::Error::Exists { what, place: to.to_string() }.into())
        }
        None => Ok(()),
    }
}

async fn bundled(
    subject: &Subject,
    predicate_type: &str,
    predicate: &Value,
    signer: &dyn Signer,
    (created, material): (Timestamp, Option<&VerificationMaterial>),
    place: &SigningContext,
) -> Result<Bytes> {
    let bundle = bundle::sign(&subject.digest(), predicate_type, predicate, signer, material).await?;
    wrapped(subject, predicate_type, bundle, (created, &[]), place)
}

/// Creates the manifest of a bundle.
pub(crate) fn wrapped(
    subject: &Subject,
    predicate_type: &str,
    bundle: Vec<u8>,
    (created, more): (Timestamp, &[(&str, String)]),
    place: &SigningContext,
) -> Result<Bytes> {
    if bundle.len() as u64 > MAX_BUNDLE_BYTES {
        let length = bundle.len();
        let what = format!("its bundle would have {length} bytes, more than the {MAX_BUNDLE_BYTES} that are read");
        return Err(limit(subject.digest(), what).into());
    }
    place.budget.count_created(&subject.digest(), bundle.len() as u64)?;
    let notes = [
        ("dev.sigstore.bundle.content", "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType", predicate_type.to_owned()),
        (annotations::CREATED, seconds(created)),
    ];
    let notes = [&notes[..], more].concat();
    // cosign 3 also writes the artifact type into the config descriptor, and `cosign clean` finds no other bundles
    // (sigstore/cosign, pkg/oci/remote/write.go).
    let artifact_type = Some(MediaType::new(bundle::MEDIA_TYPE));
    let config = Descriptor { artifact_type, ..Descriptor::of(MediaType::OCI_EMPTY, EMPTY) };
    Ok(referrer(subject, Some(bundle::MEDIA_TYPE), config, (bundle::MEDIA_TYPE, bundle), &notes, &place.memory))
}

async fn sealed(
    envelope_format: EnvelopeFormat,
    subject: &Subject,
    by: EnvelopeSigner<'_>,
    options: &SignOptions,
    place: &SigningContext,
) -> Result<Bytes> {
    let needs = || Error::Unsupported("Notary Project signatures need `notation` options".to_owned());
    let NotationOptions { expiry, metadata, scheme, authority, .. } = options.notation.as_ref().ok_or_else(needs)?;
    let (scheme, authority) = (*scheme, authority.as_ref());
    let inside = notation::Options { by, time: options.created, expiry: *expiry, metadata, scheme, authority };
    let (envelope, more) = notation::sign(envelope_format, &subject.descriptor(), &inside).await?;
    // A plugin puts its own certificates into the envelope, and may name a verification plugin.
    let opened = match by {
        EnvelopeSigner::Key { .. } => notation::open(envelope_format, &envelope),
        EnvelopeSigner::Plugin(_) => notation::open_extended(envelope_format, &envelope),
    };
    let chain = opened.map_err(Error::Refused)?.chain;
    place.budget.count_created(&subject.digest(), envelope.len() as u64)?;
    Ok(enveloped(envelope_format, subject, &chain, envelope, (options.created, &more), &place.memory))
}

/// Creates the manifest of a Notary Project envelope.
pub(crate) fn enveloped(
    envelope_format: EnvelopeFormat,
    subject: &Subject,
    chain: &Chain,
    envelope: Vec<u8>,
    (created, more): (Timestamp, &Annotations),
    memory: &Memory,
) -> Bytes {
    let prints: Vec<_> = chain.certificates().iter().map(|certificate| certificate.fingerprint().hex()).collect();
    let mut notes = vec![
        ("io.cncf.notary.x509chain.thumbprint#S256", json!(prints).to_string()),
        (annotations::CREATED, seconds(created)),
    ];
    let is_new = |key: &str| notes.iter().all(|(known, _)| *known != key);
    let more: Vec<_> = more.iter().filter(|(key, _)| is_new(key)).map(|(key, value)| (key, value.to_owned())).collect();
    notes.extend(more);
    let layer_type = match envelope_format {
        EnvelopeFormat::Jws => JWS_TYPE,
        EnvelopeFormat::Cose => COSE_TYPE,
    };
    // notation 1.3 writes the artifact type as the media type of the config, and finds no other signatures in an OCI
    // layout.
    let config = Descriptor::of(MediaType::new(NOTATION_TYPE), EMPTY);
    referrer(subject, None, config, (layer_type, envelope), &notes, memory)
}

/// Creates the manifest of an artifact with one layer and a subject. Image specification, "Guidelines for Artifact
/// Usage".
fn referrer(
    subject: &Subject,
    artifact_type: Option<&str>,
    config: Descriptor,
    (layer_type, layer): (&str, Vec<u8>),
    notes: &[(&str, String)],
    memory: &Memory,
) -> Bytes {
    let descriptor = Descriptor::of(MediaType::new(layer_type), &layer);
    memory.insert(layer);
    memory.insert(EMPTY);
    let notes: Map<_, _> = notes.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str()))).collect();
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST});
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = artifact_type.into();
    }
    manifest["config"] = json!(config);
    manifest["layers"] = json!([descriptor]);
    manifest["subject"] = json!(subject.descriptor());
    manifest["annotations"] = Value::Object(notes);
    let manifest = Bytes::from(manifest.to_string());
    memory.insert(manifest.clone());
    manifest
}

async fn simply(
    subject: &Subject,
    signer: &dyn Signer,
    options: &SignOptions,
    place: &SigningContext,
) -> Result<(Bytes, Naming)> {
    let (layer, payload) =
        simple::sign(&subject.digest(), &options.reference, signer, options.material.as_ref()).await?;
    added(subject, &layer, payload, place).await
}

/// The maximum size of an existing signature manifest that is extended, in bytes. It is enough for a thousand
/// signatures.
const MAX_OLD_MANIFEST_BYTES: u64 = 2 << 20;

/// Adds a signature to those under the tag of the digest. Existing payloads stay where they are.
pub(crate) async fn added(
    subject: &Subject,
    layer: &Descriptor,
    payload: Vec<u8>,
    place: &SigningContext,
) -> Result<(Bytes, Naming)> {
    let digest = subject.digest();
    let tag = tag_of(&digest)
        .ok_or_else(|| Error::Unsupported(format!("{digest} is too long for a tag of {}", Format::CosignLegacy)))?;
    let source = &subject.source;
    let old = match source.resolve(&Name::Tag(tag.clone())).await {
        Ok(found) if found.size > MAX_OLD_MANIFEST_BYTES => {
            let size = found.size;
            let what =
                format!("it has {size} bytes, more than the {MAX_OLD_MANIFEST_BYTES} that signatures are added to");
            return Err(limit(format!("{tag} in {source}"), what).into());
        }
        Ok(found) => Some(source.document(&found).await?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let count = old.iter().flat_map(|old| old.children()).count();
    if count > MAX_SIGNATURES_OF_DIGEST {
        let what = format!("it has {count} signatures, and no more than {MAX_SIGNATURES_OF_DIGEST} are read");
        return Err(limit(format!("{tag} in {source}"), what).into());
    }
    let (config, manifest) = simple::manifest(old.as_ref().map(|old| &old.bytes()[..]), layer)?;
    place.budget.count_created(&digest, payload.len() as u64)?;
    place.memory.insert(payload);
    place.memory.insert(config);
    let manifest = Bytes::from(manifest);
    place.memory.insert(manifest.clone());
    Ok((manifest, Naming { tag: Some(tag), ..Naming::default() }))
}

/// Formats a time as RFC 3339 without fractions of seconds.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The empty config of artifacts.
const EMPTY: &[u8] = b"{}";
