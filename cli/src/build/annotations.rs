use std::str::FromStr;

use clap::Args;
use jiff::Timestamp;
use ocikit::spec::annotations::{CREATED, REVISION, SOURCE};
use ocikit::{AnnotateOn, AnnotateOptions, Annotations, Platform, Root};
use ocikit_build::{Node, Solve};

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Failure, Result};

/// The annotations of a built image.
#[derive(Debug, Args)]
pub(crate) struct AnnotationArguments {
    /// Annotate the image; repeatable
    ///
    /// SCOPE is manifest (the default), index, manifest-descriptor or index-descriptor, or several separated by commas; a
    /// platform limits it: manifest[linux/amd64].
    #[arg(long, value_name = "[SCOPE:]KEY=VALUE", help_heading = "Outputs")]
    annotation: Vec<Annotation>,
}

/// An annotation in the notation of docker.
#[derive(Debug, Clone)]
struct Annotation {
    scopes: Vec<(Scope, Option<Platform>)>,
    key: String,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Manifest,
    Index,
    ManifestDescriptor,
    IndexDescriptor,
}

impl FromStr for Annotation {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Annotation, String> {
        let (name, value) = text.split_once('=').ok_or("it is not of the form [SCOPE:]KEY=VALUE")?;
        // A key may contain a colon; it is a scope only if it is one of the four.
        let (scopes, key) = match name.split_once(':').map(|(scopes, key)| (scopes_of(scopes), key)) {
            Some((Some(scopes), key)) => (scopes?, key),
            _ => (vec![(Scope::Manifest, None)], name),
        };
        match key.is_empty() {
            true => Err("the key is empty".to_owned()),
            false => Ok(Annotation { scopes, key: key.to_owned(), value: value.to_owned() }),
        }
    }
}

type Scopes = Vec<(Scope, Option<Platform>)>;

/// Reads scopes. Returns `None` for a text that names none.
fn scopes_of(text: &str) -> Option<std::result::Result<Scopes, String>> {
    let mut scopes = Vec::new();
    for part in text.split(',') {
        let (name, platform) = match part.split_once('[') {
            Some((name, platform)) => (name, Some(platform.strip_suffix(']')?)),
            None => (part, None),
        };
        let scope = match name {
            "manifest" => Scope::Manifest,
            "index" => Scope::Index,
            "manifest-descriptor" => Scope::ManifestDescriptor,
            "index-descriptor" => Scope::IndexDescriptor,
            _ => return None,
        };
        match platform.map(str::parse).transpose() {
            Ok(platform) => scopes.push((scope, platform)),
            Err(error) => return Some(Err(format!("{error}"))),
        }
    }
    Some(Ok(scopes))
}

impl AnnotationArguments {
    /// Checks before the build that the image has what is annotated, as far as the options tell.
    pub(crate) fn check(&self, solve: &Solve, nodes: &[Node]) -> Result {
        let scopes = || {
            self.annotation.iter().flat_map(|annotation| annotation.scopes.iter().map(move |scope| (annotation, scope)))
        };
        let is_of_index = |scope: &Scope| match scope {
            Scope::Index | Scope::ManifestDescriptor => true,
            Scope::Manifest | Scope::IndexDescriptor => false,
        };
        if let Some((annotation, _)) = scopes().find(|(_, (scope, _))| is_of_index(scope))
            && is_single_image(solve, nodes)
        {
            return Err(Failure::usage(format_args!(
                "cannot annotate the index with `{}`: the build makes one image and no index",
                annotation.key
            ))
            .hint("leave out the scope to annotate the manifest, or build for several platforms"));
        }
        let is_built = |wanted: &Platform| solve.platforms.iter().any(|platform| wanted.accepts(platform));
        let missing = scopes().find_map(|(_, (_, platform))| platform.as_ref().filter(|wanted| !is_built(wanted)));
        match missing.filter(|_| !solve.platforms.is_empty()) {
            Some(platform) => Err(Failure::usage(format_args!(
                "cannot annotate the image for {platform}: --platform does not have it"
            ))),
            None => Ok(()),
        }
    }

    /// Annotates the manifests and the index, if there is one, with the git variables and the time, and then as the arguments
    /// say. The creation time is on the descriptor in `index.json` too. Statements of BuildKit follow the new digests.
    pub(crate) async fn apply(&self, context: &Context, root: &Root) -> Result<Root> {
        let set = git_annotations(context)?;
        let created = set.iter().find(|(key, _)| key == CREATED).map(|(_, value)| value.clone());
        let options = AnnotateOptions::default().set(set).on(AnnotateOn::ManifestsAndIndex);
        let mut annotated = ocikit::image::annotate(root, &options).await?;
        // BuildKit's own annotations of the descriptor name the image, which is named when it is published.
        let mut own = Annotations::new();
        own.insert(CREATED, created.unwrap_or_default());
        for Annotation { scopes, key, value } in &self.annotation {
            for (scope, platform) in scopes {
                let on = match scope {
                    Scope::Manifest => AnnotateOn::Manifests,
                    Scope::Index => AnnotateOn::Index,
                    Scope::ManifestDescriptor => AnnotateOn::Descriptors,
                    Scope::IndexDescriptor => {
                        own.insert(key, value);
                        continue;
                    }
                };
                let options = AnnotateOptions::default()
                    .set(vec![(key.clone(), value.clone())])
                    .on(on)
                    .platforms(platform.iter().cloned().collect());
                annotated = ocikit::image::annotate(&annotated, &options).await?;
            }
        }
        let annotated = ocikit_build::follow(root, &annotated).await?;
        let mut descriptor = annotated.descriptor().clone();
        descriptor.annotations = own;
        Ok(Root::at(annotated.source().clone(), descriptor).await?)
    }
}

/// Returns whether a build certainly makes a single image: for one platform, and without attestations, for which BuildKit makes an
/// index.
fn is_single_image(solve: &Solve, nodes: &[Node]) -> bool {
    // These build arguments select another frontend, or an index for a single platform.
    const CHANGES_RESULT: [&str; 2] = ["BUILDKIT_SYNTAX", "BUILDKIT_MULTI_PLATFORM"];
    let platforms = match (&solve.platforms[..], nodes) {
        ([], [node]) => node.platforms.len(),
        ([], nodes) => nodes.len(),
        (platforms, _) => platforms.len(),
    };
    platforms <= 1
        && solve.attestations.is_empty()
        && solve.build_arguments.iter().all(|(name, _)| !CHANGES_RESULT.contains(&name.as_str()))
}

/// Returns the annotations from the git variables and the time. An unset variable leaves its annotation out.
fn git_annotations(context: &Context) -> Result<Vec<(String, String)>> {
    let created = match context.epoch {
        Some(epoch) => {
            let seconds = i64::try_from(epoch).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            seconds.ok_or_else(|| Failure::usage("cannot use SOURCE_DATE_EPOCH: the time is out of range"))?
        }
        None => Timestamp::now(),
    };
    let known = [
        (SOURCE, variable("GIT_REPOSITORY_URL")),
        (REVISION, variable("GIT_SHA")),
        (CREATED, Some(created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
    ];
    Ok(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_have_the_scopes_of_docker() {
        let parse = |text: &str| text.parse::<Annotation>().unwrap();
        let plain = parse("a:b=c=d");
        assert_eq!(
            (plain.key.as_str(), plain.value.as_str(), &plain.scopes[..]),
            ("a:b", "c=d", &[(Scope::Manifest, None)][..])
        );
        let scoped = parse("index,manifest[linux/arm64]:key=value");
        assert_eq!(scoped.scopes[0], (Scope::Index, None));
        assert_eq!(scoped.scopes[1], (Scope::Manifest, Some("linux/arm64".parse().unwrap())));
        assert_eq!(parse("index-descriptor:k=v").scopes, [(Scope::IndexDescriptor, None)]);
        assert_eq!(parse("manifest-descriptor:k=v").scopes, [(Scope::ManifestDescriptor, None)]);
        for text in ["a", "index:=x", "=x", "manifest[?]:a=b"] {
            assert!(text.parse::<Annotation>().is_err(), "{text}");
        }
    }
}
