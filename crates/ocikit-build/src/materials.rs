//! The images that BuildKit used, from its provenance.

use ocikit_spec::Digest;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attestation::Statement;

/// An image that a build used: a base image, the source of a `COPY --from`, or a frontend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsedImage {
    /// Its name: `alpine:3.22`, without the registry for Docker Hub.
    pub name: String,
    /// The digest that it had.
    pub digest: Digest,
}

/// Returns the images of registries in the provenance of a build, each once; `None` if there is no provenance.
pub fn used_images(statements: &[Statement]) -> Option<Vec<UsedImage>> {
    let provenance: Vec<_> =
        statements.iter().filter(|found| found.predicate_type.starts_with("https://slsa.dev/provenance/")).collect();
    if provenance.is_empty() {
        return None;
    }
    let mut images: Vec<_> = provenance
        .into_iter()
        // Version 1 and version 0.2 of SLSA.
        .flat_map(|found| [&found.predicate["buildDefinition"]["resolvedDependencies"], &found.predicate["materials"]])
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(image)
        .collect();
    images.sort_unstable();
    images.dedup();
    Some(images)
}

/// Reads a material: `{"uri":"pkg:docker/alpine@3.22?platform=linux%2Famd64","digest":{"sha256":"…"}}`.
fn image(material: &Value) -> Option<UsedImage> {
    let uri = material["uri"].as_str()?;
    let rest = uri.strip_prefix("pkg:docker/")?;
    let digest = format!("sha256:{}", material["digest"]["sha256"].as_str()?).parse::<Digest>().ok()?;
    let path = rest.split('?').next().unwrap_or(rest);
    let (name, version) = path.rsplit_once('@').map_or((path, None), |(name, version)| (name, Some(version)));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let name = match version {
        Some(version) => format!("{}:{}", decoded(name), decoded(version)),
        None => decoded(name),
    };
    Some(UsedImage { name, digest })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_are_read_from_both_versions() {
        let digest = Digest::sha256_of(b"");
        let material = |uri: &str| json!({"uri": uri, "digest": {"sha256": digest.hex()}});
        let statement = |predicate: Value| Statement {
            platform: None,
            predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
            predicate,
        };
        let found = used_images(&[
            statement(json!({"buildDefinition": {"resolvedDependencies": [
                material("pkg:docker/alpine@3.22?platform=linux%2Famd64"),
                material("pkg:docker/localhost%3A5000/a/b@1?platform=linux%2Famd64"),
                material("https://example.com/file"),
                material("pkg:oci/layout@latest"),
            ]}})),
            statement(json!({"materials": [material("pkg:docker/alpine@3.22?platform=linux%2Farm64"), {"uri": 1}]})),
        ])
        .unwrap();
        assert!(used_images(&[]).is_none());
        let names: Vec<_> = found.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["alpine:3.22", "localhost:5000/a/b:1"]);
        assert_eq!(found[0].digest, digest);
    }
}
