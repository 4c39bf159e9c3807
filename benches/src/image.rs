use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use ocikit_archive::{END, Header, padding};
use ocikit_spec::{Descriptor, Digest, Index, MediaType};
use serde_json::json;

/// Bytes that do not compress, the same for the same seed.
pub fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes an OCI layout with one image, tagged `1`, of so many layers of so many bytes, and returns its blobs.
///
/// # Panics
///
/// If the disk is full.
pub fn layout(path: &Path, layers: usize, size: usize) -> Vec<Digest> {
    fs::create_dir_all(path.join("blobs/sha256")).expect("a directory");
    let mut blobs = Vec::new();
    let mut put = |media_type: MediaType, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        fs::write(path.join(descriptor.digest.blob_path()), bytes).expect("a blob");
        blobs.push(descriptor.digest);
        descriptor
    };
    let layers: Vec<_> = (0..layers).map(|number| put(MediaType::OCI_LAYER, &random(number as u64, size))).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).to_string();
    let config = put(MediaType::OCI_CONFIG, config.as_bytes());
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers})
            .to_string();
    let mut manifest = put(MediaType::OCI_MANIFEST, manifest.as_bytes());
    manifest.annotations.insert("org.opencontainers.image.ref.name", "1");
    fs::write(path.join("index.json"), Index::of(&[manifest]).bytes()).expect("index.json");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
    blobs
}

/// Writes a layout into a tar, blobs first, as BuildKit does.
///
/// # Panics
///
/// If the disk is full.
pub fn tar(layout: &Path, path: &Path) {
    let mut file = File::create(path).expect("a file");
    let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("a layout");
    let blobs = blobs.map(|entry| entry.expect("a blob").file_name().into_string().expect("a digest"));
    let mut names: Vec<_> = blobs.map(|name| format!("blobs/sha256/{name}")).collect();
    names.sort();
    names.extend(["index.json", "oci-layout"].map(str::to_owned));
    for name in names {
        let bytes = fs::read(layout.join(&name)).expect("a file of the layout");
        file.write_all(&Header::file(&name, bytes.len() as u64).to_bytes()).expect("room");
        file.write_all(&bytes).expect("room");
        file.write_all(&END[..padding(bytes.len() as u64) as usize]).expect("room");
    }
    file.write_all(&END).and_then(|()| file.sync_all()).expect("room");
}
