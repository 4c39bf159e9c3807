use super::error::TagError;
use super::set::{Because, Builder, PlannedTag, SkipReason, tag};
use super::version::{Line, Release};

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
            builder.skip(ocikit::Tag::latest(), "latest", SkipReason::PreRelease);
            Ok(())
        }
    }
}
