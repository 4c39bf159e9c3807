//! Dockerfiles for projects that have none.
//!
//! Each runtime is one file with a [`Language`], and one line in [`LANGUAGES`].

mod go;
mod java;
mod language;
mod node;
mod php;
mod project;
mod python;
mod recipe;
mod ruby;
mod rust;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::generate::language::Language;
use crate::generate::project::Project;
use crate::generate::recipe::Recipe;

/// The runtimes, in the order in which messages list them.
const LANGUAGES: [&Language; 7] =
    [&node::NODE, &python::PYTHON, &go::GO, &ruby::RUBY, &rust::RUST, &java::JAVA, &php::PHP];

/// A runtime of a project, with an optional version: `nodejs20`, `python312`, `go`.
///
/// ```
/// use ocikit_build::Runtime;
///
/// assert_eq!("python3.12".parse::<Runtime>()?, "python312".parse()?);
/// assert!("cobol".parse::<Runtime>().is_err());
/// # Ok::<(), ocikit_build::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Runtime {
    language: &'static Language,
    version: Option<String>,
}

/// Options of [`generate`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// The runtime; found by the files of the project if `None`.
    pub runtime: Option<Runtime>,
    /// The image to start from instead of the usual one, for example with a digest.
    pub base: Option<String>,
}

/// A generated Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generated {
    /// The runtime with its version: `nodejs20`.
    pub runtime: String,
    /// The text of the Dockerfile.
    pub dockerfile: String,
    /// The text of its ignore file; empty if the project has a `.dockerignore`.
    pub ignore: String,
    /// What a user should know, such as a missing lock file.
    pub notes: Vec<String>,
}

/// Generates a Dockerfile for the project in a directory. Reads the files that describe the project, and no symlinks; writes
/// nothing.
///
/// # Errors
///
/// [`Error::Generate`] if no runtime or several ones are found, or if the project lacks a file without which the image cannot be
/// built or started.
pub fn generate(directory: &Path, options: &GenerateOptions) -> Result<Generated> {
    let project = Project::at(directory);
    let runtime = match &options.runtime {
        Some(runtime) => runtime.clone(),
        None => Runtime::of(&project)?,
    };
    let Runtime { language, version } = &runtime;
    let stated = || (language.stated_version)(&project).and_then(|version| language.versions.tag(&version));
    let version = version.clone().or_else(stated).unwrap_or_else(|| language.default_version.to_owned());
    let name = format!("{}{}", language.name, version.replace('.', ""));
    let refuse = |reason: String| Error::Generate { runtime: name.clone(), reason };
    let base = options.base.clone().unwrap_or_else(|| (language.base)(&version));
    if base.is_empty() || base.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '$') {
        return Err(refuse(format!("`{base}` is not the name of an image")));
    }
    let recipe = (language.write)(&project, Recipe::default(), &base).map_err(|problem| refuse(problem.0))?;
    let ignore = match project.has(".dockerignore") {
        true => String::new(),
        false => [".git"].iter().chain(language.ignored).map(|line| format!("{line}\n")).collect(),
    };
    let (dockerfile, notes) = recipe.finish();
    Ok(Generated { runtime: name, dockerfile, ignore, notes })
}

impl Runtime {
    /// Returns the names of all runtimes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LANGUAGES.into_iter().map(|language| language.name)
    }

    /// Finds the runtime of a project by its files.
    fn of(project: &Project<'_>) -> Result<Runtime> {
        let refuse = |reason: String| Error::Generate { runtime: "auto".to_owned(), reason };
        let mut found = LANGUAGES.into_iter().filter(|language| language.files.iter().any(|name| project.has(name)));
        match (found.next(), found.next()) {
            (Some(language), None) => Ok(Runtime { language, version: None }),
            (None, _) => {
                let files: Vec<_> = LANGUAGES.iter().flat_map(|language| language.files).copied().collect();
                Err(refuse(format!("the directory has none of {}", files.join(", "))))
            }
            (Some(one), Some(other)) => {
                Err(refuse(format!("the project may be {} or {}; choose one", one.name, other.name)))
            }
        }
    }
}

impl PartialEq for Runtime {
    fn eq(&self, other: &Runtime) -> bool {
        (self.language.name, &self.version) == (other.language.name, &other.version)
    }
}

impl Eq for Runtime {}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.language.name, self.version.as_deref().unwrap_or_default().replace('.', ""))
    }
}

impl FromStr for Runtime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Runtime> {
        let refuse = Error::option("runtime", text);
        let name = text.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let unknown = || refuse(&format!("it is not one of {}", Runtime::names().collect::<Vec<_>>().join(", ")));
        let language = LANGUAGES.into_iter().find(|language| language.name == name).ok_or_else(unknown)?;
        let version = match &text[name.len()..] {
            "" => None,
            version => Some(language.versions.tag(version).ok_or_else(|| refuse("its version is not a number"))?),
        };
        Ok(Runtime { language, version })
    }
}

#[cfg(test)]
mod tests;
