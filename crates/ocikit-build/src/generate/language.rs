use super::project::Project;
use super::recipe::{Problem, Recipe};

/// A runtime: how a project is recognized, and how its Dockerfile looks.
#[derive(Debug)]
pub(super) struct Language {
    /// The name on the command line, before the version: `nodejs`.
    pub(super) name: &'static str,
    /// The files that show that a project uses it.
    pub(super) files: &'static [&'static str],
    /// How versions are written.
    pub(super) versions: Versions,
    /// The version if neither the command line nor the project states one.
    pub(super) default_version: &'static str,
    /// Returns the version that the project states.
    pub(super) stated_version: fn(&Project<'_>) -> Option<String>,
    /// Returns the base image of a version.
    pub(super) base: fn(&str) -> String,
    /// What is not copied into the image if the project has no `.dockerignore`.
    pub(super) ignored: &'static [&'static str],
    /// Writes the instructions, starting from a base image.
    pub(super) write: fn(&Project<'_>, Recipe, &str) -> Result<Recipe, Problem>,
}

/// How the versions of a runtime are written in the tags of its base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// One number: `20`.
    Major,
    /// Two numbers, the first of which has one digit: `3.12`, on the command line also `312`.
    Minor,
}

impl Versions {
    /// Returns the version in the tag of a base image: `3.12` for `312` and for `3.12.1`. Returns `None` if it is no version.
    pub(super) fn tag(self, text: &str) -> Option<String> {
        let mut numbers = text.split('.');
        let is_number =
            |number: &str| (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        let first = numbers.next().filter(|number| is_number(number))?;
        let second = numbers.next();
        match (self, second) {
            (Versions::Major, _) => Some(first.to_owned()),
            (Versions::Minor, Some(second)) => is_number(second).then(|| format!("{first}.{second}")),
            (Versions::Minor, None) if first.len() == 1 => Some(first.to_owned()),
            (Versions::Minor, None) => Some(format!("{}.{}", &first[..1], &first[1..])),
        }
    }
}

/// Returns the first version number in a text: `20.11.1` in `v20.11.1`.
pub(super) fn first_version(text: &str) -> Option<String> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    let version = &text[start..];
    let end = version.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(version.len());
    Some(version[..end].trim_end_matches('.').to_owned())
}
