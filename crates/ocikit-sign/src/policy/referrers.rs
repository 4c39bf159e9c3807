use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ocikit_image::walk::limits::Limits;
use ocikit_image::walk::{Edge, Found, Walk};
use ocikit_image::{Root, Source};
use ocikit_spec::{Descriptor, Digest};

use crate::budget::SignatureBudget;
use crate::error::Result;
use crate::format::Format;
use crate::policy::check::{PolicyOptions, check_subject, informed};
use crate::policy::file::{Policy, Requirement};
use crate::signatures::Signatures;
use crate::subjects::{Depth, Subject, SubjectKind, subjects};
use crate::trust::{Expected, Statement, Trust};

/// The result of checking the referrers of an image against a policy.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReferrerCheck {
    /// Verified referrers: signatures and attestations by the signers of the rule, and other artifacts that these
    /// signers have signed as the rule requires of images.
    pub verified: BTreeSet<Digest>,
    /// Manifests under cosign's signature tags with both verified and unverified signatures.
    pub mixed: BTreeSet<Digest>,
    /// All other referrers.
    pub unverified: BTreeSet<Digest>,
}

/// The maximum distance from the image at which referrers of referrers are checked.
const MAX_DISTANCE: usize = 4;

/// The suffixes of cosign's tags for attestations and SBOMs, which are not verified here.
const UNVERIFIED_TAG_SUFFIXES: [&str; 2] = ["att", "sbom"];

impl Policy {
    /// Checks the referrers of an image and of everything below it: whether the signers of the rule for its
    /// repository have signed them. The image itself is checked by [`Policy::check`].
    ///
    /// # Errors
    ///
    /// Those of [`Policy::check`].
    pub async fn check_referrers(&self, root: &Root, options: &PolicyOptions) -> Result<ReferrerCheck> {
        let rule = self.rule(options.repository.as_ref())?;
        let trusted = self.trusted(&rule.requirements, options)?;
        // The requirements for an artifact that is not a signature itself.
        let plain = rule.requirements.iter().filter(|requirement| requirement.predicate_type.is_none());
        let plain: Vec<_> = plain.map(|wanted| Requirement { depth: Depth::Root, ..wanted.clone() }).collect();
        let mut search = Search {
            trusted: &trusted,
            plain: &plain,
            budget: SignatureBudget::default(),
            found: SignatureCounts::default(),
        };
        let below = subjects(root, Depth::Everything, &search.budget).await?;
        let mut walk = Walk::new(&**root.source(), Limits::IMAGE);
        let mut parts: BTreeMap<Digest, Vec<Subject>> = BTreeMap::new();
        for part in below {
            walk.start_unread(&part.descriptor)?;
            parts.entry(part.digest()).or_default().push(part);
        }
        while let Some(node) = walk.next().await {
            match node.found {
                Found::Referrers(listed) => {
                    for referrer in listed? {
                        match referrer.edge {
                            Edge::Tag(_) => search.found.note(referrer.descriptor.digest, false),
                            edge => _ = walk.add_unread(&node.path, edge, &referrer.descriptor)?,
                        }
                    }
                    continue;
                }
                _ if node.path.distance > 0 => {
                    let artifact = search.artifact(root.source(), &node.descriptor).await?;
                    let Some(artifact) = artifact.filter(|_| node.path.distance <= MAX_DISTANCE) else { continue };
                    search.signatures(&artifact).await?;
                }
                _ => {
                    for part in parts.get(&node.path.digest).into_iter().flatten() {
                        search.signatures(part).await?;
                    }
                }
            }
            walk.add_referrers(&node.path, &UNVERIFIED_TAG_SUFFIXES);
        }
        Ok(search.found.finish())
    }
}

struct Search<'a> {
    trusted: &'a BTreeMap<&'a str, Trust>,
    plain: &'a [Requirement],
    budget: SignatureBudget,
    found: SignatureCounts,
}

/// The number of verified and unverified signatures per manifest.
#[derive(Default)]
struct SignatureCounts(BTreeMap<Digest, (usize, usize)>);

impl SignatureCounts {
    fn note(&mut self, manifest: Digest, counts: bool) {
        let (good, bad) = self.0.entry(manifest).or_default();
        *(if counts { good } else { bad }) += 1;
    }

    fn finish(self) -> ReferrerCheck {
        let mut check = ReferrerCheck::default();
        for (manifest, counts) in self.0 {
            let list = match counts {
                (1.., 0) => &mut check.verified,
                (1.., _) => &mut check.mixed,
                (0, _) => &mut check.unverified,
            };
            list.insert(manifest);
        }
        check
    }
}

impl Search<'_> {
    /// Checks a referrer that was not found as a signature, and returns it if it is verified.
    async fn artifact(&mut self, source: &Arc<dyn Source>, listed: &Descriptor) -> Result<Option<Subject>> {
        if self.found.0.contains_key(&listed.digest) {
            return Ok(None);
        }
        let is_signature = listed
            .artifact_type
            .as_ref()
            .is_some_and(|kind| !kind.as_str().is_empty() && Format::may_be_listed_as(kind.as_str()));
        let artifact = artifact(source, listed);
        let counts = !is_signature && self.is_met(&artifact).await?;
        self.found.note(listed.digest, counts);
        Ok(counts.then_some(artifact))
    }

    /// Checks each signature and attestation of a subject against all signers.
    async fn signatures(&mut self, subject: &Subject) -> Result<()> {
        if matches!(subject.kind, SubjectKind::NotUnderstood(_)) {
            return Ok(());
        }
        let asked = Expected { statement: Statement::Any, signed_as: None };
        let mut signatures = Signatures::of(&*subject.source, subject.digest(), &Format::ALL, &self.budget).await?;
        while let Some(found) = signatures.next().await? {
            let informed = informed(self.trusted, &found).await;
            let mut signers = self.trusted.iter().map(|(name, trust)| informed.get(name).unwrap_or(trust));
            let counts = signers.any(|trust| trust.verify(subject, &found, asked).is_ok());
            self.found.note(found.manifest, counts);
        }
        Ok(())
    }

    /// Returns whether an artifact is signed as the rule requires of an image.
    async fn is_met(&self, artifact: &Subject) -> Result<bool> {
        if self.plain.is_empty() {
            return Ok(false);
        }
        let all = (0..self.plain.len()).collect();
        let findings = check_subject(artifact.clone(), self.plain, all, self.trusted, &self.budget).await?;
        Ok(!findings.is_empty() && findings.iter().all(|finding| finding.is_met()))
    }
}

fn artifact(source: &Arc<dyn Source>, listed: &Descriptor) -> Subject {
    Subject {
        descriptor: listed.bare(),
        platform: None,
        source: source.clone(),
        kind: SubjectKind::Manifest,
        claims: None,
    }
}
