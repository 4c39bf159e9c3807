use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ocikit::{Digest, Platform};

use super::dockerfile::Via;
use super::metadata::{Located, MetadataFormat};
use super::place::{FilePlace, Span};
use super::version::Version;

/// A repository of images, in an order in which each image follows those that it depends on.
#[derive(Debug, Clone)]
pub struct Project {
    pub(super) root: PathBuf,
    pub(super) images: Vec<ProjectImage>,
    pub(super) positions: HashMap<String, usize>,
}

/// An image of a project. It holds what was read from its files, not their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectImage {
    /// The name: that of the directory without its number.
    pub name: String,
    /// The number at the beginning of the name of the directory.
    pub number: Option<u64>,
    /// The directory, relative to the project.
    pub directory: PathBuf,
    /// The version, as the metadata have it.
    pub version: Located<String>,
    /// The platforms of the metadata; `None` if the defaults apply.
    pub platforms: Option<Vec<Platform>>,
    /// The form of the metadata.
    pub format: MetadataFormat,
    /// The place of the version.
    pub version_place: FilePlace,
    /// The references to other images of the project, in the order in which they are written.
    pub dependencies: Vec<Dependency>,
    /// The images of the Dockerfile that are not of the project, without duplicates.
    pub bases: Vec<String>,
    /// The position of its stage: 0 without dependencies, else one more than the highest of its dependencies.
    pub stage: usize,
    /// Whether `COPY --from` or `RUN --mount=from` has a variable, which BuildKit refuses.
    pub has_refused_variables: bool,
    /// The digest of the Dockerfile when it was read.
    pub(super) dockerfile: Digest,
    /// The digest of the metadata when they were read.
    pub(super) metadata: Digest,
}

/// A reference to another image of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dependency {
    /// The position of the other image in the project.
    pub image: usize,
    /// How it is referred to.
    pub via: Via,
    /// The place of the reference.
    pub place: FilePlace,
    /// The name of the named context, if it is one.
    pub context: Option<String>,
    /// The tag of the reference.
    pub tag: Option<String>,
    /// The version in the reference, and where it is written.
    pub pin: Option<Pin>,
    /// The digest of the reference.
    pub digest: Option<String>,
}

/// A version in a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The version.
    pub version: Version,
    /// The place of its text; `None` if it is not in one place of the file.
    pub span: Option<Span>,
}

impl Project {
    /// Returns the directory of the project.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the images, each after those that it depends on.
    pub fn images(&self) -> &[ProjectImage] {
        &self.images
    }

    /// Returns the position of an image.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// Returns the number of stages. The images of a stage do not depend on each other.
    pub fn stages(&self) -> usize {
        self.images.iter().map(|image| image.stage + 1).max().unwrap_or_default()
    }

    /// Returns the selected images and all that depend on them.
    pub fn with_descendants(&self, selected: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut marked: Vec<bool> = (0..self.images.len()).map(selected).collect();
        for (position, image) in self.images.iter().enumerate() {
            marked[position] = marked[position] || image.parents().any(|parent| marked[parent]);
        }
        marked
    }
}

impl ProjectImage {
    /// Returns the positions of the images that it depends on; one may occur several times.
    pub fn parents(&self) -> impl Iterator<Item = usize> + '_ {
        self.dependencies.iter().map(|dependency| dependency.image)
    }

    /// Returns the path of the Dockerfile, relative to the project.
    pub fn dockerfile_path(&self) -> PathBuf {
        self.directory.join(DOCKERFILE)
    }

    /// Returns the path of the metadata, relative to the project.
    pub fn metadata_path(&self) -> PathBuf {
        self.directory.join(self.format.file_name())
    }
}

/// The name of the Dockerfile of each image.
pub(super) const DOCKERFILE: &str = "Dockerfile";
