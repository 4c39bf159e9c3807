use std::borrow::Cow;
use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_image::Root;
use ocikit_spec::{Annotations, Descriptor, Digest, Platform, Reference, Repository};

use crate::budget::Budget;
use crate::cosign::{Predicate, bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::found::{Found, Signatures};
use crate::key::PublicKey;
use crate::maker::Maker;
use crate::notation::{Level, NotationTrust, Seal};
use crate::refusal::Refusal;
use crate::sigstore::CertificateTrust;
use crate::subjects::{Depth, Subject, SubjectKind, subjects};

/// Whose signature is asked for.
#[derive(Debug, Clone)]
pub enum Trust {
    /// That of whoever has the private half of a key.
    Key {
        /// What to call them.
        name: String,
        /// The public half.
        key: PublicKey,
    },
    /// That of whom a certificate names.
    Certificate(Box<CertificateTrust>),
    /// That of somebody whom a trust policy of the Notary Project trusts.
    Notation(NotationTrust),
}

impl Trust {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Trust::Key { name, .. } => name,
            Trust::Certificate(trust) => &trust.name,
            Trust::Notation(trust) => trust.name(),
        }
    }

    /// The formats in which such a signature can be.
    pub fn formats(&self) -> &'static [Format] {
        match self {
            Trust::Key { .. } | Trust::Certificate(_) => &[Format::Cosign, Format::CosignLegacy],
            Trust::Notation(_) => &[Format::NotationJws, Format::NotationCose],
        }
    }

    /// The same, knowing what others have to be asked about this signature.
    pub(crate) async fn informed(&self, found: &Found<'_>) -> Cow<'_, Trust> {
        let Trust::Notation(trust) = self else { return Cow::Borrowed(self) };
        let seal = match found.format {
            Some(Format::NotationJws) => Seal::Jws,
            Some(Format::NotationCose) => Seal::Cose,
            _ => return Cow::Borrowed(self),
        };
        match &found.content {
            Ok((_, bytes)) if trust.has_plugins() => {
                Cow::Owned(Trust::Notation(trust.informed(vec![(seal, bytes.clone())]).await))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Whether nothing is looked at.
    fn skips(&self) -> bool {
        matches!(self, Trust::Notation(trust) if trust.level() == Level::Skip)
    }

    /// Checks a signature, and whether it says what is asked for.
    pub(crate) fn verify(&self, subject: &Subject, found: &Found<'_>, asked: Asked<'_>) -> Result<Proof, Refusal> {
        if let SubjectKind::NotUnderstood(why) = &subject.kind {
            return Err(Refusal::NotUnderstood(why.clone()));
        }
        let (layer, content) = found.content.as_ref().map_err(Clone::clone)?;
        let format = found.format.ok_or(Refusal::OtherSigner)?;
        let proof = |by: String, maker: Maker| Proof {
            signature: found.manifest,
            format,
            by,
            maker,
            warnings: Vec::new(),
            metadata: Annotations::new(),
            predicate: None,
        };
        let predicate_type = match asked.statement {
            Statement::Signature => Some(bundle::PREDICATE_TYPE),
            Statement::Attestation(kind) => Some(kind),
            Statement::Any => None,
        };
        let attested = |predicate| matches!(asked.statement, Statement::Attestation(_)).then_some(predicate);
        let digest = subject.digest();
        let seal = match format {
            Format::NotationCose => Seal::Cose,
            _ => Seal::Jws,
        };
        Ok(match (self, format) {
            (Trust::Key { key, .. }, Format::Cosign) => {
                let predicate = attested(bundle::verify(content, &digest, predicate_type, key)?);
                Proof { predicate, ..proof(key.fingerprint().to_string(), Maker::of_key(key)) }
            }
            (Trust::Key { key, .. }, Format::CosignLegacy) => {
                asked.check_name(&simple::verify(layer, content, &digest, key)?)?;
                proof(key.fingerprint().to_string(), Maker::of_key(key))
            }
            (Trust::Certificate(trust), Format::Cosign) => {
                let (named, maker, predicate) = bundle::verify_certificate(content, &digest, predicate_type, trust)?;
                Proof { predicate: attested(predicate), ..proof(named.to_string(), maker) }
            }
            (Trust::Certificate(trust), Format::CosignLegacy) => {
                let (named, maker, reference) = simple::verify_certificate(layer, content, &digest, trust)?;
                asked.check_name(&reference)?;
                proof(named.to_string(), maker)
            }
            (Trust::Notation(trust), Format::NotationJws | Format::NotationCose) => {
                let approved = trust.verify(seal, content, &subject.descriptor())?;
                let (warnings, metadata) = (approved.told, approved.metadata);
                Proof { warnings, metadata, ..proof(approved.by.to_string(), approved.maker) }
            }
            _ => return Err(Refusal::OtherSigner),
        })
    }
}

/// What a signature has to say besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// What bundles have to say.
    pub(crate) statement: Statement<'a>,
    /// The repository under which it was signed, where the form has a place for it.
    pub(crate) signed_as: Option<&'a Repository>,
}

/// What a bundle says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Statement<'a> {
    /// Nothing but that it was signed.
    #[default]
    Signature,
    /// An attestation of this type.
    Attestation(&'a str),
    /// Any of them.
    Any,
}

impl<'a> Asked<'a> {
    /// A plain signature, or an attestation of a type.
    pub(crate) fn of(predicate_type: Option<&'a str>, signed_as: Option<&'a Repository>) -> Asked<'a> {
        Asked { statement: predicate_type.map_or(Statement::Signature, Statement::Attestation), signed_as }
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let Some(wanted) = self.signed_as else { return Ok(()) };
        match name.parse::<Reference>() {
            Ok(reference) if reference.repository() == wanted => Ok(()),
            Ok(reference) => Err(Refusal::OtherName(reference.repository().to_string())),
            Err(_) => Err(Refusal::OtherName("no repository".to_owned())),
        }
    }
}

/// What to verify.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Whose signatures are asked for: every one of them.
    pub trusted: Vec<Trust>,
    /// The formats that are asked for, every one of them; if none is named, one signature in any of them will do.
    pub formats: Vec<Format>,
    /// The type of an attestation that is asked for instead of a plain signature. Only bundles hold them.
    pub predicate_type: Option<String>,
    /// The repository under which signatures have to have been made in cosign's older format, which names one. Those of other
    /// formats hold wherever the image is.
    pub signed_as: Option<Repository>,
    /// How far down.
    pub depth: Depth,
    /// The digest that the root has to have.
    pub expect: Option<Digest>,
    /// How many digests are looked at at the same time, at least one.
    pub jobs: usize,
}

impl VerifyOptions {
    /// For these signers: any format, the root alone, whatever digest it has, eight at a time.
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

    /// What is asked for of each digest: a signer, and formats of which one will do.
    fn wanted(&self) -> Result<Vec<(&Trust, Vec<Format>)>> {
        if self.trusted.is_empty() {
            return Err(Error::Unsupported("nobody is named whose signature is asked for".to_owned()));
        }
        // Whoever asks for two signers does not want one signature to be both.
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
            return match self.formats.iter().all(|format| *format == Format::Cosign) {
                true => Ok(self.trusted.iter().map(|trust| (trust, vec![Format::Cosign])).collect()),
                false => Err(Error::Unsupported("attestations are in bundles of cosign only".to_owned())),
            };
        }
        if self.formats.is_empty() {
            return Ok(self.trusted.iter().map(|trust| (trust, trust.formats().to_vec())).collect());
        }
        let mut wanted = Vec::new();
        for format in &self.formats {
            let able: Vec<_> = self.trusted.iter().filter(|trust| trust.formats().contains(format)).collect();
            if able.is_empty() {
                return Err(Error::Unsupported(format!("nobody is named who could have signed as {format}")));
            }
            wanted.extend(able.into_iter().map(|trust| (trust, vec![*format])));
        }
        Ok(wanted)
    }
}

/// Which signatures there are of what was asked for: digest × signer × format.
#[derive(Debug, Clone)]
pub struct Coverage {
    /// The root.
    pub root: Digest,
    /// Each combination that was asked for, digest by digest, the root first.
    pub cells: Vec<Cell>,
}

/// Whether there is one signature that was asked for.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What it is of.
    pub subject: Descriptor,
    /// The platform, if that is an entry of an index for one.
    pub platform: Option<Platform>,
    /// Whose.
    pub signer: String,
    /// In one of these formats.
    pub formats: Vec<Format>,
    /// What was found.
    pub outcome: Outcome,
    /// How many more signatures were found that do not count, beyond those that the outcome lists.
    pub more_refused: usize,
}

/// What was found where a signature was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One that counts.
    Verified(Box<Proof>),
    /// Nothing was looked at, because a trust policy says so.
    Skipped,
    /// None that counts; those that do not, if there are any: up to 100.
    Missing(Vec<Refused>),
    /// The subject itself is nothing that is known here, and why. Another tool may run it, so no signature of it counts.
    NotUnderstood(String),
}

impl Outcome {
    /// Whether what was asked for is missing.
    pub fn is_failure(&self) -> bool {
        matches!(self, Outcome::Missing(_) | Outcome::NotUnderstood(_))
    }
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The manifest that leads to it.
    pub signature: Digest,
    /// Its format.
    pub format: Format,
    /// Who made it, in words that are the same whenever it is the same one: the digest of the public key, or whom the
    /// certificate names and who says so.
    pub by: String,
    /// The same, to be told from others.
    pub maker: Maker,
    /// What is wrong with it, and by the policy is only told.
    pub warnings: Vec<Refusal>,
    /// What the signer signed along, in the formats that have a place for it.
    pub metadata: Annotations,
    /// What was attested, if that was asked for.
    pub predicate: Option<Predicate>,
}

/// A signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The manifest that leads to it.
    pub signature: Digest,
    /// Its format, if it got so far.
    pub format: Option<Format>,
    /// Why not.
    pub why: Refusal,
}

impl Coverage {
    /// Whether everything that was asked for is there.
    pub fn is_complete(&self) -> bool {
        !self.cells.is_empty() && !self.cells.iter().any(|cell| cell.outcome.is_failure())
    }

    /// The root as one that was verified, if everything that was asked for is there.
    pub fn accept(&self, root: &Root) -> Option<Verified<Root>> {
        (self.is_complete() && self.root == root.digest()).then(|| Verified(root.clone()))
    }
}

/// Something whose signatures were checked. Only [`Coverage::accept`] and [`Verdict::accept`](crate::Verdict::accept) make
/// one.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn new(inner: T) -> Verified<T> {
        Verified(inner)
    }

    /// What was verified.
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

/// Looks for the signatures that are asked for, of the root and of what is below it where that is wanted.
///
/// # Errors
///
/// [`Error::Moved`] if the root is not what was expected; [`Error::Unsupported`] if nobody is named, or a format that none
/// of them can have signed in; those of the place. A signature that is missing or does not count is no error.
pub async fn verify(root: &Root, options: &VerifyOptions) -> Result<Coverage> {
    if let Some(expected) = options.expect.filter(|expected| *expected != root.digest()) {
        return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) });
    }
    let wanted = options.wanted()?;
    let formats: Vec<Format> =
        Format::ALL.into_iter().filter(|format| wanted.iter().any(|(_, formats)| formats.contains(format))).collect();
    let budget = &Budget::default();
    let subjects = subjects(root, options.depth, budget).await?;
    let asked = Asked::of(options.predicate_type.as_deref(), options.signed_as.as_ref());
    let cells: Vec<Vec<Cell>> = stream::iter(subjects)
        .map(|subject| verify_subject(subject, &wanted, &formats, asked, budget))
        .buffered(options.jobs.max(1))
        .boxed()
        .try_collect()
        .await?;
    Ok(Coverage { root: root.digest(), cells: cells.into_iter().flatten().collect() })
}

/// Looks at the signatures of one digest, one after the other, until nothing is missing.
async fn verify_subject(
    subject: Subject,
    wanted: &[(&Trust, Vec<Format>)],
    formats: &[Format],
    asked: Asked<'_>,
    budget: &Budget,
) -> Result<Vec<Cell>> {
    let mut cells: Vec<_> = wanted.iter().map(|(trust, formats)| Cell::of(&subject, trust, formats.clone())).collect();
    if !cells.iter().any(|cell| matches!(cell.outcome, Outcome::Missing(_))) {
        return Ok(cells);
    }
    let mut signatures = Signatures::of(&*subject.source, subject.digest(), formats, budget).await?;
    while let Some(found) = signatures.next().await? {
        for (cell, (trust, _)) in cells.iter_mut().zip(wanted) {
            if matches!(cell.outcome, Outcome::Missing(_)) && cell.may_be(&found) {
                let verified = trust.informed(&found).await.verify(&subject, &found, asked);
                cell.note(&found, verified, budget)?;
            }
        }
        drop(found);
        if !cells.iter().any(|cell| matches!(cell.outcome, Outcome::Missing(_))) {
            break;
        }
    }
    Ok(cells)
}

impl Cell {
    /// One for which nothing was found yet.
    pub(crate) fn of(subject: &Subject, trust: &Trust, formats: Vec<Format>) -> Cell {
        let outcome = match &subject.kind {
            _ if trust.skips() => Outcome::Skipped,
            SubjectKind::NotUnderstood(why) => Outcome::NotUnderstood(why.clone()),
            _ => Outcome::Missing(Vec::new()),
        };
        Cell {
            subject: subject.descriptor(),
            platform: subject.platform.clone(),
            signer: trust.name().to_owned(),
            formats,
            outcome,
            more_refused: 0,
        }
    }

    /// Whether a signature is in one of the formats, or in none that is known.
    pub(crate) fn may_be(&self, found: &Found<'_>) -> bool {
        found.format.is_none_or(|format| self.formats.contains(&format))
    }

    /// Writes down what became of a signature. The first that counts stays.
    pub(crate) fn note(
        &mut self,
        found: &Found<'_>,
        verified: Result<Proof, Refusal>,
        budget: &Budget,
    ) -> Result<(), ocikit_image::Error> {
        let Outcome::Missing(refused) = &mut self.outcome else { return Ok(()) };
        match verified {
            Ok(proof) => {
                let length = proof.predicate.as_ref().map_or(0, |predicate| predicate.as_str().len());
                budget.hold_predicate(&self.subject.digest, length)?;
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
