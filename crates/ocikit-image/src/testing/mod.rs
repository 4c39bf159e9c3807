//! For tests: images made up on the spot, and the suite that every place has to pass.

mod conformance;

use ocikit_spec::{Descriptor, Index, MediaType, Platform};

use crate::memory::Memory;

pub use conformance::{Place, conformance};

/// Bytes that do not compress and are the same for the same seed.
pub fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*, enough to defeat a compressor
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Puts an image with random layers of these lengths into memory.
pub fn image(memory: &Memory, seed: u64, platform: &Platform, layers: &[usize]) -> Descriptor {
    let layers: Vec<_> = layers
        .iter()
        .zip(seed..)
        .map(|(length, seed)| {
            let bytes = random(seed, *length);
            memory.insert(bytes.clone());
            Descriptor::of(MediaType::OCI_LAYER, &bytes)
        })
        .collect();
    let diff_ids = layers.iter().map(|layer| format!("\"{}\"", layer.digest)).collect::<Vec<_>>().join(",");
    let config = format!(
        r#"{{"architecture":"{}","os":"{}","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#,
        platform.architecture, platform.os
    );
    memory.insert(config.clone());
    let config = Descriptor::of(MediaType::OCI_CONFIG, config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        MediaType::OCI_MANIFEST,
        json(&config),
        layers.iter().map(json).collect::<Vec<_>>().join(",")
    );
    memory.insert(manifest.clone());
    Descriptor { platform: Some(platform.clone()), ..Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes()) }
}

/// Puts an index of these manifests into memory.
pub fn index(memory: &Memory, manifests: &[Descriptor]) -> Descriptor {
    let index = Index::of(manifests);
    memory.insert(index.bytes().clone());
    Descriptor::of(MediaType::OCI_INDEX, index.bytes())
}

/// Puts an artifact about a manifest into memory.
pub fn referrer(memory: &Memory, subject: &Descriptor, artifact_type: &str) -> Descriptor {
    memory.insert(&b"{}"[..]);
    let empty = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
    let subject = Descriptor::new(subject.media_type.clone(), subject.digest, subject.size);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{artifact_type}","config":{},"layers":[{}],"subject":{}}}"#,
        MediaType::OCI_MANIFEST,
        json(&empty),
        json(&empty),
        json(&subject)
    );
    memory.insert(manifest.clone());
    Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes())
}

fn json(descriptor: &Descriptor) -> String {
    serde_json::to_string(descriptor).expect("a descriptor cannot fail to serialize")
}
