use std::fmt;
use std::io;
use std::path::PathBuf;

use super::dockerfile::DockerfileProblem;
use super::limits::{MAX_IMAGES, MAX_PROBLEMS};
use super::place::FilePlace;

/// Why an operation on a project failed. Nothing was written, unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// The project has problems.
    #[error("{}", count(.0.len(), "problem", "the project"))]
    Invalid(Vec<Problem>),
    /// A file or directory cannot be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file of the project is a directory, named pipe or device.
    #[error("{}: it is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A file that would be written is outside of the project, because a symlink leads there.
    #[error("{} leads out of the project, to {}", path.display(), target.display())]
    Outside {
        /// The file in the project.
        path: PathBuf,
        /// The file that it means.
        target: PathBuf,
    },
    /// A cascade was interrupted after it was decided; some files may have their new content and others not.
    #[error("a cascade of this project was interrupted: {} exists", journal.display())]
    Interrupted {
        /// The file that lists what is missing.
        journal: PathBuf,
    },
    /// The journal of an interrupted cascade does not fit the files.
    #[error("cannot finish the interrupted cascade: {}: {problem}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: &'static str,
    },
    /// Another process changes the project.
    #[error("another process changes {}", path.display())]
    Locked {
        /// The project.
        path: PathBuf,
    },
    /// A file changed between reading and writing.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

fn count(number: usize, what: &str, of: &str) -> String {
    let more = if number >= MAX_PROBLEMS { "at least " } else { "" };
    format!("{of} has {more}{number} {what}{}", if number == 1 { "" } else { "s" })
}

impl ProjectError {
    pub(super) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ProjectError {
        let path = path.into();
        move |source| ProjectError::Io { operation, path, source }
    }
}

/// A problem of a project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The directory has no images.
    #[error("{}: there is no directory with an image", .0.display())]
    NoImages(PathBuf),
    /// There are too many images.
    #[error("{}: there are more than {MAX_IMAGES} images", .0.display())]
    TooManyImages(PathBuf),
    /// A directory lacks a file that every image has.
    #[error("{}: it has no `{file}`", directory.display())]
    MissingFile {
        /// The directory.
        directory: PathBuf,
        /// The missing file.
        file: &'static str,
    },
    /// A file of an image is a directory, named pipe or device.
    #[error("{}: it is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A symlink among the directories of the images leads nowhere.
    #[error("{}: the symlink leads nowhere", .0.display())]
    DanglingLink(PathBuf),
    /// A directory has metadata in both forms.
    #[error("{}: it has both `info.edn` and `image.toml`", .0.display())]
    TwoMetadataFiles(PathBuf),
    /// The name of a directory is no name of an image.
    #[error("{}: `{name}` is not a valid name of an image", directory.display())]
    Name {
        /// The directory.
        directory: PathBuf,
        /// The name.
        name: String,
    },
    /// Two directories have the same name without their numbers.
    #[error("{}: the image `{name}` exists in {} too", second.display(), first.display())]
    DuplicateName {
        /// The name.
        name: String,
        /// The first directory.
        first: PathBuf,
        /// The second directory.
        second: PathBuf,
    },
    /// The Dockerfile cannot be read.
    #[error("{place}: {problem}")]
    Dockerfile {
        /// The place.
        place: FilePlace,
        /// The problem.
        problem: DockerfileProblem,
    },
    /// The metadata cannot be read.
    #[error("{place}: {problem}")]
    Metadata {
        /// The place.
        place: FilePlace,
        /// The problem.
        problem: String,
    },
    /// A reference names an image that the project does not have.
    #[error("{place}: the project has no image `{name}`")]
    UnknownSibling {
        /// The place.
        place: FilePlace,
        /// The name.
        name: String,
    },
    /// A reference uses a variable that has no value there.
    #[error("{place}: the variable `{variable}` has no value here; declare it with ARG before the first FROM")]
    Undeclared {
        /// The place.
        place: FilePlace,
        /// The variable.
        variable: String,
    },
    /// Images depend on each other in a circle.
    #[error("{}", cycle(.0))]
    Cycle(Vec<CycleStep>),
    /// A version is not `x.y.z`, so it cannot be increased.
    #[error("{place}: the version `{value}` of `{image}` is not of the form x.y.z")]
    NotAVersion {
        /// The place.
        place: FilePlace,
        /// The image.
        image: String,
        /// The version.
        value: String,
    },
    /// A version cannot be replaced, because it is not written in one place of the file.
    #[error("{place}: the version of `{image}` in this reference is put together from several parts")]
    SplitVersion {
        /// The place of the reference.
        place: FilePlace,
        /// The image.
        image: String,
    },
    /// A file that has to change is outside of the project, because a symlink leads there.
    #[error("{}: it would change, and it leads out of the project, to {}", path.display(), target.display())]
    Outside {
        /// The file in the project.
        path: PathBuf,
        /// The file that it means.
        target: PathBuf,
    },
    /// Two images share a file by symlinks, and need different contents of it.
    #[error("{} and {} are the same file, which would have to change differently", first.display(), second.display())]
    SharedFile {
        /// The file of one image.
        first: PathBuf,
        /// The file of the other image.
        second: PathBuf,
    },
    /// Two references to images with different versions take the version from the same place.
    #[error("{place}: this version belongs to several images, which would need {first} and {second}")]
    SharedVersion {
        /// The place of the version.
        place: FilePlace,
        /// One version.
        first: String,
        /// The other version.
        second: String,
    },
}

/// One step of a cycle: an image and the place where it refers to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CycleStep {
    /// The image.
    pub image: String,
    /// The place of the reference.
    pub place: FilePlace,
}

fn cycle(steps: &[CycleStep]) -> impl fmt::Display {
    let names: Vec<_> = steps.iter().chain(steps.first()).map(|step| step.image.as_str()).collect();
    let places: Vec<_> = steps.iter().map(|step| step.place.to_string()).collect();
    format!("the images {} depend on each other: {}", names.join(" → "), places.join(", "))
}
