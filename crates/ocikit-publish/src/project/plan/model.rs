use std::collections::{BTreeMap, BTreeSet};

use ocikit::{Digest, Platform};
use serde::Serialize;

/// The annotation of a published image with the digest of what it was built from.
pub const INPUTS_ANNOTATION: &str = "dev.ocikit.project.inputs";

/// What decides that an image is up to date.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PlanOptions {
    /// The platforms of images that have none of their own.
    pub default_platforms: Vec<Platform>,
    /// Builds for these platforms only, whatever the metadata say.
    pub only_platforms: Option<Vec<Platform>>,
    /// The images to consider, with all that depend on them; all if `None`.
    pub touched: Option<BTreeSet<usize>>,
    /// The digests of the inputs of all images, by position, if they count.
    pub inputs: Option<Vec<Digest>>,
    /// The present digests of base images outside of the project, by reference, if they count.
    pub bases: Option<BTreeMap<String, Digest>>,
}

/// Why an image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Reason {
    /// The registry was not asked.
    NotChecked,
    /// The version is not published.
    NotPublished,
    /// The published image lacks platforms.
    MissingPlatforms {
        /// The platforms.
        missing: Vec<String>,
    },
    /// The published image was built from other inputs.
    InputsChanged,
    /// The base image outside of the project is another one now.
    BaseChanged {
        /// The base image.
        base: String,
    },
}

impl Reason {
    /// Returns the reason in words.
    pub fn words(&self) -> String {
        match self {
            Reason::NotChecked => "the registry was not asked".to_owned(),
            Reason::NotPublished => "the version is not published".to_owned(),
            Reason::MissingPlatforms { missing } => format!("the published image lacks {}", missing.join(", ")),
            Reason::InputsChanged => "the published image was built from other inputs".to_owned(),
            Reason::BaseChanged { base } => format!("the base image {base} changed"),
        }
    }
}

/// The decision about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// It is built.
    Build(Reason),
    /// It is published as it should be.
    UpToDate {
        /// Its digest.
        digest: Digest,
    },
    /// The change does not touch it.
    NotTouched,
}

/// A plan: a decision for each image of the project, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildPlan {
    /// The images, in the order of the project.
    pub images: Vec<PlannedImage>,
}

/// An image in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedImage {
    /// The position in the project.
    pub position: usize,
    /// The stage of the image in the project. It does not depend on what is published.
    pub stage: usize,
    /// The platforms to build for.
    pub platforms: Vec<Platform>,
    /// The decision.
    pub decision: Decision,
    /// What its version points to in the registry, as far as the registry was asked.
    pub published: Option<Digest>,
}

impl BuildPlan {
    /// Returns the images to build.
    pub fn builds(&self) -> impl Iterator<Item = &PlannedImage> {
        self.images.iter().filter(|image| matches!(image.decision, Decision::Build(_)))
    }

    /// Returns the images that the plan considers, whether they are built or not.
    pub fn considered(&self) -> impl Iterator<Item = &PlannedImage> {
        self.images.iter().filter(|image| !matches!(image.decision, Decision::NotTouched))
    }

    /// Returns the number of stages up to the last image to build.
    pub fn stages(&self) -> usize {
        self.builds().map(|image| image.stage + 1).max().unwrap_or_default()
    }
}

/// What a registry has of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// The tag does not exist.
    Absent,
    /// The tag exists.
    Present {
        /// The digest.
        digest: Digest,
        /// The platforms, without attestations.
        platforms: Vec<Platform>,
        /// The digest of the inputs that it was built from, if it says so.
        inputs: Option<String>,
        /// The base image and its digest, if it says so.
        base: Option<(String, String)>,
    },
}
