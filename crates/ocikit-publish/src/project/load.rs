//! Reads a project from its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ocikit::{Digest, Platform, Repository};

use super::dockerfile::{Arguments, Dockerfile, ImageReference, Via};
use super::error::{Problem, ProjectError};
use super::files::{check_not_interrupted, read_file};
use super::limits::{MAX_DOCKERFILE_BYTES, MAX_IMAGES, MAX_METADATA_BYTES, MAX_PROBLEMS};
use super::metadata::{ContextEntry, Metadata, MetadataFormat};
use super::model::{DOCKERFILE, Dependency, Pin, Project, ProjectImage};
use super::order;
use super::place::FilePlace;
use super::version::Version;

/// How a project is read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProjectOptions {
    /// The directory with a directory for each image, relative to the project.
    pub contexts: PathBuf,
    /// The build argument that has the registry of the project.
    pub registry_argument: String,
    /// Registries whose references are references to the project, besides the build argument.
    pub registries: Vec<String>,
    /// The platforms of images that have none of their own.
    pub platforms: Vec<Platform>,
}

impl Default for ProjectOptions {
    fn default() -> ProjectOptions {
        ProjectOptions {
            contexts: "contexts".into(),
            registry_argument: "REGISTRY".to_owned(),
            registries: Vec::new(),
            platforms: vec![Platform::new("linux", "arm64"), Platform::new("linux", "amd64")],
        }
    }
}

/// The value of the build argument while a project is read. No registry has this name (RFC 2606).
pub(super) const REGISTRY_PLACEHOLDER: &str = "registry.invalid";

/// What is read of one directory, before the names of all images are known.
struct Found {
    image: ProjectImage,
    references: Vec<FoundReference>,
}

struct FoundReference {
    /// The name, which may not exist.
    name: String,
    dependency: Dependency,
}

impl Project {
    /// Reads a project: a directory per image, with a `Dockerfile` and an `info.edn` or `image.toml`.
    ///
    /// # Errors
    ///
    /// [`ProjectError::Invalid`] with all problems and their places, [`ProjectError::Interrupted`] if a cascade was
    /// interrupted, and those of reading files.
    pub fn load(root: &Path, options: &ProjectOptions) -> Result<Project, ProjectError> {
        check_not_interrupted(root)?;
        let contexts = root.join(&options.contexts);
        let mut problems = Vec::new();
        let mut found = Vec::new();
        let directories = directories(&contexts, &options.contexts, &mut problems)?;
        for name in &directories {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            if found.len() >= MAX_IMAGES {
                problems.push(Problem::TooManyImages(options.contexts.clone()));
                break;
            }
            match read_image(root, &options.contexts.join(name), options)? {
                Ok(image) => found.push(image),
                Err(more) => problems.extend(more),
            }
        }
        if found.is_empty() && problems.is_empty() {
            problems.push(Problem::NoImages(options.contexts.clone()));
        }
        let names = directories.iter().map(|name| split_number(&name.to_string_lossy()).1.to_owned()).collect();
        let project = connect(root, found, &names, &mut problems);
        problems.truncate(MAX_PROBLEMS);
        if problems.is_empty() { Ok(project) } else { Err(ProjectError::Invalid(problems)) }
    }
}

/// Returns the names of the directories in a directory, sorted; hidden ones are not images. A symlink that leads nowhere is a
/// problem, because it may have been an image.
fn directories(path: &Path, shown: &Path, problems: &mut Vec<Problem>) -> Result<Vec<PathBuf>, ProjectError> {
    let failed = |source| ProjectError::Io { operation: "read the directory", path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // `metadata` follows symlinks, as building does.
        match fs::metadata(entry.path()) {
            // Also one that leads to itself.
            Err(error) if error.kind() != ErrorKind::PermissionDenied && entry.path().is_symlink() => {
                if problems.len() < MAX_PROBLEMS {
                    problems.push(Problem::DanglingLink(shown.join(entry.file_name())));
                }
            }
            // It was removed in between.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => {
                if found.map_err(failed)?.is_dir() {
                    names.push(PathBuf::from(entry.file_name()));
                }
            }
        }
    }
    names.sort_unstable();
    problems.sort_by_key(ToString::to_string);
    Ok(names)
}

/// Splits `00-debian` into its number and its name.
fn split_number(directory: &str) -> (Option<u64>, &str) {
    let digits = directory.bytes().take_while(u8::is_ascii_digit).count();
    match directory[digits..].strip_prefix('-') {
        Some(name) if digits > 0 => (directory[..digits].parse().ok(), name),
        _ => (None, directory),
    }
}

fn read_image(
    root: &Path,
    directory: &Path,
    options: &ProjectOptions,
) -> Result<Result<Found, Vec<Problem>>, ProjectError> {
    let mut problems = Vec::new();
    let base = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (number, name) = split_number(&base);
    if format!("{REGISTRY_PLACEHOLDER}/{name}").parse::<Repository>().is_err() || name.contains('/') {
        // A directory that is none of an image lacks the files of one too; one problem is enough.
        return Ok(Err(vec![Problem::Name { directory: directory.to_owned(), name: name.to_owned() }]));
    }
    let mut read = |file: &'static str, limit| match read_file(&root.join(directory).join(file), limit) {
        Err(ProjectError::NotAFile { .. }) => {
            problems.push(Problem::NotAFile(directory.join(file)));
            Ok(Some(Vec::new()))
        }
        read => read,
    };
    let dockerfile = read(DOCKERFILE, MAX_DOCKERFILE_BYTES)?;
    let mut metadata = Vec::new();
    for format in MetadataFormat::ALL {
        let bytes = read(format.file_name(), MAX_METADATA_BYTES)?;
        metadata.extend(bytes.map(|bytes| (format, bytes)));
    }
    if dockerfile.is_none() {
        problems.push(Problem::MissingFile { directory: directory.to_owned(), file: DOCKERFILE });
    }
    match metadata.len() {
        0 => problems.push(Problem::MissingFile { directory: directory.to_owned(), file: "info.edn" }),
        1 => {}
        _ => problems.push(Problem::TwoMetadataFiles(directory.to_owned())),
    }
    let (Some(dockerfile), Some((format, bytes)), true) = (dockerfile, metadata.pop(), problems.is_empty()) else {
        return Ok(Err(problems));
    };
    Ok(parse_image(directory, (number, name), &dockerfile, format, &bytes, options))
}

fn parse_image(
    directory: &Path,
    (number, name): (Option<u64>, &str),
    dockerfile: &[u8],
    format: MetadataFormat,
    bytes: &[u8],
    options: &ProjectOptions,
) -> Result<Found, Vec<Problem>> {
    let metadata_path = directory.join(format.file_name());
    let place = |offset| FilePlace::of(&metadata_path, bytes, offset);
    let metadata = Metadata::parse(format, bytes)
        .map_err(|error| vec![Problem::Metadata { place: place(error.offset), problem: error.problem }])?;
    let platforms = metadata.platforms.as_ref().unwrap_or(&options.platforms);
    let read = references(dockerfile, &metadata.contexts, platforms, options);
    let (written, has_refused_variables) = read.map_err(|error| {
        let place = FilePlace { file: directory.join(DOCKERFILE), line: error.line, column: error.column };
        vec![Problem::Dockerfile { place, problem: error.problem }]
    })?;
    let mut found = Collected::default();
    for reference in &written {
        let place = FilePlace::of(directory.join(DOCKERFILE), dockerfile, reference.span.start);
        found.add(reference, place, &metadata.contexts, options);
    }
    for entry in &metadata.contexts {
        found.add_context(entry, place(entry.image.span.start));
    }
    if !found.problems.is_empty() {
        return Err(found.problems);
    }
    let image = ProjectImage {
        name: name.to_owned(),
        number,
        directory: directory.to_owned(),
        version_place: place(metadata.version.span.start),
        version: metadata.version,
        platforms: metadata.platforms,
        format,
        dependencies: Vec::new(),
        bases: found.bases.into_iter().collect(),
        stage: 0,
        has_refused_variables,
        dockerfile: Digest::sha256_of(dockerfile),
        metadata: Digest::sha256_of(bytes),
    };
    Ok(Found { image, references: found.references })
}

/// Returns the references for all platforms, and whether any has a variable that BuildKit refuses.
fn references(
    dockerfile: &[u8],
    contexts: &[ContextEntry],
    platforms: &[Platform],
    options: &ProjectOptions,
) -> Result<(Vec<ImageReference>, bool), super::dockerfile::DockerfileError> {
    let dockerfile = Dockerfile::parse(dockerfile)?;
    let mut arguments = Arguments::default().with(&options.registry_argument, REGISTRY_PLACEHOLDER);
    arguments.named_contexts = contexts.iter().map(|entry| entry.name.clone()).collect();
    let mut all: Vec<ImageReference> = Vec::new();
    for platform in platforms {
        let found = dockerfile.references(&arguments.clone().on(platform.clone()))?;
        for reference in found.references {
            if !all.iter().any(|known| known.span == reference.span && known.text == reference.text) {
                all.push(reference);
            }
        }
        if !found.depends_on_platform {
            break;
        }
    }
    let is_refused = all.iter().any(ImageReference::has_refused_variable);
    Ok((all, is_refused))
}

/// The references of one image, sorted into siblings and others.
#[derive(Default)]
struct Collected {
    references: Vec<FoundReference>,
    bases: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Collected {
    fn add(
        &mut self,
        reference: &ImageReference,
        place: FilePlace,
        contexts: &[ContextEntry],
        options: &ProjectOptions,
    ) {
        let text = reference.text.text();
        if contexts.iter().any(|entry| entry.name == *text) {
            // The metadata have the reference.
            return;
        }
        let prefixes = options.registries.iter().map(String::as_str).chain([REGISTRY_PLACEHOLDER]);
        let prefix =
            prefixes.filter(|prefix| text.starts_with(*prefix)).find(|prefix| text[prefix.len()..].starts_with('/'));
        let Some(prefix) = prefix else {
            match reference.unset.iter().next() {
                Some(variable) => self.problems.push(Problem::Undeclared { place, variable: variable.clone() }),
                None if text.starts_with('/') => {
                    let variable = options.registry_argument.clone();
                    self.problems.push(Problem::Undeclared { place, variable });
                }
                None => drop(self.bases.insert(text.into_owned())),
            }
            return;
        };
        let start = prefix.len() + 1;
        let bytes = reference.text.bytes();
        let end = |from: usize, byte: u8| {
            bytes[from..].iter().position(|other| *other == byte).map_or(bytes.len(), |at| from + at)
        };
        let digest_at = end(start, b'@');
        let tag_at = end(start, b':').min(digest_at);
        let part = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
        let tag_range = (tag_at < digest_at).then(|| tag_at + 1..digest_at);
        let pin = tag_range.clone().and_then(|range| {
            let (version, length) = Version::prefix_of(&bytes[range.clone()])?;
            Some(Pin { version, span: reference.text.span(range.start..range.start + length) })
        });
        self.references.push(FoundReference {
            name: part(start..tag_at),
            dependency: Dependency {
                image: usize::MAX,
                via: reference.via,
                place,
                context: None,
                tag: tag_range.map(part),
                pin,
                digest: (digest_at < bytes.len()).then(|| part(digest_at + 1..bytes.len())),
            },
        });
    }

    fn add_context(&mut self, entry: &ContextEntry, place: FilePlace) {
        let (name, tag) = match entry.image.value.split_once(':') {
            Some((name, tag)) => (name, Some(tag.to_owned())),
            None => (entry.image.value.as_str(), None),
        };
        // The text of the value, if no character of it is escaped, stands between two quotes.
        let is_plain = entry.image.span.end - entry.image.span.start == entry.image.value.len() + 2;
        let pin = tag.as_deref().and_then(|tag| Version::prefix_of(tag.as_bytes())).map(|(version, length)| {
            let start = entry.image.span.start + 1 + name.len() + 1;
            Pin { version, span: is_plain.then(|| (start..start + length).into()) }
        });
        let dependency = Dependency {
            image: usize::MAX,
            via: Via::Context,
            place,
            context: Some(entry.name.clone()),
            tag,
            pin,
            digest: None,
        };
        self.references.push(FoundReference { name: name.to_owned(), dependency });
    }
}

/// Resolves names and sorts the images.
fn connect(root: &Path, mut found: Vec<Found>, existing: &BTreeSet<String>, problems: &mut Vec<Problem>) -> Project {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (position, Found { image, .. }) in found.iter().enumerate() {
        if let Some(first) = names.insert(image.name.clone(), position) {
            let [first, second] = [first, position].map(|position| found[position].image.directory.clone());
            problems.push(Problem::DuplicateName { name: image.name.clone(), first, second });
        }
    }
    for Found { image, references } in &mut found {
        for FoundReference { name, mut dependency } in references.drain(..) {
            match names.get(&name) {
                Some(position) => {
                    dependency.image = *position;
                    image.dependencies.push(dependency);
                }
                // The directory exists and has problems, which are reported.
                None if existing.contains(&name) => {}
                None => problems.push(Problem::UnknownSibling { place: dependency.place, name }),
            }
        }
    }
    let images = found.into_iter().map(|found| found.image).collect();
    let (images, cycles) = order::sort(images);
    problems.extend(cycles);
    let positions = images.iter().enumerate().map(|(position, image)| (image.name.clone(), position)).collect();
    Project { root: root.to_owned(), images, positions }
}
