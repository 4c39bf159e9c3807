use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_archive::{END, Header, padding};
use ocikit_image::{CopyOptions, Memory, Name, Root, Sink, copy};
use ocikit_layout::Scratch;
use ocikit_spec::{Descriptor, Digest, Index, MediaType};
use serde_json::json;
use tokio::runtime::Builder;

/// The path of a fixture.
pub fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name)
}

/// An OCI archive to make: one image with layers that hold nothing but zeros, so that an archive of any size takes no
/// room on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Archive {
    /// How many layers.
    pub layers: u64,
    /// How many bytes each; the last of them differs from layer to layer.
    pub size: u64,
    /// Whether the digests are right. Hashing takes seconds for every few GiB, and not every test reads layers.
    pub honest: bool,
}

/// The digest of the only image at a path, every byte below it checked, without the program.
///
/// # Panics
///
/// If there is none, or if something is missing or wrong.
pub fn whole(path: &Path) -> Digest {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let place = ocikit_layout::open(path, &Scratch::default()).await.expect("a place that is read");
        let root = Root::open(place, &Name::Only).await.expect("an image");
        let nowhere: Arc<dyn Sink> = Arc::new(Memory::new());
        copy(&root, &nowhere, &CopyOptions::default()).await.expect("an image that is whole").root.digest
    })
}

/// Writes an archive and returns the digest of its image.
///
/// # Panics
///
/// If the disk is full.
pub fn write_archive(path: &Path, archive: Archive) -> Digest {
    let mut file = File::create(path).expect("a file");
    let mut at = 0;
    let mut entry = |name: &str, content: &[u8], size: u64| {
        use std::os::unix::fs::FileExt;
        let header = Header::file(name, size).to_bytes();
        file.write_all_at(&header, at).expect("a header");
        at += header.len() as u64;
        // What is not written is a hole, and reads as zeros.
        file.write_all_at(content, at + size - content.len() as u64).expect("content");
        at += size + padding(size);
    };
    let layers: Vec<_> = (0..archive.layers)
        .map(|number| {
            let last = [number as u8 + 1];
            let digest = match archive.honest {
                true => digest_of_zeros(archive.size, &last),
                false => Digest::sha256_of(&number.to_le_bytes()),
            };
            entry(&digest.blob_path(), &last, archive.size);
            Descriptor::new(MediaType::OCI_LAYER, digest, archive.size)
        })
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).to_string();
    let config_descriptor = Descriptor::of(MediaType::OCI_CONFIG, config.as_bytes());
    entry(&config_descriptor.digest.blob_path(), config.as_bytes(), config.len() as u64);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config_descriptor, "layers": layers,
    });
    let manifest = manifest.to_string();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    entry(&descriptor.digest.blob_path(), manifest.as_bytes(), manifest.len() as u64);
    let index = Index::of(std::slice::from_ref(&descriptor));
    entry("index.json", index.bytes(), index.bytes().len() as u64);
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    entry("oci-layout", layout, layout.len() as u64);
    file.set_len(at + END.len() as u64).expect("room");
    file.flush().expect("a file");
    descriptor.digest
}

fn digest_of_zeros(size: u64, last: &[u8]) -> Digest {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut hasher = ocikit_spec::Hasher::new(ocikit_spec::Algorithm::Sha256);
    let mut rest = size - last.len() as u64;
    while rest > 0 {
        let most = (ZEROS.len() as u64).min(rest);
        hasher.update(&ZEROS[..most as usize]);
        rest -= most;
    }
    hasher.update(last);
    hasher.finish()
}
