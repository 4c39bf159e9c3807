use std::borrow::Cow;
use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ocikit_image::Root;
use ocikit_spec::{Descriptor, Digest, Platform, Repository};

use crate::error::{Error, Result};
use crate::format::Format;
use crate::found::{Found, find};
use crate::notation::{NotationTrust, VerificationPlugin};
use crate::policy::form::{Policy, PolicySigner, Requirement};
use crate::sigstore::CertificateTrust;
use crate::subjects::{Depth, Subject, subjects};
use crate::verify::{Asked, Cell, Outcome, Refused, Trust, Verified};

/// What a policy is asked about an image.
#[derive(Debug, Clone)]
pub struct PolicyOptions {
    /// The repository that the image is in, by which the policy chooses its rule; an image in an archive may be in none.
    pub repository: Option<Repository>,
    /// The time at which certificates have to be valid.
    pub now: Timestamp,
    /// The digest that the root has to have.
    pub expect: Option<Digest>,
    /// How many digests are looked at at the same time, at least one.
    pub jobs: usize,
}

impl PolicyOptions {
    /// For an image in this repository, or in none: at this time, whatever digest it has, eight at a time.
    pub fn new(repository: Option<Repository>, now: Timestamp) -> PolicyOptions {
        PolicyOptions { repository, now, expect: None, jobs: 8 }
    }
}

/// What a policy says of an image.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The root.
    pub root: Digest,
    /// The scope of the rule that decided.
    pub scope: String,
    /// What was found: for each requirement, digest by digest.
    pub findings: Vec<Finding>,
}

/// Whether a requirement of a policy is met for one digest.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Which requirement of the rule, counted from 1.
    pub requirement: usize,
    /// What it is of.
    pub subject: Descriptor,
    /// The platform, if that is an entry of an index for one.
    pub platform: Option<Platform>,
    /// The type of the attestation, if one is asked for.
    pub predicate_type: Option<String>,
    /// How many signers have to have signed.
    pub threshold: usize,
    /// How many have. One who is two of the signers counts once.
    pub counted: usize,
    /// What was found of each signer.
    pub cells: Vec<Cell>,
}

impl Finding {
    /// Whether enough have signed.
    pub fn is_met(&self) -> bool {
        self.threshold > 0 && self.counted >= self.threshold
    }
}

impl Verdict {
    /// Whether every requirement is met for every digest that it is about, of which there is at least one.
    pub fn is_met(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(Finding::is_met)
    }

    /// The root as one that was verified, if every requirement is met.
    pub fn accept(&self, root: &Root) -> Option<Verified<Root>> {
        (self.is_met() && self.root == root.digest()).then(|| Verified::new(root.clone()))
    }
}

impl Policy {
    /// Looks for the signatures that the policy asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if it has no rule for the repository, or a trust policy that it names does not; [`Error::Moved`] if
    /// the root is not what was expected; those of the place. A signature that is missing or does not count is no error.
    pub async fn check(&self, root: &Root, options: &PolicyOptions) -> Result<Verdict> {
        if let Some(expected) = options.expect.filter(|expected| *expected != root.digest()) {
            return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) });
        }
        let rule = self.rule(options.repository.as_ref())?;
        let mut trusted = self.trusted(&rule.requirements, options)?;
        let mut meant: Vec<(Depth, Vec<Subject>)> = Vec::new();
        for requirement in &rule.requirements {
            if !meant.iter().any(|(depth, _)| *depth == requirement.depth) {
                meant.push((requirement.depth, subjects(root, requirement.depth).await?));
            }
        }
        let formats = |format: &Format| rule.requirements.iter().any(|wanted| wanted.formats.contains(format));
        let formats: Vec<_> = Format::ALL.into_iter().filter(formats).collect();
        let each: BTreeMap<_, _> =
            meant.iter().flat_map(|(_, all)| all).map(|one| (one.digest(), one.clone())).collect();
        let found: BTreeMap<Digest, Vec<Found>> = stream::iter(each)
            .map(|(digest, subject)| {
                let formats = &formats;
                async move { Ok::<_, Error>((digest, find(&**subject.root.source(), &digest, formats).await?)) }
            })
            .buffered(options.jobs.max(1))
            .boxed()
            .try_collect()
            .await?;
        for trust in trusted.values_mut() {
            let informed = match trust.informed(found.values().flatten().collect()).await {
                Cow::Owned(informed) => informed,
                Cow::Borrowed(_) => continue,
            };
            *trust = informed;
        }
        let mut findings = Vec::new();
        for (position, requirement) in rule.requirements.iter().enumerate() {
            let subjects =
                meant.iter().find(|(depth, _)| *depth == requirement.depth).map(|(_, subjects)| &subjects[..]);
            let subjects = subjects.unwrap_or_default();
            // What is asked of the images of an index that has none is met by nothing.
            if subjects.is_empty() {
                let root = Subject { root: root.clone(), platform: None };
                findings.push(Finding { counted: 0, ..finding(position + 1, requirement, &root, &[], &trusted) });
            }
            for subject in subjects {
                let found = found.get(&subject.digest()).map_or(&[][..], Vec::as_slice);
                findings.push(finding(position + 1, requirement, subject, found, &trusted));
            }
        }
        Ok(Verdict { root: root.digest(), scope: rule.scope.to_string(), findings })
    }

    /// The signers that requirements name, as they are trusted in a repository.
    fn trusted<'a>(&'a self, wanted: &'a [Requirement], options: &PolicyOptions) -> Result<BTreeMap<&'a str, Trust>> {
        let mut trusted = BTreeMap::new();
        for name in wanted.iter().flat_map(|requirement| &requirement.signers) {
            let Some(signer) = self.signers.get(name) else { continue };
            trusted.insert(name.as_str(), signer.trust(name, &self.plugins, options)?);
        }
        Ok(trusted)
    }
}

impl PolicySigner {
    fn trust(&self, name: &str, plugins: &[VerificationPlugin], options: &PolicyOptions) -> Result<Trust> {
        match self {
            PolicySigner::Key(key) => Ok(Trust::Key { name: name.to_owned(), key: key.clone() }),
            PolicySigner::Certificate(trust) => {
                let trust = CertificateTrust { name: name.to_owned(), now: options.now, ..(**trust).clone() };
                Ok(Trust::Certificate(Box::new(trust)))
            }
            PolicySigner::Notation { policy, store, lists } => {
                let scope = options.repository.as_ref().map(ToString::to_string).unwrap_or_default();
                let trust = NotationTrust::new(policy, store, &scope, options.now)?;
                let trust = trust.with_revocation_lists(lists.clone()).with_plugins(plugins.to_vec());
                // What anybody could have signed is signed by nobody who could be counted.
                match trust.names_signers() {
                    true => Ok(Trust::Notation(trust)),
                    false => Err(Error::Policy {
                        what: format!("the trust policy of the signer `{name}`"),
                        problem: format!("the statement `{}` does not enforce who signed", trust.name()),
                    }),
                }
            }
        }
    }
}

fn finding(
    number: usize,
    requirement: &Requirement,
    subject: &Subject,
    found: &[Found],
    trusted: &BTreeMap<&str, Trust>,
) -> Finding {
    let Requirement { signers, threshold, formats, predicate_type, .. } = requirement;
    let asked = Asked { predicate_type: predicate_type.as_deref(), signed_as: None };
    let (mut cells, mut signed_by) = (Vec::new(), Vec::new());
    for (name, trust) in signers.iter().filter_map(|name| Some((name, trusted.get(name.as_str())?))) {
        let formats: Vec<_> = trust.formats().iter().copied().filter(|format| formats.contains(format)).collect();
        let (mut proofs, mut refused) = (Vec::new(), Vec::new());
        for found in found.iter().filter(|found| found.format.is_none_or(|format| formats.contains(&format))) {
            match trust.verify(subject, found, asked) {
                Ok(proof) => proofs.push(proof),
                Err(why) => refused.push(Refused { signature: found.manifest, format: found.format, why }),
            }
        }
        // Who cannot be told from others cannot be counted beside them.
        let by = proofs.iter().map(|proof| proof.by.clone()).filter(|by| !by.is_empty());
        signed_by.push(by.collect());
        let outcome = match proofs.into_iter().next() {
            Some(proof) => Outcome::Verified(Box::new(proof)),
            None => Outcome::Missing(refused),
        };
        cells.push(Cell {
            subject: subject.descriptor(),
            platform: subject.platform.clone(),
            signer: name.clone(),
            formats,
            outcome,
        });
    }
    Finding {
        requirement: number,
        subject: subject.descriptor(),
        platform: subject.platform.clone(),
        predicate_type: predicate_type.clone(),
        threshold: *threshold,
        counted: count(&signed_by),
        cells,
    }
}

/// How many signers can be told apart: each gets one of those by whom it is signed, and nobody is given to two. Two trust
/// policies may trust the same one. This is a matching in a bipartite graph, found by augmenting paths.
fn count(signed_by: &[Vec<String>]) -> usize {
    fn place<'a>(
        signer: usize,
        signed_by: &'a [Vec<String>],
        taken: &mut BTreeMap<&'a str, usize>,
        tried: &mut Vec<&'a str>,
    ) -> bool {
        for by in &signed_by[signer] {
            if tried.contains(&by.as_str()) {
                continue;
            }
            tried.push(by);
            let other = taken.get(by.as_str()).copied();
            if other.is_none_or(|other| place(other, signed_by, taken, tried)) {
                taken.insert(by, signer);
                return true;
            }
        }
        false
    }
    let mut taken = BTreeMap::new();
    (0..signed_by.len()).filter(|signer| place(*signer, signed_by, &mut taken, &mut Vec::new())).count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_counts_twice() {
        for (signed_by, counted) in [
            (&[][..], 0),
            (&[&[][..], &["a"]], 1),
            (&[&["a"], &["b"]], 2),
            (&[&["a"], &["a"]], 1),
            (&[&["a", "b"], &["a"]], 2),
            (&[&["a", "a"], &["a"]], 1),
            (&[&["a", "b"], &["a", "c"], &["a"]], 3),
            (&[&["a", "b"], &["a", "b"], &["a", "b"]], 2),
        ] {
            let names: Vec<Vec<String>> =
                signed_by.iter().map(|by| by.iter().map(|by| (*by).to_owned()).collect()).collect();
            assert_eq!(super::count(&names), counted, "{signed_by:?}");
        }
    }
}
