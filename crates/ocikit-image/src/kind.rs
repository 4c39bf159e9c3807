use std::fmt;

use ocikit_spec::{Manifest, MediaType};

use crate::root::Root;

/// What something is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An OCI image for one platform.
    Image,
    /// An OCI index.
    Index,
    /// An artifact of a type that is not named here.
    Artifact,
    /// An attestation: BuildKit's, or an in-toto statement in an envelope.
    Attestation,
    /// A signature by cosign in its older form.
    CosignSignature,
    /// A signature by notation.
    NotationSignature,
    /// A sigstore bundle: a signature or attestation by cosign in its newer form.
    SigstoreBundle,
    /// A Helm chart.
    HelmChart,
    /// A WebAssembly module or component.
    Wasm,
    /// A docker image for one platform.
    DockerImage,
    /// A docker manifest list.
    DockerIndex,
    /// A docker image of the first schema.
    DockerSchema1,
    /// Something else.
    Unknown,
}

impl Kind {
    /// What a root is, by its media types and, for an attestation of BuildKit, by the entry that led there.
    pub fn of(root: &Root) -> Kind {
        let media_type = &root.descriptor().media_type;
        match root {
            Root::Index(_) if *media_type == MediaType::DOCKER_MANIFEST_LIST => Kind::DockerIndex,
            Root::Index(_) => Kind::Index,
            Root::Image(_) if root.descriptor().is_attestation() => Kind::Attestation,
            Root::Image(image) => {
                by_layers(&image.manifest).unwrap_or(match *media_type == MediaType::DOCKER_MANIFEST {
                    true => Kind::DockerImage,
                    false => Kind::Image,
                })
            }
            Root::Other(artifact) => match &artifact.manifest {
                Some(manifest) => by_type(manifest).or_else(|| by_layers(manifest)).unwrap_or(Kind::Artifact),
                None if media_type.is_schema1() => Kind::DockerSchema1,
                None => Kind::Unknown,
            },
        }
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Image => "image",
            Kind::Index => "index",
            Kind::Artifact => "artifact",
            Kind::Attestation => "attestation",
            Kind::CosignSignature => "cosign-signature",
            Kind::NotationSignature => "notation-signature",
            Kind::SigstoreBundle => "sigstore-bundle",
            Kind::HelmChart => "helm-chart",
            Kind::Wasm => "wasm",
            Kind::DockerImage => "docker-image",
            Kind::DockerIndex => "docker-index",
            Kind::DockerSchema1 => "docker-schema1",
            Kind::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn by_type(manifest: &Manifest) -> Option<Kind> {
    let text = manifest.artifact_type()?.as_str();
    Some(match text {
        "application/vnd.cncf.notary.signature" => Kind::NotationSignature,
        "application/vnd.cncf.helm.config.v1+json" => Kind::HelmChart,
        "application/vnd.in-toto+json" => Kind::Attestation,
        _ if text.starts_with("application/vnd.dev.sigstore.bundle") => Kind::SigstoreBundle,
        _ if text.starts_with("application/vnd.wasm.") || text == "application/wasm" => Kind::Wasm,
        _ if text.starts_with("application/vnd.dev.cosign.artifact.sig.") => Kind::CosignSignature,
        _ => return None,
    })
}

/// What all layers have in common, for the kinds that borrow the config of an image.
fn by_layers(manifest: &Manifest) -> Option<Kind> {
    let mut kinds = manifest.layers().iter().map(|layer| match layer.media_type.as_str() {
        "application/vnd.in-toto+json" | "application/vnd.dsse.envelope.v1+json" => Some(Kind::Attestation),
        "application/vnd.dev.cosign.simplesigning.v1+json" => Some(Kind::CosignSignature),
        "application/wasm" | "application/vnd.wasm.content.layer.v1+wasm" => Some(Kind::Wasm),
        _ => None,
    });
    let first = kinds.next()??;
    kinds.all(|kind| kind == Some(first)).then_some(first)
}
