use jiff::Timestamp;
use ocikit::{Descriptor, Digest, MediaType};
use ocikit_lazy::Warning;
use serde::Serialize;

use crate::git::Event;
use crate::lazy::{LazyError, LazyPlacement};
use crate::plan::{Destination, Plan, Signing};
use crate::publish::{LazyPublishError, PublishError, Published, PublishedLazy, PublishedTarget, TagState};

/// What is published: facts that the publication itself does not have.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReportInput {
    /// The name of the image.
    pub image: String,
    /// The platforms.
    pub platforms: Vec<String>,
    /// When it started.
    pub started: Timestamp,
    /// When it finished.
    pub finished: Timestamp,
    /// The signing services that recorded the tags.
    pub recorded_by: Vec<String>,
    /// The lazily pulled images.
    pub lazy: Vec<LazyReport>,
}

/// A lazily pulled image beside the plain one, in a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LazyReport {
    /// The format.
    pub format: &'static str,
    /// Where it is: `tag`, `index` or `referrer`.
    pub placement: &'static str,
    /// The digests: of the image, or of the referrer of each platform; none if it is missing or in the index.
    pub digests: Vec<Digest>,
    /// The references that point to it.
    pub references: Vec<String>,
    /// The references that should point to it and do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Whether it has a signature of the signer.
    pub signed: bool,
    /// What the format cannot express, and was left as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether another run would fail alike: nothing of the image can have the format.
    #[serde(skip)]
    pub is_lasting: bool,
    /// What failed, if it is known for single references. The other missing ones were not put because of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<LazyFailureReport>,
}

/// References that could not be put, in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LazyFailureReport {
    /// The references.
    pub references: Vec<String>,
    /// The problem.
    pub problem: String,
}

impl LazyReport {
    /// Creates the report of an image at tags or of referrers.
    pub fn of(lazy: &PublishedLazy, placement: LazyPlacement) -> LazyReport {
        let names = |references: Vec<ocikit::Reference>| references.iter().map(ToString::to_string).collect();
        LazyReport {
            format: lazy.format,
            placement: placement.name(),
            digests: lazy.digests.clone(),
            references: names(lazy.references()),
            missing: names(lazy.missing()),
            signed: lazy.signed,
            warnings: lazy.warnings.iter().map(ToString::to_string).collect(),
            problem: lazy.problem.as_ref().map(|problem| ocikit::spec::with_causes(problem)),
            is_lasting: matches!(&lazy.problem, Some(LazyPublishError::Lazy(LazyError::NotConverted { .. }))),
            failures: lazy
                .failures()
                .into_iter()
                .map(|failure| LazyFailureReport { references: names(failure.references), problem: failure.problem })
                .collect(),
        }
    }

    /// Creates the report of images that are in the index of the published image, or should be.
    pub fn in_index(format: &'static str, warnings: &[Warning], problem: Option<&LazyError>) -> LazyReport {
        LazyReport {
            format,
            placement: LazyPlacement::Index.name(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            problem: problem.map(|problem| ocikit::spec::with_causes(problem)),
            is_lasting: matches!(problem, Some(LazyError::NotConverted { .. })),
            ..LazyReport::default()
        }
    }
}

/// A report with every target, tag, digest, count and signature. Its JSON is described in `docs/publish.md`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// The outcome.
    pub status: Status,
    /// The name of the image.
    pub image: String,
    /// The event.
    pub event: Event,
    /// The digest.
    pub digest: Digest,
    /// The media type.
    pub media_type: MediaType,
    /// The size of the manifest or index, in bytes.
    pub size: u64,
    /// The platforms.
    pub platforms: Vec<String>,
    /// The decision about signing, in words.
    pub signing: String,
    /// The signing services that recorded the tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recorded_by: Vec<String>,
    /// The repositories.
    pub targets: Vec<TargetReport>,
    /// The lazily pulled images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lazy: Vec<LazyReport>,
    /// When it started.
    pub started: String,
    /// When it finished.
    pub finished: String,
    /// The time in between, in seconds.
    pub seconds: f64,
}

/// The outcome of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Status {
    /// Every tag points to the image, and no lazily pulled image is missing.
    Succeeded,
    /// Some tags do not, or one is missing.
    Partial,
    /// No tag does.
    Failed,
}

impl Status {
    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Succeeded => "succeeded",
            Status::Partial => "partial",
            Status::Failed => "failed",
        }
    }
}

/// A repository in a report.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TargetReport {
    /// The repository that the image was pushed to.
    pub repository: String,
    /// The repository that it is read from.
    pub read: String,
    /// The tags.
    pub tags: Vec<TagReport>,
    /// The tags that were not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedReport>,
    /// The blobs and documents that were uploaded.
    pub uploaded: CountReport,
    /// Those that were mounted.
    pub mounted: CountReport,
    /// Those that existed.
    pub present: CountReport,
    /// The time until the repository had the whole image, in seconds from the start of the publication.
    pub stored_seconds: f64,
    /// The time until its tags were read back, in seconds from the start of the publication.
    pub seconds: f64,
    /// Whether the image has a signature of the signer.
    pub signed: bool,
    /// The signatures that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Digest>,
    /// The attestations that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Digest>,
    /// Why there is no statement about the publication, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_problem: Option<String>,
}

/// A tag in a report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TagReport {
    /// The tag.
    pub tag: String,
    /// Its name.
    pub name: String,
    /// The reason for it.
    pub because: &'static str,
    /// `verified`, `moved` or `failed`.
    pub state: &'static str,
    /// The problem, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A tag that was not used, in a report.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SkippedReport {
    /// The tag.
    pub tag: String,
    /// The reason.
    pub reason: String,
}

/// A number of blobs and documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CountReport {
    /// The number.
    pub blobs: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The build report of the image builder, with exactly its nine keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BuildReport {
    /// The outcome: `Succeeded` or `Failed`.
    pub status: &'static str,
    /// Whether the image was pushed under every tag.
    pub pushed: bool,
    /// Whether it was signed.
    pub signed: bool,
    /// The name of the image.
    pub image_name: String,
    /// The references: repository and tag.
    pub images_list: Vec<String>,
    /// The digest.
    pub digest: String,
    /// The tags.
    pub tags: Vec<String>,
    /// The registry and path that the name is below.
    pub repository_path: String,
    /// The platforms.
    pub architectures: Vec<String>,
}

impl Report {
    /// Creates the report of a publication.
    pub fn of(published: &Published, plan: &Plan, input: &ReportInput) -> Report {
        let (failed, unstated) = (published.failed().count(), published.without_statement().count());
        let all: usize = published.targets.iter().map(|target| target.tags.len()).sum();
        let status = match failed {
            0 if unstated == 0 && input.lazy.iter().all(|lazy| lazy.problem.is_none()) => Status::Succeeded,
            failed if failed == all && all > 0 => Status::Failed,
            _ => Status::Partial,
        };
        let mut report = Report::new(status, &published.root, plan, input);
        if let (Signing::NoSigner, [_, ..]) = (plan.signing, &input.recorded_by[..]) {
            report.signing = format!("recorded by {}", input.recorded_by.join(", "));
        }
        report.recorded_by.clone_from(&input.recorded_by);
        report.targets = published.targets.iter().map(TargetReport::of).collect();
        report.lazy.clone_from(&input.lazy);
        report
    }

    /// Creates the report of a publication that changed no tag, with the reason for each repository.
    pub fn failed(root: &Descriptor, plan: &Plan, input: &ReportInput, error: &PublishError) -> Report {
        let targets = plan.destinations.iter().map(|destination| TargetReport::failed(destination, plan, error));
        Report { targets: targets.collect(), ..Report::new(Status::Failed, root, plan, input) }
    }

    /// Creates a report without targets.
    fn new(status: Status, root: &Descriptor, plan: &Plan, input: &ReportInput) -> Report {
        Report {
            status,
            image: input.image.clone(),
            event: plan.event,
            digest: root.digest,
            media_type: root.media_type.clone(),
            size: root.size,
            platforms: input.platforms.clone(),
            signing: plan.signing.words(),
            recorded_by: Vec::new(),
            targets: Vec::new(),
            lazy: Vec::new(),
            started: input.started.to_string(),
            finished: input.finished.to_string(),
            seconds: input.finished.duration_since(input.started).as_secs_f64(),
        }
    }

    /// Returns the references that point to the image, where they are read: `repository:tag`.
    pub fn references(&self) -> Vec<String> {
        let references = |target: &TargetReport| {
            let verified: Vec<_> = target.tags.iter().filter(|tag| tag.state == "verified").collect();
            verified.into_iter().map(|tag| format!("{}:{}", target.read, tag.tag)).collect::<Vec<_>>()
        };
        self.targets.iter().flat_map(references).collect()
    }

    /// Returns the report of the image builder. It says that the image was pushed or signed only if that happened
    /// everywhere.
    pub fn build_report(&self) -> BuildReport {
        let pushed = self.status == Status::Succeeded;
        let signed = pushed
            && (!self.recorded_by.is_empty()
                || (!self.targets.is_empty() && self.targets.iter().all(|target| target.signed)));
        let mut tags: Vec<String> = Vec::new();
        for tag in self.targets.iter().flat_map(|target| &target.tags).filter(|tag| tag.state == "verified") {
            if !tags.contains(&tag.tag) {
                tags.push(tag.tag.clone());
            }
        }
        let path = self.targets.first().map(|target| target.read.as_str()).unwrap_or_default();
        let path = path.strip_suffix(&*self.image).unwrap_or(path).trim_end_matches('/');
        BuildReport {
            status: if pushed { "Succeeded" } else { "Failed" },
            pushed,
            signed,
            image_name: self.image.clone(),
            images_list: self.references(),
            digest: self.digest.to_string(),
            tags,
            repository_path: path.to_owned(),
            architectures: self.platforms.clone(),
        }
    }

    /// Returns the outputs of the job for the next one: `images`, `architectures`, `digest` and `build-report`.
    pub fn outputs(&self) -> Vec<(&'static str, String)> {
        let json = |list: &[String]| serde_json::json!(list).to_string();
        vec![
            ("images", json(&self.references())),
            ("architectures", json(&self.platforms)),
            ("digest", self.digest.to_string()),
            ("build-report", serde_json::json!(self.build_report()).to_string()),
        ]
    }
}

impl TargetReport {
    /// Returns the report of a destination where no tag was changed.
    fn failed(destination: &Destination, plan: &Plan, error: &PublishError) -> TargetReport {
        let problem = error.at(&destination.push);
        let tags = plan.tags.tags.iter().map(|planned| TagReport {
            tag: planned.tag.to_string(),
            name: planned.name.clone(),
            because: planned.because.words(),
            state: "failed",
            problem: Some(problem.clone()),
        });
        TargetReport {
            repository: destination.push.to_string(),
            read: destination.read.to_string(),
            tags: tags.collect(),
            ..TargetReport::default()
        }
    }

    fn of(target: &PublishedTarget) -> TargetReport {
        let count = |(blobs, bytes)| CountReport { blobs, bytes };
        let tags = target.tags.iter().map(|tag| {
            let state = match &tag.state {
                TagState::Verified => "verified",
                TagState::Failed(_) => "failed",
                TagState::Moved(_) | TagState::Outdated { .. } => "moved",
            };
            let problem = tag.state.problem();
            let (tag, name, because) =
                (tag.planned.tag.to_string(), tag.planned.name.clone(), tag.planned.because.words());
            TagReport { tag, name, because, state, problem }
        });
        let skipped = target.skipped.iter();
        TargetReport {
            repository: target.destination.push.to_string(),
            read: target.destination.read.to_string(),
            tags: tags.collect(),
            skipped: skipped
                .map(|skipped| SkippedReport { tag: skipped.tag.to_string(), reason: skipped.reason.to_string() })
                .collect(),
            uploaded: count(target.transfer.uploaded),
            mounted: count(target.transfer.mounted),
            present: count(target.transfer.skipped),
            stored_seconds: target.times.stored.as_secs_f64(),
            seconds: target.times.finished.as_secs_f64(),
            signed: target.signed,
            signatures: target.signatures.clone(),
            attestations: target.attestations.clone(),
            statement_problem: target.statement_failed.as_ref().map(|error| ocikit::spec::with_causes(error)),
        }
    }
}
