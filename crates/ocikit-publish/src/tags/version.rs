use super::error::TagError;
use super::set::{Because, Builder, PlannedTag, tag};

/// A release: a version without a pre-release part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The major version.
    pub major: u64,
    /// The minor version.
    pub minor: u64,
    /// The patch version.
    pub patch: u64,
}

impl Release {
    /// Parses `1.2.3` or `v1.2.3`.
    pub fn of_tag(text: &str) -> Option<Release> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts = text.split('.').map(number);
        let release = Release { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(release)
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The versions among which a moving tag points to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// Those of a major version: the tag `1`.
    Major(u64),
    /// Those of a minor version: the tag `1.2`.
    Minor(u64, u64),
    /// All: the tag `latest`.
    All,
}

impl Line {
    /// Returns whether a version is in the line.
    pub fn has(self, release: Release) -> bool {
        match self {
            Line::Major(major) => release.major == major,
            Line::Minor(major, minor) => (release.major, release.minor) == (major, minor),
            Line::All => true,
        }
    }
}

/// Adds a version, and `latest` if it is a release.
pub(super) fn add(version: &str, builder: &mut Builder) -> Result<(), TagError> {
    let text = version.strip_prefix('v').unwrap_or(version);
    let wrong = |problem: String| TagError::Version { version: version.to_owned(), problem };
    let parsed = semver::Version::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !parsed.build.is_empty() {
        return Err(wrong("a tag cannot have build metadata".to_owned()));
    }
    let planned = |value: &str, name: &str, because, follows| {
        Ok(PlannedTag { tag: tag(name, value)?, name: name.to_owned(), validation: None, because, follows })
    };
    builder.add(planned(text, "version", Because::Version, None)?)?;
    match Release::of_tag(text) {
        Some(release) => builder.add(planned("latest", "latest", Because::LatestVersion, Some((Line::All, release)))?),
        None => {
            builder.skip(ocikit::Tag::latest(), "latest", super::set::SkipReason::PreRelease);
            Ok(())
        }
    }
}
