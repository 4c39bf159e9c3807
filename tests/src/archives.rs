use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocikit_archive::{Compression, END, Header, padding};
use ocikit_image::{CopyOptions, Memory, Name, Naming, Root, Sink, copy, testing};
use ocikit_layout::{Dir, Scratch, TarOptions, TarWriter};
use ocikit_spec::{Descriptor, Digest, Index, MediaType};
use serde_json::json;
use tokio::runtime::Builder;

/// Returns the path of a fixture.
pub fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name)
}

/// Returns the path of a fixture as text.
pub fn fixture(name: &str) -> String {
    testdata(name).display().to_string()
}

/// Returns the path of an archive with an image for one platform.
pub fn single() -> String {
    fixture("buildkit-single/image.tar")
}

/// Returns the path of an archive with an image for two platforms.
pub fn multi() -> String {
    fixture("buildkit-multi/image.tar")
}

/// Returns the path of an archive with an image for two platforms, and their attestation manifests.
pub fn attested() -> String {
    fixture("buildkit-attested/multi.tar")
}

/// An OCI archive to write: one image with layers of zeros. The file is sparse, so that an archive of any size takes no disk
/// space.
#[derive(Debug, Clone, Copy)]
pub struct Archive {
    /// The number of layers.
    pub layers: u64,
    /// The size of each layer in bytes. The last byte differs from layer to layer.
    pub size: u64,
    /// Whether the digests match the layers. Hashing takes seconds per GiB, and not every test reads layers.
    pub valid_digests: bool,
}

/// Verifies every byte of the only image at a path, with the library instead of the program, and returns its digest.
///
/// # Panics
///
/// If there is no image, or if a blob is missing or damaged.
pub fn verified_digest(path: &Path) -> Digest {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let place = ocikit_layout::open(path, &Scratch::default()).await.expect("a readable archive or layout");
        let root = Root::open(place, &Name::Only).await.expect("an image");
        let memory: Arc<dyn Sink> = Arc::new(Memory::new());
        copy(&root, &memory, &CopyOptions::default()).await.expect("a complete image").root.digest
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
        // A range that is not written is a hole and reads as zeros.
        file.write_all_at(content, at + size - content.len() as u64).expect("content");
        at += size + padding(size);
    };
    let layers: Vec<_> = (0..archive.layers)
        .map(|number| {
            let last = [number as u8 + 1];
            let digest = match archive.valid_digests {
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
    file.set_len(at + END.len() as u64).expect("disk space");
    file.flush().expect("a file");
    descriptor.digest
}

/// Writes an image with these layers and the tag `1`: to an archive if the path ends in `.tar`, otherwise to a layout.
///
/// # Panics
///
/// If the image cannot be written.
pub fn write_image(path: &Path, compression: Compression, layers: &[Vec<u8>]) -> Digest {
    let memory = Arc::new(Memory::new());
    let platform = "linux/amd64".parse().expect("a platform");
    let descriptor = testing::image_of(&memory, &platform, compression, layers);
    let names = vec![Naming::of_tag("1".parse().expect("a tag"))];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let copied = runtime.block_on(async {
        let root = Root::at(memory, descriptor).await?;
        let sink: Arc<dyn Sink> = match path.extension().is_some_and(|ending| ending == "tar") {
            true => Arc::new(TarWriter::create(path, TarOptions::default()).await?),
            false => Arc::new(Dir::create(path).await?),
        };
        copy(&root, &sink, &CopyOptions::default().names(names)).await
    });
    copied.expect("a writable path").root.digest
}

fn digest_of_zeros(size: u64, last: &[u8]) -> Digest {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut hasher = ocikit_spec::Hasher::new(ocikit_spec::Algorithm::Sha256);
    let mut remaining = size - last.len() as u64;
    while remaining > 0 {
        let length = (ZEROS.len() as u64).min(remaining);
        hasher.update(&ZEROS[..length as usize]);
        remaining -= length;
    }
    hasher.update(last);
    hasher.finish()
}
