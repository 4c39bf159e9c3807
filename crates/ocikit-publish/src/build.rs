//! A build as the input of a publication: one solve, whose result is held in a temporary directory until everything is
//! published.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use ocikit::image::{ScratchDirectory, ScratchKind};
use ocikit::{Location, Root, Session};
use ocikit_build::{Builder, BuilderOptions, Observer, Results, Solve};

use crate::git::GitState;
use crate::tags::{SkipReason, TagSet};

/// The build argument with the commit.
const COMMIT_ARGUMENT: &str = "BUILD_COMMIT_SHA";
/// What the names of tags follow in build arguments.
const TAG_PREFIX: &str = "TAG_";

/// Returns the build arguments that a job adds: the commit as `BUILD_COMMIT_SHA`, and with `export_tags` each tag as
/// `TAG_NAME`, also one that is left out because another name has the same tag. Arguments in `given` are not replaced.
///
/// ```
/// use jiff::Timestamp;
/// use ocikit_publish::build_arguments;
/// use ocikit_publish::git::GitState;
/// use ocikit_publish::tags::{AllowedEnvironment, TagRequest, compute};
///
/// let mut git = GitState::default();
/// git.base_sha = Some("da39a3ee5e6b4b0d".to_owned());
/// let mut request = TagRequest::default();
/// request.named = vec!["v=v{{ .ShortSHA }}".parse()?];
/// let tags = compute(&request, &git, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH)?;
/// let arguments = build_arguments(&tags, &git, true, &[]);
/// assert_eq!(arguments[1], ("TAG_v".to_owned(), "vda39a3ee".to_owned()));
/// # Ok::<(), ocikit_publish::tags::TagError>(())
/// ```
pub fn build_arguments(
    tags: &TagSet,
    git: &GitState,
    export_tags: bool,
    given: &[(String, String)],
) -> Vec<(String, String)> {
    let commit = git.commit().map(|commit| (COMMIT_ARGUMENT.to_owned(), commit.to_owned()));
    let used = tags.tags.iter().map(|planned| (&planned.name, &planned.tag));
    let same = tags.skipped.iter().filter(|skipped| matches!(skipped.reason, SkipReason::Duplicate(_)));
    let named = used.chain(same.map(|skipped| (&skipped.name, &skipped.tag)));
    let named = named.filter(|_| export_tags);
    let named = named.map(|(name, tag)| (format!("{TAG_PREFIX}{}", argument(name)), tag.to_string()));
    let mut arguments: Vec<(String, String)> = Vec::new();
    for (name, value) in commit.into_iter().chain(named) {
        if !given.iter().chain(&arguments).any(|(known, _)| *known == name) {
            arguments.push((name, value));
        }
    }
    arguments
}

/// Returns the name of a tag as a part of the name of a build argument. The tags of the fixed scheme are their own names and
/// may have dots.
fn argument(name: &str) -> String {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    name.chars().map(|letter| if is_allowed(letter) { letter } else { '_' }).collect()
}

/// An image that was built, in a temporary directory that is removed when this is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuiltImage {
    /// The image or index.
    pub root: Root,
    _directory: ScratchDirectory,
}

/// Why there is nothing to publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The build failed.
    #[error(transparent)]
    Build(#[from] ocikit_build::Error),
    /// The result could not be stored.
    #[error(transparent)]
    Store(#[from] ocikit::Error),
    /// There is no place for the result.
    #[error("cannot create a temporary directory for the image: {0}")]
    Directory(#[source] io::Error),
    /// The build had no image as its result.
    #[error("the build has no image as its result")]
    NoImage,
}

/// Builds an image with one solve, into a directory below the one for temporary files of the session. Nothing is visible
/// anywhere before [`publish`](crate::publish) has uploaded it.
///
/// A builder that was started here has ended when this returns.
///
/// # Errors
///
/// [`BuildError`].
pub async fn build(
    session: &Session,
    solve: &Solve,
    options: &BuilderOptions,
    observer: Option<Arc<dyn Observer>>,
) -> Result<BuiltImage, BuildError> {
    let parent = session.options().scratch.as_deref().unwrap_or(Path::new("."));
    let directory = ScratchDirectory::create(parent, ScratchKind::Publish).map_err(BuildError::Directory)?;
    let place = Location::layout(directory.path().join("image"));
    let mut targets = session.targets(std::slice::from_ref(&place), None).await;
    targets.check()?;
    let mut results = Results::default();
    results.image = Some(targets.sink());
    let builder = Builder::find(options).await?;
    let built = ocikit_build::build(solve, builder.nodes(), observer, &results).await;
    builder.stop().await;
    let root = built?.root.ok_or(BuildError::NoImage)?;
    targets.publish(&root, &[]).boxed().await.into_iter().try_for_each(|copied| copied.map(|_| ()))?;
    let root = session.open(&place).await?;
    Ok(BuiltImage { root, _directory: directory })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::tags::{AllowedEnvironment, FixedScheme, TagRequest, compute};

    #[test]
    fn kym_20_builds_get_the_commit_and_every_tag() {
        let (branch, base_sha) = (Some("main".to_owned()), Some("da39a3ee5e6b4b0d".to_owned()));
        let git = GitState { branch, base_sha, ..GitState::default() };
        let named = ["latest", "v=v{{ .ShortSHA }}", "same=latest"].map(|tag| tag.parse().unwrap()).to_vec();
        let request = TagRequest { named, ..TagRequest::default() };
        let tags = compute(&request, &git, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH).unwrap();
        let arguments = |export, given: &[(&str, &str)]| {
            let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let found = build_arguments(&tags, &git, export, &given);
            found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let all = ["BUILD_COMMIT_SHA=da39a3ee5e6b4b0d", "TAG_latest=latest", "TAG_v=vda39a3ee", "TAG_same=latest"];
        assert_eq!(arguments(true, &[]), all);
        assert_eq!(arguments(false, &[]), all[..1]);
        assert_eq!(arguments(true, &[("BUILD_COMMIT_SHA", "x"), ("TAG_v", "y")]), [all[1], all[3]]);
        let fixed = TagRequest { fixed: Some(FixedScheme::default()), ..TagRequest::default() };
        let tags = compute(&fixed, &git, &AllowedEnvironment::default(), Timestamp::UNIX_EPOCH).unwrap();
        let names: Vec<_> = build_arguments(&tags, &git, true, &[]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["BUILD_COMMIT_SHA", "TAG_main", "TAG_main-da39a3e"]);
        assert_eq!(argument("1.2.3"), "1_2_3");
    }
}
