use std::io::Write;

use ocikit_archive::{Compression, Encoder};
use ocikit_spec::{Descriptor, Digest, Index, MediaType};
use serde_json::{Value, json};

use super::tar::RawTar;

/// The blobs and root descriptors of an image. A blob is stored under the digest of its descriptor, even if that is wrong.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) blobs: Vec<(Descriptor, Vec<u8>)>,
    pub(super) roots: Vec<Descriptor>,
}

impl Parts {
    pub(super) fn new() -> Parts {
        Parts { blobs: Vec::new(), roots: Vec::new() }
    }

    /// Returns the base image of the hostile archives, with one small layer.
    pub(super) fn image() -> Parts {
        let mut parts = Parts::new();
        let layer = RawTar::default().file("etc/motd", b"hello\n").end();
        let layer = parts.gzip(&layer);
        parts.finish(vec![layer]);
        parts
    }

    pub(super) fn put(&mut self, media_type: MediaType, bytes: impl Into<Vec<u8>>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.push((descriptor.clone(), bytes));
        descriptor
    }

    pub(super) fn gzip(&mut self, content: &[u8]) -> (Descriptor, Digest) {
        let bytes = compressed(Compression::Gzip, content);
        (self.put(MediaType::OCI_LAYER_GZIP, bytes), Digest::sha256_of(content))
    }

    /// Adds a config, a manifest and a root for these layers.
    pub(super) fn finish(&mut self, layers: Vec<(Descriptor, Digest)>) -> Descriptor {
        let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.put(MediaType::OCI_CONFIG, config.to_string());
        let layers: Vec<_> = layers.into_iter().map(|(layer, _)| layer).collect();
        let manifest = manifest(&config, &layers);
        let root = self.put(MediaType::OCI_MANIFEST, manifest.to_string());
        self.roots.push(root.clone());
        root
    }

    /// Returns the layer of [`Parts::image`].
    pub(super) fn layer(&self) -> &Descriptor {
        &self.blobs[0].0
    }

    /// Returns a tar with the blobs.
    pub(super) fn blob_entries(&self) -> RawTar {
        let mut tar = RawTar::default();
        for (descriptor, bytes) in &self.blobs {
            tar.file(&descriptor.digest.blob_path(), bytes);
        }
        tar
    }

    /// Returns a tar with the blobs, this `index.json`, and `oci-layout`.
    pub(super) fn entries_with(&self, index: &[u8]) -> RawTar {
        let mut tar = self.blob_entries();
        tar.file("index.json", index).file("oci-layout", LAYOUT);
        tar
    }

    pub(super) fn entries(&self) -> RawTar {
        self.entries_with(Index::of(&self.roots).bytes())
    }

    pub(super) fn tar(&self) -> Vec<u8> {
        self.entries().end()
    }
}

pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

pub(super) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Value {
    json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers})
}

pub(super) fn compressed(compression: Compression, content: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).expect("an encoder");
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// Compresses zeros as a stream, without allocating them.
pub(super) fn compressed_zeros(compression: Compression, length: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).expect("an encoder");
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), length), &mut encoder).expect("memory");
    encoder.finish().expect("memory")
}
