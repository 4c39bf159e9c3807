//! The metadata file of a build, with the keys of `docker buildx`.

use ocikit::{Digest, Root};
use serde_json::{Map, Value, json};

use crate::build::LazyOutput;
use crate::failure::{Failure, Result};

/// Returns the content of the metadata file.
pub(crate) async fn of(root: &Root, names: &[String], lazy: &[LazyOutput]) -> Result<Vec<u8>> {
    let mut metadata = Map::new();
    for statement in ocikit_build::statements(root).await? {
        if statement.predicate_type.starts_with("https://slsa.dev/provenance/") {
            let platform = statement.platform.filter(|_| has_several_images(root));
            let platform = platform.map(|platform| format!("/{platform}")).unwrap_or_default();
            metadata.insert(format!("buildx.build.provenance{platform}"), statement.predicate);
        }
    }
    if let Some(config) = config(root) {
        metadata.insert("containerimage.config.digest".to_owned(), json!(config));
    }
    metadata.insert("containerimage.descriptor".to_owned(), json!(root.descriptor()));
    metadata.insert("containerimage.digest".to_owned(), json!(root.digest()));
    if !names.is_empty() {
        metadata.insert("image.name".to_owned(), json!(names.join(",")));
    }
    if !lazy.is_empty() {
        metadata.insert("ocikit.lazy".to_owned(), json!(lazy));
    }
    let failed = |error: serde_json::Error| Failure::usage(format_args!("cannot write the metadata: {error}"));
    let mut text = serde_json::to_vec_pretty(&Value::Object(metadata)).map_err(failed)?;
    text.push(b'\n');
    Ok(text)
}

/// Returns the digest of the config of an image for one platform.
pub(crate) fn config(root: &Root) -> Option<Digest> {
    match root {
        Root::Image(image) => image.manifest().config().map(|config| config.digest),
        Root::Index(_) | Root::Other(_) => None,
    }
}

fn has_several_images(root: &Root) -> bool {
    match root {
        Root::Index(index) => index.manifests().iter().filter(|entry| !entry.is_attestation()).count() > 1,
        Root::Image(_) | Root::Other(_) => false,
    }
}
