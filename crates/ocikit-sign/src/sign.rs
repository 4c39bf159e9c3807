use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ocikit_image::{CopyOptions, Referrers, Root, Sink, copy_all};
use ocikit_spec::Digest;
use serde_json::Value;

use crate::budget::SignatureBudget;
use crate::created::Created;
use crate::error::{Error, Result, expect_digest};
use crate::format::{Format, SignRequest, SigningKey};
use crate::notation::{NotationOptions, NotationPlugin};
use crate::predicate::check_not_reserved;
use crate::signer::Signer;
use crate::sigstore::VerificationMaterial;
use crate::store::{NewSignatures, Signature};
use crate::subjects::{Depth, Subject, SubjectKind, subjects};

/// Options of signing.
#[derive(Debug, Clone)]
#[non_exhaustive]
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

ocikit_spec::setters! {
    SignOptions {
        formats: Vec<Format>,
        depth: Depth,
        expect: Option<Digest>,
        reference: String,
        created: Timestamp,
        notation: Option<NotationOptions>,
        material: Option<VerificationMaterial>,
    }
}

impl SignOptions {
    /// Returns options for these formats and this time: the root only, any digest, no name. The time is a
    /// [`SystemTime`](std::time::SystemTime), a number of seconds since 1970, or a timestamp of the crate `jiff`.
    pub fn new(formats: Vec<Format>, created: impl Into<Created>) -> SignOptions {
        SignOptions {
            formats,
            depth: Depth::Root,
            expect: None,
            reference: String::new(),
            created: created.into().timestamp(),
            notation: None,
            material: None,
        }
    }
}

/// Signs a root and, depending on the options, manifests below it. Nothing is written.
///
/// # Errors
///
/// [`Error::Moved`] if the root is not the expected one; [`Error::Signer`] if the signer fails; errors of the image's
/// location.
pub async fn sign(root: &Root, signer: &dyn Signer, options: &SignOptions) -> Result<Vec<Signature>> {
    sign_with(root, SigningKey::Signer(signer), options).await
}

/// Signs with a notation plugin, in the Notary Project formats. Nothing is written.
///
/// # Errors
///
/// Those of [`sign`]; [`Error::Unsupported`] for other formats; [`Error::Refused`] if the plugin creates an envelope
/// that verification would refuse.
pub async fn sign_by_plugin(root: &Root, plugin: &NotationPlugin, options: &SignOptions) -> Result<Vec<Signature>> {
    sign_with(root, SigningKey::Plugin(plugin), options).await
}

/// What signs: a key, or a plugin of notation that has one.
#[derive(Clone)]
pub enum SigningMethod {
    /// A plugin, for the Notary Project formats.
    Plugin(Arc<NotationPlugin>),
    /// A signer, for all formats.
    Signer(Arc<dyn Signer>),
}

impl std::fmt::Debug for SigningMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SigningMethod::Plugin(_) => "SigningMethod::Plugin",
            SigningMethod::Signer(_) => "SigningMethod::Signer",
        })
    }
}

impl SigningMethod {
    /// Signs as [`sign`] or [`sign_by_plugin`] does.
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub async fn sign(&self, root: &Root, options: &SignOptions) -> Result<Vec<Signature>> {
        match self {
            SigningMethod::Plugin(plugin) => sign_by_plugin(root, plugin, options).await,
            SigningMethod::Signer(signer) => sign(root, &**signer, options).await,
        }
    }

    /// Returns the signer, for what a plugin does not sign: attestations.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a plugin.
    pub fn signer(&self) -> Result<&dyn Signer> {
        match self {
            SigningMethod::Plugin(_) => {
                Err(Error::Unsupported("attestations are signed with a key, not by a plugin of notation".to_owned()))
            }
            SigningMethod::Signer(signer) => Ok(&**signer),
        }
    }
}

async fn sign_with(root: &Root, by: SigningKey<'_>, options: &SignOptions) -> Result<Vec<Signature>> {
    expect_digest(root, options.expect)?;
    let request = SignRequest {
        by,
        created: options.created,
        reference: &options.reference,
        notation: options.notation.as_ref(),
        material: options.material.as_ref(),
        attestation: None,
    };
    sign_all(root, options.depth, &options.formats, &request).await
}

/// Options of attesting.
#[derive(Debug, Clone)]
#[non_exhaustive]
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

ocikit_spec::setters! {
    AttestOptions {
        predicate_type: String,
        predicate: Value,
        depth: Depth,
        expect: Option<Digest>,
        created: Timestamp,
        material: Option<VerificationMaterial>,
    }
}

impl AttestOptions {
    /// Returns options for this predicate and this time: the root only, any digest. The time is as in
    /// [`SignOptions::new`].
    pub fn new(predicate_type: impl Into<String>, predicate: Value, created: impl Into<Created>) -> AttestOptions {
        AttestOptions {
            predicate_type: predicate_type.into(),
            predicate,
            depth: Depth::Root,
            expect: None,
            created: created.into().timestamp(),
            material: None,
        }
    }
}

/// Attests a root and, depending on the options, manifests below it: signs an in-toto statement in a bundle, as
/// cosign does. Nothing is written.
///
/// # Errors
///
/// Those of [`sign`]; [`Error::Unsupported`] if the predicate type is that of plain signatures, or the statement is
/// longer than what verification reads.
pub async fn attest(root: &Root, signer: &dyn Signer, options: &AttestOptions) -> Result<Vec<Signature>> {
    expect_digest(root, options.expect)?;
    // An attestation must not be mistaken for an approval of the image.
    check_not_reserved(&options.predicate_type)?;
    let request = SignRequest {
        by: SigningKey::Signer(signer),
        created: options.created,
        reference: "",
        notation: None,
        material: options.material.as_ref(),
        attestation: Some((&options.predicate_type, &options.predicate)),
    };
    sign_all(root, options.depth, &Format::of_attestations(), &request).await
}

/// The number of signatures that are created concurrently if they need verification material. A transparency log
/// takes about a second per entry.
const CONCURRENT_REQUESTS: usize = 8;

/// Signs every subject in every format, in order. A signer alone creates one signature at a time.
async fn sign_all(root: &Root, depth: Depth, formats: &[Format], request: &SignRequest<'_>) -> Result<Vec<Signature>> {
    if let SigningKey::Signer(signer) = request.by {
        check_certificate(signer, request.material)?;
    }
    let new = &NewSignatures::default();
    let subjects = signable(root, depth, &new.budget).await?;
    let all = subjects.iter().flat_map(|subject| formats.iter().map(move |format| (subject, *format)));
    let jobs = all.map(|(subject, format)| {
        async move {
            let content = format.implementation().sign(&subject.descriptor, request).await?;
            new.add(subject, format, content).await
        }
        .boxed()
    });
    // Boxed and collected, so that the future of the stream is `Send` for any lifetime.
    let jobs: Vec<_> = jobs.collect();
    let concurrent = if request.material.is_some() { CONCURRENT_REQUESTS } else { 1 };
    stream::iter(jobs).buffered(concurrent).try_collect().await
}

/// Returns the subjects to sign. All must be understood: verification refuses signatures of anything else.
async fn signable(root: &Root, depth: Depth, budget: &SignatureBudget) -> Result<Vec<Subject>> {
    let subjects = subjects(root, depth, budget).await?;
    for subject in &subjects {
        if let SubjectKind::NotUnderstood(why) = &subject.kind {
            let digest = subject.digest();
            return Err(Error::Unsupported(format!("cannot sign {digest} below {}: {why}", root.digest())));
        }
    }
    Ok(subjects)
}

/// Checks that the certificate in the verification material belongs to the signer.
pub(crate) fn check_certificate(signer: &dyn Signer, material: Option<&VerificationMaterial>) -> Result<()> {
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
    let options = options.clone().referrers(Referrers::None).only(Vec::new());
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
