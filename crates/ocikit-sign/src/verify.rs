use std::borrow::Cow;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_image::Root;
use ocikit_spec::{Annotations, Descriptor, Digest, Platform, Reference, Repository};
use serde_json::Value;

use crate::cosign::{bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::found::{Found, find};
use crate::key::PublicKey;
use crate::notation::{Level, NotationTrust, Seal};
use crate::refusal::Refusal;
use crate::sigstore::CertificateTrust;
use crate::subjects::{Depth, Subject, subjects};

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

    /// The same, knowing what others have to be asked about these signatures.
    pub(crate) async fn informed<'a>(&self, found: Vec<&'a Found>) -> Cow<'_, Trust> {
        let Trust::Notation(trust) = self else { return Cow::Borrowed(self) };
        if !trust.has_plugins() {
            return Cow::Borrowed(self);
        }
        let envelopes = found.into_iter().filter_map(|found| {
            let seal = match found.format? {
                Format::NotationJws => Seal::Jws,
                Format::NotationCose => Seal::Cose,
                _ => return None,
            };
            Some((seal, found.content.as_ref().ok()?.1.clone()))
        });
        Cow::Owned(Trust::Notation(trust.informed(envelopes.collect()).await))
    }

    /// Whether nothing is looked at.
    fn skips(&self) -> bool {
        matches!(self, Trust::Notation(trust) if trust.level() == Level::Skip)
    }

    pub(crate) fn verify(&self, subject: &Subject, found: &Found, asked: Asked<'_>) -> Result<Proof, Refusal> {
        let Asked { predicate_type, .. } = asked;
        let (layer, content) = found.content.as_ref().map_err(Clone::clone)?;
        let format = found.format.ok_or(Refusal::OtherSigner)?;
        let mut proof = Proof {
            signature: found.manifest,
            format,
            by: String::new(),
            warnings: Vec::new(),
            metadata: Annotations::new(),
            predicate: None,
        };
        let digest = subject.digest();
        let seal = match format {
            Format::NotationCose => Seal::Cose,
            _ => Seal::Jws,
        };
        match (self, format) {
            (Trust::Key { key, .. }, Format::Cosign) => {
                let wanted = predicate_type.unwrap_or(bundle::PREDICATE_TYPE);
                let predicate = bundle::verify(content, &digest, wanted, key)?;
                proof.predicate = predicate_type.map(|_| predicate);
                proof.by = key.fingerprint().to_string();
            }
            (Trust::Key { key, .. }, Format::CosignLegacy) => {
                asked.check_name(&simple::verify(layer, content, &digest, key)?)?;
                proof.by = key.fingerprint().to_string();
            }
            (Trust::Certificate(trust), Format::Cosign) => {
                let wanted = predicate_type.unwrap_or(bundle::PREDICATE_TYPE);
                let (named, predicate) = bundle::verify_certificate(content, &digest, wanted, trust)?;
                proof.predicate = predicate_type.map(|_| predicate);
                proof.by = named.to_string();
            }
            (Trust::Certificate(trust), Format::CosignLegacy) => {
                let (named, reference) = simple::verify_certificate(layer, content, &digest, trust)?;
                asked.check_name(&reference)?;
                proof.by = named.to_string();
            }
            (Trust::Notation(trust), Format::NotationJws | Format::NotationCose) => {
                let approved = trust.verify(seal, content, &subject.descriptor())?;
                (proof.warnings, proof.metadata) = (approved.told, approved.metadata);
                proof.by = approved.by.to_string();
            }
            _ => return Err(Refusal::OtherSigner),
        }
        Ok(proof)
    }
}

/// What a signature has to say besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// The type of the statement, if that is not a plain signature.
    pub(crate) predicate_type: Option<&'a str>,
    /// The repository under which it was signed, where the form has a place for it.
    pub(crate) signed_as: Option<&'a Repository>,
}

impl Asked<'_> {
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
}

/// What was found where a signature was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One that counts.
    Verified(Box<Proof>),
    /// Nothing was looked at, because a trust policy says so.
    Skipped,
    /// None that counts; those that do not, if there are any.
    Missing(Vec<Refused>),
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
    /// What is wrong with it, and by the policy is only told.
    pub warnings: Vec<Refusal>,
    /// What the signer signed along, in the formats that have a place for it.
    pub metadata: Annotations,
    /// What was attested, if that was asked for.
    pub predicate: Option<Value>,
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
        !self.cells.is_empty() && self.cells.iter().all(|cell| !matches!(cell.outcome, Outcome::Missing(_)))
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
    let subjects = subjects(root, options.depth).await?;
    let cells: Vec<Vec<Cell>> = stream::iter(subjects)
        .map(|subject| {
            let (wanted, formats) = (&wanted, &formats);
            let asked =
                Asked { predicate_type: options.predicate_type.as_deref(), signed_as: options.signed_as.as_ref() };
            async move {
                let found = find(&**subject.root.source(), &subject.digest(), formats).await?;
                let mut cells = Vec::new();
                for (trust, formats) in wanted {
                    let trust = trust.informed(found.iter().collect()).await;
                    cells.push(cell(&subject, &trust, formats, &found, asked));
                }
                Ok::<_, Error>(cells)
            }
        })
        .buffered(options.jobs.max(1))
        .boxed()
        .try_collect()
        .await?;
    Ok(Coverage { root: root.digest(), cells: cells.into_iter().flatten().collect() })
}

fn cell(subject: &Subject, trust: &Trust, formats: &[Format], found: &[Found], asked: Asked<'_>) -> Cell {
    let outcome = match trust.skips() {
        true => Outcome::Skipped,
        false => outcome(subject, trust, formats, found, asked),
    };
    Cell {
        subject: subject.descriptor(),
        platform: subject.platform.clone(),
        signer: trust.name().to_owned(),
        formats: formats.to_vec(),
        outcome,
    }
}

/// The first signature that counts, or why none does.
fn outcome(subject: &Subject, trust: &Trust, formats: &[Format], found: &[Found], asked: Asked<'_>) -> Outcome {
    let mut refused = Vec::new();
    for found in found.iter().filter(|found| found.format.is_none_or(|format| formats.contains(&format))) {
        match trust.verify(subject, found, asked) {
            Ok(proof) => return Outcome::Verified(Box::new(proof)),
            Err(why) => refused.push(Refused { signature: found.manifest, format: found.format, why }),
        }
    }
    Outcome::Missing(refused)
}
