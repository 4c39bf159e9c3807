use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ocikit_archive::{END, Header, padding};
use ocikit_image::testing::random;
use ocikit_spec::{Descriptor, Index, MediaType};
use serde_json::{Value, json};

/// Writes an OCI layout with one image, tagged `1`, with `layers` layers of `size` bytes each.
///
/// # Panics
///
/// If the disk is full.
pub fn layout(path: &Path, layers: usize, size: usize) {
    images_with_shared_layers(path, 1, (layers, size), 0);
}

/// Writes an OCI layout with several images, tagged from `1` on. All of them have the same `shared.0` layers of `shared.1` bytes
/// each. If `separate` is not 0, each image has one more layer, of `separate` bytes, that no other image has.
///
/// # Panics
///
/// If the disk is full.
pub fn images_with_shared_layers(path: &Path, images: u64, shared: (usize, usize), separate: usize) {
    fs::create_dir_all(path.join("blobs/sha256")).expect("a directory");
    let put = |media_type: MediaType, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        fs::write(path.join(descriptor.digest.blob_path()), bytes).expect("a blob");
        descriptor
    };
    let layer = |seed: u64, size: usize| put(MediaType::OCI_LAYER, &random(seed, size));
    let base: Vec<_> = (0..shared.0 as u64).map(|number| layer(number, shared.1)).collect();
    let image = |number: u64| {
        let mut layers = base.clone();
        layers.extend((separate > 0).then(|| layer(1000 + number, separate)));
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        // regctl rebases only images whose history has an entry for each layer.
        let history: Vec<_> = layers.iter().map(|_| json!({"created_by": "COPY layer /"})).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, "history": history,
        })
        .to_string();
        let config = put(MediaType::OCI_CONFIG, config.as_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers});
        let mut manifest = put(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes());
        manifest.annotations.insert("org.opencontainers.image.ref.name", number.to_string());
        manifest
    };
    let images: Vec<_> = (1..=images).map(image).collect();
    fs::write(path.join("index.json"), Index::of(&images).bytes()).expect("index.json");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
}

/// Writes an OCI layout with an index of small images, tagged `1`. Returns the digests of the index and of the images.
///
/// # Panics
///
/// If the disk is full.
pub fn index(path: &Path, images: u64) -> Vec<String> {
    images_with_shared_layers(path, images, (1, 1 << 10), 1 << 10);
    let listed = fs::read(path.join("index.json")).expect("index.json");
    let listed: Value = serde_json::from_slice(&listed).expect("an index");
    let mut entries = listed["manifests"].as_array().expect("entries").clone();
    for entry in &mut entries {
        entry.as_object_mut().expect("an entry").remove("annotations");
    }
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries}).to_string();
    let mut root = Descriptor::of(MediaType::OCI_INDEX, index.as_bytes());
    fs::write(path.join(root.digest.blob_path()), index).expect("a blob");
    root.annotations.insert("org.opencontainers.image.ref.name", "1");
    fs::write(path.join("index.json"), Index::of(std::slice::from_ref(&root)).bytes()).expect("index.json");
    let images = entries.iter().map(|entry| entry["digest"].as_str().expect("a digest").to_owned());
    std::iter::once(root.digest.to_string()).chain(images).collect()
}

/// Writes a layout to a tar, blobs first, like BuildKit.
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

/// Returns a directory of files for a layer: `/usr`, what `OCIKIT_BENCH_TREE` names, or a small one below `directory` if
/// `OCIKIT_BENCH_SMOKE` is set.
///
/// # Panics
///
/// If the disk is full.
pub(crate) fn tree(directory: &Path) -> PathBuf {
    if let Some(tree) = std::env::var_os("OCIKIT_BENCH_TREE") {
        return tree.into();
    }
    if std::env::var_os("OCIKIT_BENCH_SMOKE").is_none() {
        return "/usr".into();
    }
    let tree = directory.join("tree");
    fs::create_dir(&tree).expect("a directory");
    for number in 0..20 {
        fs::write(tree.join(number.to_string()), "text ".repeat(20_000)).expect("a file");
    }
    tree
}
