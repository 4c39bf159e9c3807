use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use ocikit_image::{Name, Naming, Root, Source};
use ocikit_spec::{Annotations, Descriptor, Digest, Platform, Repository};

use crate::budget::SignatureBudget;
use crate::cosign::Predicate;
use crate::error::{Error, Result, expect_digest};
use crate::format::{Format, SignInput, Storage};
use crate::key::PublicKey;
use crate::maker::Maker;
use crate::refusal::Refusal;
use crate::signatures::{FoundSignature, Signatures, tag_of};
use crate::store::Signature;
use crate::subjects::{Depth, Subject, SubjectKind, subjects};
use crate::trust::{Expected, Trust};
use crate::verification::Verification;

impl Trust {
    /// Returns the trust with the results of verification plugins for this signature.
    pub(crate) async fn informed(&self, found: &FoundSignature<'_>) -> Cow<'_, Trust> {
        let Trust::Notation(trust) = self else { return Cow::Borrowed(self) };
        match (found.format.and_then(|format| format.properties().envelope), &found.content) {
            (Some(envelope), Ok((_, bytes))) if trust.has_plugins() => {
                Cow::Owned(Trust::Notation(trust.informed(envelope, bytes).await))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Verifies a signature: its signer, its subject and the expected content.
    pub(crate) fn verify(
        &self,
        subject: &Subject,
        found: &FoundSignature<'_>,
        expected: Expected<'_>,
    ) -> Result<Proof, Refusal> {
        if let SubjectKind::NotUnderstood(why) = &subject.kind {
            return Err(Refusal::NotUnderstood(why.clone()));
        }
        let (layer, content) = found.content.as_ref().map_err(Clone::clone)?;
        let format = found.format.ok_or(Refusal::OtherSigner)?;
        let Verification { by, maker, warnings, metadata, predicate } =
            format.implementation().verify(self, &subject.descriptor, layer, content, expected)?;
        Ok(Proof { signature: found.manifest, format, by, maker, warnings, metadata, predicate })
    }
}

/// Options of verification.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// The signers; a signature of every one of them is required.
    pub trusted: Vec<Trust>,
    /// The formats; a signature in every one of them is required. If empty, one signature in any format is
    /// sufficient.
    pub formats: Vec<Format>,
    /// The predicate type of an attestation that is required instead of a plain signature. Only bundles contain
    /// attestations.
    pub predicate_type: Option<String>,
    /// The repository that signatures must name. Without [`formats`](VerifyOptions::formats), only signatures in formats that
    /// name a repository are then accepted: those of cosign's older format.
    pub signed_as: Option<Repository>,
    /// Which manifests below the root are verified.
    pub depth: Depth,
    /// The expected digest of the root.
    pub expect: Option<Digest>,
    /// The number of digests that are verified concurrently, at least 1.
    pub jobs: usize,
}

ocikit_spec::setters! {
    VerifyOptions {
        trusted: Vec<Trust>,
        formats: Vec<Format>,
        predicate_type: Option<String>,
        signed_as: Option<Repository>,
        depth: Depth,
        expect: Option<Digest>,
        jobs: usize,
    }
}

impl VerifyOptions {
    /// Returns options for these signers: any format, the root only, any digest, 8 concurrent verifications.
    pub fn new(trusted: Vec<Trust>) -> VerifyOptions {
        VerifyOptions {
            trusted,
            formats: Vec::new(),
            predicate_type: None,
            signed_as: None,
            depth: Depth::Root,
            expect: None,
            jobs: 8,
        }
    }

    /// Returns the requirements for each digest: a signer, and formats of which one is sufficient.
    fn wanted(&self) -> Result<Vec<(&Trust, Vec<Format>)>> {
        if self.trusted.is_empty() {
            return Err(Error::Unsupported("no signer is given".to_owned()));
        }
        // A signature must not count for two required signers.
        let mut keys = HashMap::new();
        for (name, key) in self.trusted.iter().filter_map(|trust| match trust {
            Trust::Key { name, key } => Some((name, key)),
            _ => None,
        }) {
            if let Some(other) = keys.insert(key.identity(), name) {
                return Err(Error::Unsupported(format!("`{other}` and `{name}` are the same key")));
            }
        }
        if self.predicate_type.is_some() {
            Format::check_attestations(&self.formats)?;
            return Ok(self.trusted.iter().map(|trust| (trust, Format::of_attestations())).collect());
        }
        if self.formats.is_empty() {
            let wanted = self.trusted.iter().map(|trust| {
                let mut formats = trust.formats();
                if self.signed_as.is_some() {
                    formats.retain(|format| format.uses(SignInput::Reference));
                }
                match formats.is_empty() {
                    true => Err(Error::Unsupported(format!("signatures by `{}` name no repository", trust.name()))),
                    false => Ok((trust, formats)),
                }
            });
            return wanted.collect();
        }
        let mut wanted = Vec::new();
        for format in &self.formats {
            let able: Vec<_> = self.trusted.iter().filter(|trust| trust.formats().contains(format)).collect();
            if able.is_empty() {
                return Err(Error::Unsupported(format!("no given signer can sign as {format}")));
            }
            wanted.extend(able.into_iter().map(|trust| (trust, vec![*format])));
        }
        Ok(wanted)
    }
}

/// The result of verification: one check per digest, signer and format.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The digest of the root.
    pub root: Digest,
    /// All checks, by digest, those of the root first.
    pub checks: Vec<Check>,
}

/// The result for one required signature.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Check {
    /// The image or index that was verified.
    pub subject: Descriptor,
    /// The platform of the index entry, if it has one.
    pub platform: Option<Platform>,
    /// The name of the signer.
    pub signer: String,
    /// The accepted formats.
    pub formats: Vec<Format>,
    /// The outcome.
    pub outcome: Outcome,
    /// The number of refused signatures beyond those that the outcome lists.
    pub more_refused: usize,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A valid signature was found.
    Verified(Box<Proof>),
    /// The trust policy skips verification.
    Skipped,
    /// No valid signature was found. Lists up to 100 refused signatures.
    Missing(Vec<Refused>),
    /// The subject is of an unknown kind, and why. Another tool may run it, so no signature of it is accepted.
    NotUnderstood(String),
}

impl Outcome {
    /// Returns whether the required signature is missing.
    pub fn is_failure(&self) -> bool {
        matches!(self, Outcome::Missing(_) | Outcome::NotUnderstood(_))
    }
}

/// A valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proof {
    /// The digest of its manifest.
    pub signature: Digest,
    /// Its format.
    pub format: Format,
    /// The signer in a stable text form: the digest of the public key, or identity and issuer in the certificate.
    pub by: String,
    /// The signer, for telling signers apart.
    pub maker: Maker,
    /// Checks that failed and that the trust policy only logs.
    pub warnings: Vec<Refusal>,
    /// The signed metadata, in formats that have it.
    pub metadata: Annotations,
    /// The predicate, if an attestation was requested.
    pub predicate: Option<Predicate>,
}

/// A refused signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The digest of its manifest.
    pub signature: Digest,
    /// Its format, if it is known.
    pub format: Option<Format>,
    /// Why it is refused.
    pub why: Refusal,
}

impl VerifyReport {
    /// Returns whether every required signature was found.
    pub fn is_complete(&self) -> bool {
        !self.checks.is_empty() && !self.checks.iter().any(|check| check.outcome.is_failure())
    }

    /// Returns the root as a verified one, if every required signature was found.
    pub fn accept(&self, root: &Root) -> Option<Verified<Root>> {
        (self.is_complete() && self.root == root.digest()).then(|| Verified(root.clone()))
    }
}

/// Something whose signatures were verified. Only [`VerifyReport::accept`] and
/// [`Verdict::accept`](crate::Verdict::accept) create it.
#[derive(Debug, Clone)]
pub struct Verified<T>(pub(crate) T);

impl<T> Verified<T> {
    /// Returns what was verified.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Verifies a root and, depending on the options, manifests below it.
///
/// # Errors
///
/// [`Error::Moved`] if the root is not the expected one; [`Error::Unsupported`] if there is no signer, or a format
/// that none of the signers can use; errors of the location. A signature that is missing or refused is not an error.
pub async fn verify(root: &Root, options: &VerifyOptions) -> Result<VerifyReport> {
    expect_digest(root, options.expect)?;
    let wanted = options.wanted()?;
    let formats: Vec<Format> =
        Format::ALL.into_iter().filter(|format| wanted.iter().any(|(_, formats)| formats.contains(format))).collect();
    let budget = &SignatureBudget::default();
    let subjects = subjects(root, options.depth, budget).await?;
    let expected = Expected::of(options.predicate_type.as_deref(), options.signed_as.as_ref());
    let checks: Vec<Vec<Check>> = stream::iter(subjects)
        .map(|subject| verify_subject(subject, &wanted, &formats, expected, budget))
        .buffered(options.jobs.max(1))
        .boxed()
        .try_collect()
        .await?;
    Ok(VerifyReport { root: root.digest(), checks: checks.into_iter().flatten().collect() })
}

/// Returns the formats in which an image has no signature of a key yet, so that a second run does not sign it again. An image whose
/// signatures cannot be read has none.
pub async fn missing_formats(root: &Root, key: &PublicKey, formats: &[Format], depth: Depth) -> Vec<Format> {
    let mut missing = Vec::new();
    for format in formats {
        if checks_by(root, key, *format, depth).await.is_none() {
            missing.push(*format);
        }
    }
    missing
}

/// Returns the signatures that a key has made of an image before, in the formats in which none is missing. A second run can attach
/// them in other places instead of new ones. An image whose signatures cannot be read has none.
pub async fn earlier_signatures(root: &Root, key: &PublicKey, formats: &[Format], depth: Depth) -> Vec<Signature> {
    let mut signatures = Vec::new();
    for format in formats {
        let checks = checks_by(root, key, *format, depth).await.unwrap_or_default();
        let found = join_all(checks.into_iter().map(|check| check.signature(root.source()))).await;
        // A signature that was just there and is gone is missing.
        signatures.extend(found.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default());
    }
    signatures
}

/// Returns the checks of the signatures of a key in a format if none is missing.
async fn checks_by(root: &Root, key: &PublicKey, format: Format, depth: Depth) -> Option<Vec<Check>> {
    let trust = Trust::Key { name: String::new(), key: key.clone() };
    let options = VerifyOptions::new(vec![trust]).formats(vec![format]).depth(depth);
    let report = verify(root, &options).await.ok()?;
    report.is_complete().then_some(report.checks)
}

/// Verifies the signatures of one digest, one after the other, until every check has a valid one.
async fn verify_subject(
    subject: Subject,
    wanted: &[(&Trust, Vec<Format>)],
    formats: &[Format],
    expected: Expected<'_>,
    budget: &SignatureBudget,
) -> Result<Vec<Check>> {
    let mut checks: Vec<_> =
        wanted.iter().map(|(trust, formats)| Check::of(&subject, trust, formats.clone())).collect();
    if !checks.iter().any(|check| matches!(check.outcome, Outcome::Missing(_))) {
        return Ok(checks);
    }
    let mut signatures = Signatures::of(&*subject.source, subject.digest(), formats, budget).await?;
    while let Some(found) = signatures.next().await? {
        for (check, (trust, _)) in checks.iter_mut().zip(wanted) {
            if matches!(check.outcome, Outcome::Missing(_)) && check.may_be(&found) {
                let verified = trust.informed(&found).await.verify(&subject, &found, expected);
                check.note(&found, verified, budget)?;
            }
        }
        drop(found);
        if !checks.iter().any(|check| matches!(check.outcome, Outcome::Missing(_))) {
            break;
        }
    }
    Ok(checks)
}

impl Check {
    /// Returns the signature that was found, as one that can be stored elsewhere.
    async fn signature(self, source: &Arc<dyn Source>) -> Option<Signature> {
        let Outcome::Verified(proof) = self.outcome else { return None };
        let naming = match proof.format.properties().storage {
            Storage::Tag => Naming::of_tag(tag_of(&self.subject.digest)?),
            Storage::Referrer { .. } | Storage::ReferrerByConfig { .. } => Naming::default(),
        };
        let manifest = source.resolve(&Name::Digest(proof.signature)).await.ok()?;
        let root = Root::at(source.clone(), manifest).await.ok()?;
        Some(Signature { subject: self.subject, platform: self.platform, format: proof.format, root, naming })
    }

    /// Returns a check without results.
    pub(crate) fn of(subject: &Subject, trust: &Trust, formats: Vec<Format>) -> Check {
        let outcome = match &subject.kind {
            _ if trust.skips() => Outcome::Skipped,
            SubjectKind::NotUnderstood(why) => Outcome::NotUnderstood(why.clone()),
            _ => Outcome::Missing(Vec::new()),
        };
        Check {
            subject: subject.descriptor.clone(),
            platform: subject.platform.clone(),
            signer: trust.name().to_owned(),
            formats,
            outcome,
            more_refused: 0,
        }
    }

    /// Returns whether a signature is in one of the formats, or in an unknown one.
    pub(crate) fn may_be(&self, found: &FoundSignature<'_>) -> bool {
        found.format.is_none_or(|format| self.formats.contains(&format))
    }

    /// Records the result for a signature. The first valid one is kept.
    pub(crate) fn note(
        &mut self,
        found: &FoundSignature<'_>,
        verified: Result<Proof, Refusal>,
        budget: &SignatureBudget,
    ) -> Result<(), ocikit_image::Error> {
        let Outcome::Missing(refused) = &mut self.outcome else { return Ok(()) };
        match verified {
            Ok(proof) => {
                let length = proof.predicate.as_ref().map_or(0, |predicate| predicate.as_str().len());
                budget.count_predicate(&self.subject.digest, length)?;
                self.outcome = Outcome::Verified(Box::new(proof));
                self.more_refused = 0;
            }
            Err(why) if budget.lists_refused(refused.len()) => {
                refused.push(Refused { signature: found.manifest, format: found.format, why: why.shortened() });
            }
            Err(_) => self.more_refused += 1,
        }
        Ok(())
    }
}
