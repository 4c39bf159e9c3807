use std::fmt;

use ocikit_spec::{Manifest, MediaType};

use crate::root::Root;

/// The kind of a manifest or index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArtifactKind {
    /// An OCI image for one platform.
    Image,
    /// An OCI index.
    Index,
    /// An artifact of a type that is not listed here.
    Artifact,
    /// An attestation: a BuildKit attestation manifest, or an in-toto statement in an envelope.
    Attestation,
    /// A signature of cosign in its older format.
    CosignSignature,
    /// A signature of the Notary Project (notation).
    NotationSignature,
    /// A Sigstore bundle: a signature or attestation of cosign in its newer format.
    SigstoreBundle,
    /// A Helm chart.
    HelmChart,
    /// A WebAssembly module or component.
    Wasm,
    /// A Docker image for one platform.
    DockerImage,
    /// A Docker manifest list.
    DockerIndex,
    /// A Docker schema 1 image.
    DockerSchema1,
    /// Any other document.
    Unknown,
}

impl ArtifactKind {
    /// Returns whether the contents of a referrer of this kind name the digest of its subject, so that a copy with another
    /// subject is worthless. True if the contents are not known.
    pub fn may_name_its_subject(self) -> bool {
        match self {
            ArtifactKind::Attestation
            | ArtifactKind::CosignSignature
            | ArtifactKind::NotationSignature
            | ArtifactKind::SigstoreBundle
            | ArtifactKind::DockerSchema1
            | ArtifactKind::Unknown => true,
            ArtifactKind::Image
            | ArtifactKind::Index
            | ArtifactKind::Artifact
            | ArtifactKind::HelmChart
            | ArtifactKind::Wasm
            | ArtifactKind::DockerImage
            | ArtifactKind::DockerIndex => false,
        }
    }

    /// Returns the kind of a root, by its media types and, for BuildKit attestation manifests, by its descriptor.
    pub fn of(root: &Root) -> ArtifactKind {
        let media_type = &root.descriptor().media_type;
        match root {
            Root::Index(_) if *media_type == MediaType::DOCKER_MANIFEST_LIST => ArtifactKind::DockerIndex,
            Root::Index(_) => ArtifactKind::Index,
            Root::Image(_) if root.descriptor().is_attestation() => ArtifactKind::Attestation,
            Root::Image(image) => {
                by_layers(&image.manifest).unwrap_or(match *media_type == MediaType::DOCKER_MANIFEST {
                    true => ArtifactKind::DockerImage,
                    false => ArtifactKind::Image,
                })
            }
            Root::Other(artifact) => match &artifact.manifest {
                Some(manifest) => by_type(manifest).or_else(|| by_layers(manifest)).unwrap_or(ArtifactKind::Artifact),
                None if media_type.is_schema1() => ArtifactKind::DockerSchema1,
                None => ArtifactKind::Unknown,
            },
        }
    }

    /// Returns the name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            ArtifactKind::Image => "image",
            ArtifactKind::Index => "index",
            ArtifactKind::Artifact => "artifact",
            ArtifactKind::Attestation => "attestation",
            ArtifactKind::CosignSignature => "cosign-signature",
            ArtifactKind::NotationSignature => "notation-signature",
            ArtifactKind::SigstoreBundle => "sigstore-bundle",
            ArtifactKind::HelmChart => "helm-chart",
            ArtifactKind::Wasm => "wasm",
            ArtifactKind::DockerImage => "docker-image",
            ArtifactKind::DockerIndex => "docker-index",
            ArtifactKind::DockerSchema1 => "docker-schema1",
            ArtifactKind::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn by_type(manifest: &Manifest) -> Option<ArtifactKind> {
    let text = manifest.artifact_type()?.as_str();
    Some(match text {
        "application/vnd.cncf.notary.signature" => ArtifactKind::NotationSignature,
        "application/vnd.cncf.helm.config.v1+json" => ArtifactKind::HelmChart,
        "application/vnd.in-toto+json" => ArtifactKind::Attestation,
        _ if text.starts_with("application/vnd.dev.sigstore.bundle") => ArtifactKind::SigstoreBundle,
        _ if text.starts_with("application/vnd.wasm.") || text == "application/wasm" => ArtifactKind::Wasm,
        _ if text.starts_with("application/vnd.dev.cosign.artifact.sig.") => ArtifactKind::CosignSignature,
        _ => return None,
    })
}

/// Returns the kind that all layers have in common, for artifacts that use an image config.
fn by_layers(manifest: &Manifest) -> Option<ArtifactKind> {
    let mut kinds = manifest.layers().iter().map(|layer| match layer.media_type.as_str() {
        "application/vnd.in-toto+json" | "application/vnd.dsse.envelope.v1+json" => Some(ArtifactKind::Attestation),
        "application/vnd.dev.cosign.simplesigning.v1+json" => Some(ArtifactKind::CosignSignature),
        "application/wasm" | "application/vnd.wasm.content.layer.v1+wasm" => Some(ArtifactKind::Wasm),
        _ => None,
    });
    let first = kinds.next()??;
    kinds.all(|kind| kind == Some(first)).then_some(first)
}
