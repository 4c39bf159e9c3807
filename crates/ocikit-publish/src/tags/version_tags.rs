use super::error::TagError;
use super::set::{Because, Builder, PlannedTag, SkipReason};
use super::version::{Line, Release};

/// Adds a version, and `latest` if it is a release.
pub(super) fn add(version: &str, builder: &mut Builder) -> Result<(), TagError> {
    let text = version.strip_prefix('v').unwrap_or(version);
    let wrong = |problem: String| TagError::Version { version: version.to_owned(), problem };
    let parsed = semver::Version::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !parsed.build.is_empty() {
        return Err(wrong("a tag cannot have build metadata".to_owned()));
    }
    builder.add(PlannedTag::of("version", text, Because::Version, None)?)?;
    match Release::of_tag(text) {
        Some(release) => {
            let follows = Some((Line::All, release));
            builder.add(PlannedTag::of("latest", "latest", Because::LatestVersion, follows)?)
        }
        None => {
            builder.skip(ocikit::Tag::latest(), "latest", SkipReason::PreRelease);
            Ok(())
        }
    }
}
