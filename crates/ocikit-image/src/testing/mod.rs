//! Test support: generated images, and the conformance suite that every place has to pass.

mod conformance;
mod hard;
mod tar;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use ocikit_archive::Encoder;
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Platform};

use crate::memory::Memory;

pub use conformance::{Place, conformance};
pub use hard::hard_layer;
pub use ocikit_archive::Compression;
pub use tar::Tar;

/// A writer to memory whose clones share the bytes.
#[derive(Debug, Clone, Default)]
pub struct Shared(pub Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // No code panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An OCI layout in a temporary directory, which is removed with this value: one image for linux/amd64, tagged `1`, with one
/// layer.
///
/// ```
/// use ocikit_image::testing::TemporaryLayout;
///
/// let layout = TemporaryLayout::new();
/// assert!(layout.path().join("index.json").exists());
/// ```
#[derive(Debug)]
pub struct TemporaryLayout {
    directory: tempfile::TempDir,
}

impl TemporaryLayout {
    /// Writes the layout.
    ///
    /// # Panics
    ///
    /// If the directory of temporary files cannot be written to.
    #[allow(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> TemporaryLayout {
        const WRITABLE: &str = "the directory of temporary files can be written to";
        let memory = Memory::new();
        let tar = Tar::new().directory("etc").file("etc/os-release", b"ID=example\n").finish();
        let platform = Platform::new("linux", "amd64");
        let mut root = image_of(&memory, &platform, Compression::Gzip, &[tar]);
        root.annotations.insert(ocikit_spec::annotations::REF_NAME, "1");
        let directory = tempfile::tempdir().expect(WRITABLE);
        let blobs = directory.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect(WRITABLE);
        for bytes in memory.blobs() {
            std::fs::write(blobs.join(Digest::sha256_of(&bytes).hex()), bytes).expect(WRITABLE);
        }
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).expect(WRITABLE);
        write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        write("index.json", Index::of(&[root]).bytes());
        TemporaryLayout { directory }
    }

    /// Returns the directory.
    pub fn path(&self) -> &std::path::Path {
        self.directory.path()
    }
}

/// Returns incompressible bytes, the same for each seed.
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

/// Stores an image with random layers of these lengths in memory.
pub fn image(memory: &Memory, seed: u64, platform: &Platform, layers: &[usize]) -> Descriptor {
    let layers: Vec<_> = layers.iter().zip(seed..).map(|(length, seed)| random(seed, *length)).collect();
    image_of(memory, platform, Compression::None, &layers)
}

/// Stores an image with these tars as layers in memory.
///
/// # Panics
///
/// Never: writing to memory cannot fail.
pub fn image_of(memory: &Memory, platform: &Platform, compression: Compression, tars: &[Vec<u8>]) -> Descriptor {
    const CANNOT_FAIL: &str = "memory can be written to";
    let media_type = match compression {
        Compression::None => MediaType::OCI_LAYER,
        Compression::Gzip => MediaType::OCI_LAYER_GZIP,
        Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
        Compression::Xz => MediaType::new("application/vnd.oci.image.layer.v1.tar+xz"),
        Compression::Bzip2 => MediaType::new("application/vnd.oci.image.layer.v1.tar+bzip2"),
    };
    let layers = tars.iter().map(|tar| {
        let mut encoder = Encoder::new(compression, Vec::new()).expect(CANNOT_FAIL);
        encoder.write_all(tar).expect(CANNOT_FAIL);
        let bytes = encoder.finish().expect(CANNOT_FAIL);
        let descriptor = Descriptor::of(media_type.clone(), &bytes);
        memory.insert(bytes);
        json(&descriptor)
    });
    let layers = layers.collect::<Vec<_>>().join(",");
    let diff_ids: Vec<_> = tars.iter().map(|tar| format!("\"{}\"", Digest::sha256_of(tar))).collect();
    let config = format!(
        r#"{{"architecture":"{}","os":"{}","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        platform.architecture,
        platform.os,
        diff_ids.join(",")
    );
    memory.insert(config.clone());
    let config = Descriptor::of(MediaType::OCI_CONFIG, config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{layers}]}}"#,
        MediaType::OCI_MANIFEST,
        json(&config),
    );
    memory.insert(manifest.clone());
    Descriptor { platform: Some(platform.clone()), ..Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes()) }
}

/// Stores an index of these manifests in memory.
pub fn index(memory: &Memory, manifests: &[Descriptor]) -> Descriptor {
    let index = Index::of(manifests);
    memory.insert(index.bytes().clone());
    Descriptor::of(MediaType::OCI_INDEX, index.bytes())
}

/// Stores an artifact with this subject in memory.
pub fn referrer(memory: &Memory, subject: &Descriptor, artifact_type: &str) -> Descriptor {
    memory.insert(&b"{}"[..]);
    let empty = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{artifact_type}","config":{},"layers":[{}],"subject":{}}}"#,
        MediaType::OCI_MANIFEST,
        json(&empty),
        json(&empty),
        json(&subject.bare())
    );
    memory.insert(manifest.clone());
    Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes())
}

fn json(descriptor: &Descriptor) -> String {
    serde_json::to_string(descriptor).expect("a descriptor cannot fail to serialize")
}
