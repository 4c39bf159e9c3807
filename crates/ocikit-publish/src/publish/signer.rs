use std::fmt;
use std::sync::Arc;

use ocikit::{Digest, Root, Session, Sink};
use ocikit_sign::{
    AttestOptions, Format, Outcome, PromoteOptions, PublicKey, SignOptions, Signature, Signer, SigningMethod, Trust,
    VerifyOptions,
};
use serde_json::Value;

use crate::plan::{Destination, Plan};

/// The predicate type of statements about a publication; `docs/publish.md` describes the predicate.
pub const PUBLISHED_PREDICATE_TYPE: &str = "https://github.com/ocikit/ocikit/attestation/published/v1";

/// Who signs, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImageSigner {
    /// What signs.
    pub by: SigningMethod,
    /// The options; the reference is replaced by the repository of each destination.
    pub options: SignOptions,
}

impl ImageSigner {
    /// Creates a signer with a key.
    pub fn new(signer: Arc<dyn Signer>, options: SignOptions) -> ImageSigner {
        ImageSigner::by(SigningMethod::Signer(signer), options)
    }

    /// Creates a signer. A plugin of notation makes no attestations, and its signatures are made anew in each run.
    pub fn by(by: SigningMethod, options: SignOptions) -> ImageSigner {
        ImageSigner { by, options }
    }

    /// Returns the key, if its signatures can be found again: keyless signatures have a new key each time, and that of a plugin
    /// is not known.
    fn key(&self) -> Option<&PublicKey> {
        match &self.by {
            SigningMethod::Signer(signer) if self.options.material.is_none() => Some(signer.public_key()),
            SigningMethod::Signer(_) | SigningMethod::Plugin(_) => None,
        }
    }
}

impl fmt::Debug for ImageSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageSigner").field("formats", &self.options.formats).finish_non_exhaustive()
    }
}

/// An image in the repository of a destination.
pub(super) struct Stored<'a> {
    pub(super) session: &'a Session,
    pub(super) root: &'a Root,
    pub(super) destination: &'a Destination,
    pub(super) sink: &'a Arc<dyn Sink>,
}

impl Stored<'_> {
    /// Opens the image where it was stored.
    async fn open(&self) -> ocikit_sign::Result<Root> {
        Ok(Root::at(self.sink.clone(), self.root.descriptor().clone()).await?)
    }

    async fn attach(&self, made: &[Signature]) -> ocikit_sign::Result<Vec<Digest>> {
        ocikit_sign::attach(made, self.sink, &self.session.copy_options(Vec::new())).await?;
        Ok(made.iter().map(|signature| signature.root.digest()).collect())
    }

    /// Signs the image in the formats in which it has no signature of this signer yet.
    pub(super) async fn sign(&self, signer: &ImageSigner) -> ocikit_sign::Result<Vec<Digest>> {
        let stored = self.open().await?;
        let formats = missing_formats(&stored, signer).await;
        if formats.is_empty() {
            return Ok(Vec::new());
        }
        let options = signer.options.clone().formats(formats).expect(Some(self.root.digest()));
        let options = options.reference(self.destination.read.to_string());
        let made = signer.by.sign(&stored, &options).await?;
        self.attach(&made).await
    }

    /// Signs the attestations that BuildKit stored in the index; those that are signed already are skipped.
    pub(super) async fn attest_build(&self, signer: &ImageSigner, plan: &Plan) -> ocikit_sign::Result<Vec<Digest>> {
        let stored = self.open().await?;
        let options = PromoteOptions::new(signer.options.created)
            .annotated_from(plan.annotated_from.clone())
            .expect(Some(self.root.digest()))
            .material(signer.options.material.clone());
        let made = ocikit_sign::promote(&stored, signer.by.signer()?, &options).await?;
        self.attach(&made).await
    }

    /// Signs a statement about the publication, unless the image has the same one.
    pub(super) async fn attest_published(
        &self,
        signer: &ImageSigner,
        predicate: Value,
    ) -> ocikit_sign::Result<Vec<Digest>> {
        let stored = self.open().await?;
        if has_statement(&stored, signer, &predicate).await {
            return Ok(Vec::new());
        }
        let options = AttestOptions::new(PUBLISHED_PREDICATE_TYPE, predicate, signer.options.created)
            .expect(Some(self.root.digest()))
            .material(signer.options.material.clone());
        let made = ocikit_sign::attest(&stored, signer.by.signer()?, &options).await?;
        self.attach(&made).await
    }
}

/// Returns the formats in which the image has no signature of the key.
async fn missing_formats(stored: &Root, signer: &ImageSigner) -> Vec<Format> {
    let SignOptions { formats, depth, .. } = &signer.options;
    match signer.key() {
        Some(key) => ocikit_sign::missing_formats(stored, key, formats, *depth).await,
        None => formats.clone(),
    }
}

/// Returns whether the image has this statement of the key.
async fn has_statement(stored: &Root, signer: &ImageSigner, predicate: &Value) -> bool {
    let Some(key) = signer.key() else { return false };
    let trust = Trust::Key { name: String::new(), key: key.clone() };
    let predicate_type = Some(PUBLISHED_PREDICATE_TYPE.to_owned());
    let options = VerifyOptions::new(vec![trust]).predicate_type(predicate_type);
    let Ok(report) = ocikit_sign::verify(stored, &options).await else { return false };
    let is_same = |outcome: &Outcome| match outcome {
        Outcome::Verified(proof) => {
            let found = proof.predicate.as_ref().and_then(|found| serde_json::from_str(found.as_str()).ok());
            found.is_some_and(|found: Value| found == *predicate)
        }
        Outcome::Skipped | Outcome::Missing(_) | Outcome::NotUnderstood(_) => false,
    };
    report.checks.iter().any(|check| is_same(&check.outcome))
}
