//! Carries new versions to the images that depend on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ocikit::Digest;

use super::error::{Problem, ProjectError};
use super::files::{read_file, target};
use super::limits::{MAX_DOCKERFILE_BYTES, MAX_METADATA_BYTES, MAX_PROBLEMS};
use super::metadata::quoted;
use super::model::{Project, ProjectImage};
use super::place::{FilePlace, Span, replaced};
use super::version::{Level, Version};

/// How the version of an image increases when one that it depends on has a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CascadePolicy {
    /// For a new minor version.
    pub on_minor: Level,
    /// For a new major version.
    pub on_major: Level,
}

impl Default for CascadePolicy {
    /// Increases the patch version in every case.
    fn default() -> CascadePolicy {
        CascadePolicy { on_minor: Level::Patch, on_major: Level::Patch }
    }
}

impl CascadePolicy {
    /// Returns the policy with these levels.
    pub fn new(on_minor: Level, on_major: Level) -> CascadePolicy {
        CascadePolicy { on_minor, on_major }
    }

    fn level(self, change: Level) -> Level {
        match change {
            Level::Patch => Level::Patch,
            Level::Minor => self.on_minor,
            Level::Major => self.on_major,
        }
    }
}

/// A decided cascade. Nothing is written yet: [`Cascade::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cascade {
    /// The new versions, each image after those that it depends on.
    pub bumps: Vec<Bump>,
    /// The files that change.
    pub changes: Vec<FileChange>,
    /// References that are left as they are.
    pub notes: Vec<CascadeNote>,
    pub(super) root: PathBuf,
    /// The directories of all images, relative to the project.
    pub(super) directories: Vec<PathBuf>,
}

/// A new version of an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Bump {
    /// The image.
    pub image: String,
    /// The version before.
    pub from: String,
    /// The new version.
    pub to: String,
    /// The references that change.
    pub references: Vec<ChangedReference>,
}

/// A reference that gets another version.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ChangedReference {
    /// The place of the reference.
    pub place: FilePlace,
    /// The image that it refers to.
    pub image: String,
    /// The version before.
    pub from: String,
    /// The new version.
    pub to: String,
}

/// A reference that a cascade leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CascadeNote {
    /// It has no version that could be replaced.
    #[error("{place}: the reference to `{image}` has no version x.y.z and is left as it is")]
    NotPinned {
        /// The place.
        place: FilePlace,
        /// The image.
        image: String,
    },
    /// Its digest still means the image with the previous version.
    #[error("{place}: the reference to `{image}` keeps its digest, which is that of another version")]
    KeepsDigest {
        /// The place.
        place: FilePlace,
        /// The image.
        image: String,
    },
}

/// A file with its bytes before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileChange {
    /// The file, relative to the project.
    pub path: PathBuf,
    /// Its bytes now.
    pub before: Vec<u8>,
    /// Its new bytes.
    pub after: Vec<u8>,
}

/// The edits of one file, by place.
type Edits = BTreeMap<Span, String>;

impl Project {
    /// Decides which references and versions change, so that each reference to an image of the project has the version of
    /// that image, and each image with a changed reference has a new version. Each version increases at most once.
    ///
    /// # Errors
    ///
    /// [`ProjectError::Invalid`] if a version that takes part is not `x.y.z` or cannot be replaced where it is written, if a
    /// file leads out of the project, or if images that share a file need different contents of it, and
    /// [`ProjectError::Changed`] if a file is not the one that was read.
    pub fn cascade(&self, policy: CascadePolicy) -> Result<Cascade, ProjectError> {
        let mut run = Run { project: self, policy, versions: Vec::new(), problems: Vec::new() };
        let mut cascade = Cascade {
            bumps: Vec::new(),
            changes: Vec::new(),
            notes: Vec::new(),
            root: self.root.clone(),
            directories: self.images.iter().map(|image| image.directory.clone()).collect(),
        };
        let mut kept = Vec::new();
        for image in &self.images {
            let (dockerfile, metadata) = run.image(image, &mut cascade)?;
            if run.problems.len() >= MAX_PROBLEMS {
                break;
            }
            let files = [
                (image.dockerfile_path(), image.dockerfile, MAX_DOCKERFILE_BYTES, dockerfile),
                (image.metadata_path(), image.metadata, MAX_METADATA_BYTES, metadata),
            ];
            for (path, digest, limit, edits) in files {
                if edits.is_empty() {
                    kept.push(path);
                    continue;
                }
                let change = self.change(path, digest, limit, &edits)?;
                // The Dockerfile stays as it is if only named contexts have new versions.
                match change.before == change.after {
                    true => kept.push(change.path),
                    false => cascade.changes.push(change),
                }
            }
        }
        if run.problems.is_empty() && !cascade.changes.is_empty() {
            let changes = std::mem::take(&mut cascade.changes);
            cascade.changes = distinct(&self.root, changes, &kept, &mut run.problems)?;
        }
        if run.problems.is_empty() { Ok(cascade) } else { Err(ProjectError::Invalid(run.problems)) }
    }

    fn change(&self, path: PathBuf, digest: Digest, limit: usize, edits: &Edits) -> Result<FileChange, ProjectError> {
        let before = read_file(&self.root.join(&path), limit)?.unwrap_or_default();
        if Digest::sha256_of(&before) != digest {
            return Err(ProjectError::Changed { path });
        }
        let after = replaced(&before, edits.iter().map(|(span, text)| (*span, text.as_bytes())));
        Ok(FileChange { path, before, after })
    }
}

/// Returns changes with one for each file: several paths may mean the same file. Their changes have to agree, also with the
/// paths whose files are `kept` as they are.
fn distinct(
    root: &Path,
    changes: Vec<FileChange>,
    kept: &[PathBuf],
    problems: &mut Vec<Problem>,
) -> Result<Vec<FileChange>, ProjectError> {
    let mut known: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut distinct: Vec<FileChange> = Vec::new();
    for change in changes {
        let target = match target(root, &change.path) {
            Err(ProjectError::Outside { path, target }) => {
                problems.push(Problem::Outside { path, target });
                continue;
            }
            target => target?,
        };
        let first = *known.entry(target).or_insert(distinct.len());
        match distinct.get(first) {
            None => distinct.push(change),
            Some(first) if first.after == change.after => {}
            Some(first) => problems.push(Problem::SharedFile { first: first.path.clone(), second: change.path }),
        }
    }
    for path in kept {
        let found = fs::canonicalize(root.join(path)).ok().and_then(|target| known.get(&target));
        if let Some(first) = found {
            problems.push(Problem::SharedFile { first: distinct[*first].path.clone(), second: path.clone() });
        }
    }
    problems.truncate(MAX_PROBLEMS);
    Ok(distinct)
}

struct Run<'a> {
    project: &'a Project,
    policy: CascadePolicy,
    /// The version of each image so far, with its changes; `None` if it is not `x.y.z`.
    versions: Vec<Option<Version>>,
    problems: Vec<Problem>,
}

impl Run<'_> {
    /// Decides about one image, whose dependencies are decided. Returns the edits of its Dockerfile and its metadata.
    fn image(&mut self, image: &ProjectImage, cascade: &mut Cascade) -> Result<(Edits, Edits), ProjectError> {
        let before = Version::parse(&image.version.value);
        let (mut dockerfile, mut metadata) = (Edits::new(), Edits::new());
        let (mut level, mut references) = (None, Vec::new());
        for dependency in &image.dependencies {
            let parent = &self.project.images[dependency.image];
            let Some(pin) = dependency.pin else {
                let note = CascadeNote::NotPinned { place: dependency.place.clone(), image: parent.name.clone() };
                cascade.notes.push(note);
                continue;
            };
            let Some(version) = self.versions[dependency.image] else {
                self.problems.push(not_a_version(parent));
                continue;
            };
            let edits = if dependency.context.is_some() { &mut metadata } else { &mut dockerfile };
            let is_changed = pin.version != version;
            match (pin.span, is_changed) {
                (None, false) => continue,
                (None, true) => {
                    let place = dependency.place.clone();
                    self.problems.push(Problem::SplitVersion { place, image: parent.name.clone() });
                    continue;
                }
                // Also without a change, so that a version that is shared with another image is noticed.
                (Some(span), _) => match edits.insert(span, version.to_string()) {
                    Some(other) if other != version.to_string() => {
                        let (place, first, second) = (dependency.place.clone(), other, version.to_string());
                        self.problems.push(Problem::SharedVersion { place, first, second });
                        continue;
                    }
                    _ => {}
                },
            }
            if is_changed {
                level = level.max(Some(self.policy.level(version.level_from(pin.version))));
                references.push(ChangedReference {
                    place: dependency.place.clone(),
                    image: parent.name.clone(),
                    from: pin.version.to_string(),
                    to: version.to_string(),
                });
                if dependency.digest.is_some() {
                    let (place, image) = (dependency.place.clone(), parent.name.clone());
                    cascade.notes.push(CascadeNote::KeepsDigest { place, image });
                }
            }
        }
        let Some(level) = level else {
            self.versions.push(before);
            return Ok((Edits::new(), Edits::new()));
        };
        let Some(after) = before.and_then(|before| before.next(level)) else {
            self.problems.push(not_a_version(image));
            self.versions.push(None);
            return Ok((Edits::new(), Edits::new()));
        };
        self.versions.push(Some(after));
        metadata.insert(image.version.span, quoted(&after.to_string()));
        cascade.bumps.push(Bump {
            image: image.name.clone(),
            from: image.version.value.clone(),
            to: after.to_string(),
            references,
        });
        Ok((dockerfile, metadata))
    }
}

fn not_a_version(image: &ProjectImage) -> Problem {
    Problem::NotAVersion {
        place: image.version_place.clone(),
        image: image.name.clone(),
        value: image.version.value.clone(),
    }
}

/// The lines of unchanged text around a change in a diff.
const CONTEXT_LINES: usize = 3;

impl FileChange {
    /// Returns the change as a unified diff. A cascade changes text within lines only, so both sides have the same lines.
    pub fn diff(&self) -> Vec<u8> {
        let before: Vec<_> = self.before.split_inclusive(|byte| *byte == b'\n').collect();
        let after: Vec<_> = self.after.split_inclusive(|byte| *byte == b'\n').collect();
        let path = self.path.display();
        let mut diff = format!("--- a/{path}\n+++ b/{path}\n").into_bytes();
        let differs: Vec<_> = (0..before.len()).filter(|line| before.get(*line) != after.get(*line)).collect();
        let mut next = 0;
        while next < differs.len() {
            let first = differs[next];
            let mut last = first;
            while let Some(line) = differs.get(next).filter(|line| **line <= last + 2 * CONTEXT_LINES) {
                last = *line;
                next += 1;
            }
            let (start, end) = (first.saturating_sub(CONTEXT_LINES), (last + 1 + CONTEXT_LINES).min(before.len()));
            let count = end - start;
            diff.extend(format!("@@ -{},{count} +{},{count} @@\n", start + 1, start + 1).bytes());
            let mut line = start;
            while line < end {
                if before[line] == after[line] {
                    push_line(&mut diff, b' ', before[line]);
                    line += 1;
                    continue;
                }
                let run = (line..end).take_while(|line| before[*line] != after[*line]).count();
                before[line..line + run].iter().for_each(|text| push_line(&mut diff, b'-', text));
                after[line..line + run].iter().for_each(|text| push_line(&mut diff, b'+', text));
                line += run;
            }
        }
        diff
    }
}

fn push_line(diff: &mut Vec<u8>, sign: u8, line: &[u8]) {
    diff.push(sign);
    diff.extend_from_slice(line);
    if line.last() != Some(&b'\n') {
        diff.extend_from_slice(b"\n\\ No newline at end of file\n");
    }
}
