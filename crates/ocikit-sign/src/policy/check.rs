use std::borrow::Cow;
use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ocikit_image::Root;
use ocikit_spec::{Descriptor, Digest, Platform, Repository};

use crate::budget::SignatureBudget;
use crate::error::{Error, PolicyEntry, PolicyFile, Result, expect_digest};
use crate::format::Format;
use crate::maker::{Maker, count_distinct};
use crate::notation::{NotationTrust, VerificationPlugin};
use crate::policy::file::{Policy, PolicySigner, Requirement};
use crate::signatures::{FoundSignature, Signatures};
use crate::sigstore::CertificateTrust;
use crate::subjects::{Depth, Subject, SubjectKind, subjects};
use crate::trust::{Expected, Trust};
use crate::verify::{Check, Verified};

/// Options of a policy check.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PolicyOptions {
    /// The repository of the image, which selects the rule; `None` for an image outside of a repository, such as in
    /// an archive.
    pub repository: Option<Repository>,
    /// The time at which certificates must be valid.
    pub now: Timestamp,
    /// The expected digest of the root.
    pub expect: Option<Digest>,
    /// The number of digests that are checked concurrently, at least 1.
    pub jobs: usize,
}

ocikit_spec::setters! {
    PolicyOptions {
        repository: Option<Repository>,
        now: Timestamp,
        expect: Option<Digest>,
        jobs: usize,
    }
}

impl PolicyOptions {
    /// Returns options for an image in this repository at this time: any digest, 8 concurrent checks.
    pub fn new(repository: Option<Repository>, now: Timestamp) -> PolicyOptions {
        PolicyOptions { repository, now, expect: None, jobs: 8 }
    }
}

/// The result of checking an image against a policy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verdict {
    /// The digest of the root.
    pub root: Digest,
    /// The scope of the rule that applied.
    pub scope: String,
    /// The findings: for each requirement, one per digest.
    pub findings: Vec<Finding>,
}

/// Whether one digest meets one requirement of a policy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finding {
    /// The number of the requirement in its rule, counted from 1.
    pub requirement: usize,
    /// The image or index that was checked.
    pub subject: Descriptor,
    /// The platform of the index entry, if it has one.
    pub platform: Option<Platform>,
    /// The predicate type, if the requirement asks for an attestation.
    pub predicate_type: Option<String>,
    /// The number of signers that are required.
    pub threshold: usize,
    /// The number of distinct signers that were found. Two signers are distinct if their keys and the names in their
    /// certificates all differ.
    pub counted: usize,
    /// The result for each signer.
    pub checks: Vec<Check>,
}

impl Finding {
    /// Returns whether enough signers were found.
    pub fn is_met(&self) -> bool {
        self.threshold > 0 && self.counted >= self.threshold
    }
}

impl Verdict {
    /// Returns whether every requirement is met for every digest it applies to, and there is at least one.
    pub fn is_met(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(Finding::is_met)
    }

    /// Returns the root as a verified one, if every requirement is met.
    pub fn accept(&self, root: &Root) -> Option<Verified<Root>> {
        (self.is_met() && self.root == root.digest()).then(|| Verified(root.clone()))
    }
}

impl Policy {
    /// Checks an image against the policy.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if there is no rule for the repository, or a trust policy has no statement for it;
    /// [`Error::Moved`] if the root is not the expected one; errors of the location. A signature that is missing or
    /// refused is not an error.
    pub async fn check(&self, root: &Root, options: &PolicyOptions) -> Result<Verdict> {
        expect_digest(root, options.expect)?;
        let rule = self.rule(options.repository.as_ref())?;
        let trusted = &self.trusted(&rule.requirements, options)?;
        let budget = &SignatureBudget::default();
        let mut meant: Vec<(Depth, Vec<Subject>)> = Vec::new();
        for requirement in &rule.requirements {
            if !meant.iter().any(|(depth, _)| *depth == requirement.depth) {
                meant.push((requirement.depth, subjects(root, requirement.depth, budget).await?));
            }
        }
        // Each digest is read once, even if several requirements apply to it.
        let mut each: BTreeMap<Digest, (Subject, Vec<usize>)> = BTreeMap::new();
        for (position, requirement) in rule.requirements.iter().enumerate() {
            let subjects = meant.iter().filter(|(depth, _)| *depth == requirement.depth).flat_map(|(_, all)| all);
            for subject in subjects {
                let (_, wanted) = each.entry(subject.digest()).or_insert_with(|| (subject.clone(), Vec::new()));
                if wanted.last() != Some(&position) {
                    wanted.push(position);
                }
            }
        }
        let requirements = &rule.requirements;
        let found: Vec<Vec<Finding>> = stream::iter(each.into_values())
            .map(|(subject, wanted)| check_subject(subject, requirements, wanted, trusted, budget))
            .buffered(options.jobs.max(1))
            .boxed()
            .try_collect()
            .await?;
        let found = found.into_iter().flatten().map(|found| ((found.requirement, found.subject.digest), found));
        let mut found: BTreeMap<_, _> = found.collect();
        let mut findings = Vec::new();
        for (position, requirement) in rule.requirements.iter().enumerate() {
            let subjects = meant.iter().filter(|(depth, _)| *depth == requirement.depth).flat_map(|(_, all)| all);
            let of_requirement = subjects.filter_map(|subject| found.remove(&(position + 1, subject.digest())));
            let before = findings.len();
            findings.extend(of_requirement);
            // A requirement on the images of an index without images is not met.
            if findings.len() == before {
                findings.push(Tally::new(position, requirement, &Subject::of(root), trusted).finding());
            }
        }
        Ok(Verdict { root: root.digest(), scope: rule.scope.to_string(), findings })
    }

    /// Returns the trust of the signers that requirements name, for one repository.
    pub(super) fn trusted<'a>(
        &'a self,
        wanted: &'a [Requirement],
        options: &PolicyOptions,
    ) -> Result<BTreeMap<&'a str, Trust>> {
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
                // Without enforced authenticity any signature passes, so it cannot count as one by this signer.
                match trust.names_signers() {
                    true => Ok(Trust::Notation(trust)),
                    false => {
                        let problem = format!("the statement `{}` does not enforce who signed", trust.name());
                        let entry = PolicyEntry::Signer(name.to_owned());
                        Err(Error::policy(PolicyFile::TrustPolicy, problem).in_entry(entry))
                    }
                }
            }
        }
    }
}

/// Checks the signatures of one digest, one after the other.
pub(super) async fn check_subject(
    subject: Subject,
    requirements: &[Requirement],
    wanted: Vec<usize>,
    trusted: &BTreeMap<&str, Trust>,
    budget: &SignatureBudget,
) -> Result<Vec<Finding>> {
    let mut tallies: Vec<_> = wanted
        .into_iter()
        .filter_map(|position| Some(Tally::new(position, requirements.get(position)?, &subject, trusted)))
        .collect();
    if matches!(subject.kind, SubjectKind::NotUnderstood(_)) {
        return Ok(tallies.into_iter().map(Tally::finding).collect());
    }
    let asks_for = |format: &Format| tallies.iter().any(|tally| tally.requirement.formats.contains(format));
    let formats: Vec<_> = Format::ALL.into_iter().filter(asks_for).collect();
    let mut signatures = Signatures::of(&*subject.source, subject.digest(), &formats, budget).await?;
    while let Some(found) = signatures.next().await? {
        let informed = informed(trusted, &found).await;
        for tally in &mut tallies {
            tally.count(&subject, &found, &informed, budget)?;
        }
    }
    Ok(tallies.into_iter().map(Tally::finding).collect())
}

/// Returns the signers for which plugins gave results on a signature, with those results.
pub(super) async fn informed<'a>(
    trusted: &BTreeMap<&'a str, Trust>,
    found: &FoundSignature<'_>,
) -> BTreeMap<&'a str, Trust> {
    let mut informed = BTreeMap::new();
    for (name, trust) in trusted {
        if let Cow::Owned(trust) = trust.informed(found).await {
            informed.insert(*name, trust);
        }
    }
    informed
}

/// The results so far for one requirement and one digest.
struct Tally<'a> {
    position: usize,
    requirement: &'a Requirement,
    subject: Descriptor,
    platform: Option<Platform>,
    /// Each signer of the requirement and its result.
    signers: Vec<(&'a str, &'a Trust, Check)>,
    /// The makers of the verified signatures, per signer.
    makers: Vec<Vec<Maker>>,
}

impl<'a> Tally<'a> {
    fn new(
        position: usize,
        requirement: &'a Requirement,
        subject: &Subject,
        trusted: &'a BTreeMap<&str, Trust>,
    ) -> Tally<'a> {
        let signers = requirement.signers.iter().filter_map(|name| Some((name.as_str(), trusted.get(name.as_str())?)));
        let check = |(name, trust): (&'a str, &'a Trust)| {
            let formats = trust.formats().into_iter().filter(|format| requirement.formats.contains(format));
            let check = Check { signer: name.to_owned(), ..Check::of(subject, trust, formats.collect()) };
            (name, trust, check)
        };
        let signers: Vec<_> = signers.map(check).collect();
        let makers = signers.iter().map(|_| Vec::new()).collect();
        let (subject, platform) = (subject.descriptor.clone(), subject.platform.clone());
        Tally { position, requirement, subject, platform, signers, makers }
    }

    fn count(
        &mut self,
        subject: &Subject,
        found: &FoundSignature<'_>,
        informed: &BTreeMap<&str, Trust>,
        budget: &SignatureBudget,
    ) -> Result<()> {
        let expected = Expected::of(self.requirement.predicate_type.as_deref(), None);
        for ((name, trust, check), makers) in self.signers.iter_mut().zip(&mut self.makers) {
            if !check.may_be(found) {
                continue;
            }
            let verified = informed.get(name).unwrap_or(trust).verify(subject, found, expected);
            if let Ok(proof) = &verified
                && !makers.contains(&proof.maker)
            {
                makers.push(proof.maker.clone());
            }
            check.note(found, verified, budget)?;
        }
        Ok(())
    }

    fn finding(self) -> Finding {
        Finding {
            requirement: self.position + 1,
            subject: self.subject,
            platform: self.platform,
            predicate_type: self.requirement.predicate_type.clone(),
            threshold: self.requirement.threshold,
            counted: count_distinct(&self.makers),
            checks: self.signers.into_iter().map(|(.., check)| check).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ocikit_image::{CopyOptions, Memory, Sink, testing};

    use super::*;
    use crate::http::Http;
    use crate::key::{KeyKind, PrivateKey};
    use crate::policy::file::SignerFiles;
    use crate::sign::{SignOptions, attach, sign};
    use crate::sigstore::testing::TestServices;
    use crate::sigstore::{LogCheck, VerificationMaterial};

    /// Signs an image with both keys and returns how many signers count: a plain key, and the identity in a
    /// certificate.
    async fn counted(plain: &PrivateKey, certified: &PrivateKey) -> usize {
        let (world, memory) = (TestServices::new(), Arc::new(Memory::new()));
        let image = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[1]);
        let root = Root::at(memory.clone(), image).await.unwrap();
        let (place, now): (Arc<dyn Sink>, _) = (memory, world.trust().now);
        let leaf = world.certificate(certified, |_| {});
        let http = Http::new(&crate::http::tests::local()).unwrap();
        let material = VerificationMaterial { certificates: vec![leaf], ..VerificationMaterial::new(http, now) };
        for (key, material) in [(plain, None), (certified, Some(material))] {
            let options = SignOptions { material, ..SignOptions::new(vec![Format::Cosign], now) };
            let made = sign(&root, key, &options).await.unwrap();
            attach(&made, &place, &CopyOptions::default()).await.unwrap();
        }
        let text = "{version: 1, signers: {plain: {key: a}, named: {identity: a, certificateChain: b}}, \
                    rules: [{scope: '*', require: [{signers: [plain, named]}]}]}";
        let policy = Policy::parse(text, |files| match files {
            SignerFiles::Key(_) => Ok::<_, Error>(PolicySigner::Key(plain.public_key().clone())),
            _ => {
                let trust = CertificateTrust { log: LogCheck::Skipped, ..world.trust() };
                Ok(PolicySigner::Certificate(Box::new(trust)))
            }
        });
        let verdict = policy.unwrap().check(&root, &PolicyOptions::new(None, now)).await.unwrap();
        let finding = &verdict.findings[0];
        let is_verified = |check: &Check| matches!(check.outcome, crate::verify::Outcome::Verified(_));
        assert!(finding.checks.iter().all(is_verified), "{:?}", finding.checks);
        finding.counted
    }

    #[tokio::test]
    async fn one_key_counts_once_plain_and_in_a_certificate() {
        let [one, two] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
        assert_eq!(counted(&one, &two).await, 2);
        assert_eq!(counted(&one, &one).await, 1);
    }
}
