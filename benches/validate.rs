//! How long does it take to verify every byte of an image against its digests and diff IDs?
//!
//! The limit is the unavoidable work: gzip decompresses each layer once, and sha256sum hashes its compressed and uncompressed
//! bytes, one layer per processor.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use ocikit_archive::{Compression, END, Encoder, Header, padding};
use ocikit_benches::{Registry, Table, find, measure, random, run_if_asked, tar};
use ocikit_spec::{Descriptor, Digest, Hasher, Index, MediaType};
use serde_json::json;

const ROUNDS: usize = 3;
const LAYERS: u64 = 8;
const SIZE: u64 = 128 << 20;

fn main() {
    run_if_asked();
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let layers = layout(&path("layout"));
    tar(&path("layout"), &path("image.tar"));
    let crane = find("crane");
    let registry = crane.as_ref().and_then(|_| find("registry")).map(|program| served(&program, directory.path()));

    let ocikit = env!("CARGO_BIN_EXE_ocikit-under-bench");
    let mut table = Table::new();
    for _ in 0..ROUNDS {
        let mut run = |name: &str, line: &[&str]| {
            let mut command = Command::new(line[0]);
            command.args(&line[1..]).current_dir(directory.path()).env("HOME", directory.path());
            table.add(name, measure(&command));
        };
        run("ocikit validate", &[ocikit, "validate", "--quiet", "image.tar"]);
        run("ocikit validate --fast", &[ocikit, "validate", "--quiet", "--fast", "image.tar"]);
        let line = "sha256sum $0 >/dev/null; gzip -dc $0 | sha256sum >/dev/null";
        let script = format!("printf '%s\\n' {} | xargs -P $(nproc) -n 1 sh -c '{line}'", layers.join(" "));
        run("gzip -d and sha256sum, all processors", &["sh", "-c", &script]);
        if let Some((_, reference)) = &registry {
            run("ocikit validate, from a registry", &[ocikit, "validate", "--quiet", reference]);
            run("crane validate --remote", &["crane", "validate", "--insecure", "--remote", reference]);
        }
    }
    table.print("validate an image of 1 GiB in eight gzip layers");
    println_limit();
}

/// Returns the tar of a layer with one file.
fn layer(seed: u64) -> Vec<u8> {
    let content = content(seed);
    let size = content.len() as u64;
    let header = Header::file("content", size).to_bytes();
    [&header[..], &content, &END[..padding(size) as usize], &END].concat()
}

/// Returns content that compresses like that of typical images: a quarter well, the rest hardly.
fn content(seed: u64) -> Vec<u8> {
    let mut bytes = random(seed, SIZE as usize);
    for chunk in bytes.chunks_mut(4096).step_by(4) {
        chunk.fill(b'a' + seed as u8);
    }
    // The second half uses only six bits of each byte, like text.
    for byte in bytes.iter_mut().skip(SIZE as usize / 2) {
        *byte &= 0x3f;
    }
    bytes
}

/// Writes a layout with one image and returns the paths of its layers.
fn layout(path: &Path) -> Vec<String> {
    fs::create_dir_all(path.join("blobs/sha256")).expect("a directory");
    let put = |media_type: MediaType, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        fs::write(path.join(descriptor.digest.blob_path()), bytes).expect("a blob");
        descriptor
    };
    let made: Vec<(Descriptor, Digest)> = (0..LAYERS)
        .map(|seed| {
            let content = layer(seed);
            let mut encoder = Encoder::new(Compression::Gzip, Vec::new()).expect("an encoder");
            encoder.write_all(&content).expect("memory");
            let bytes = encoder.finish().expect("memory");
            (put(MediaType::OCI_LAYER_GZIP, &bytes), Digest::sha256_of(&content))
        })
        .collect();
    let diff_ids: Vec<_> = made.iter().map(|(_, diff_id)| diff_id).collect();
    let layers: Vec<_> = made.iter().map(|(layer, _)| layer).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).to_string();
    let config = put(MediaType::OCI_CONFIG, config.as_bytes());
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers});
    let mut root = put(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes());
    root.annotations.insert("org.opencontainers.image.ref.name", "1");
    fs::write(path.join("index.json"), Index::of(&[root]).bytes()).expect("index.json");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
    made.iter().map(|(layer, _)| format!("layout/{}", layer.digest.blob_path())).collect()
}

/// Starts a registry and pushes the image to it.
fn served(program: &Path, directory: &Path) -> (Registry, String) {
    let registry = Registry::start(program, directory);
    let reference = format!("{}/bench:1", registry.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocikit-under-bench"));
    command.args(["push", "--quiet", "image.tar", &reference]).current_dir(directory).env("HOME", directory);
    assert!(command.stdout(Stdio::null()).status().expect("ocikit").success());
    (registry, reference)
}

/// Prints the speed of SHA-256 on this machine, to compare machines.
#[allow(clippy::print_stdout, reason = "a benchmark prints its results")]
fn println_limit() {
    let bytes = random(1, SIZE as usize);
    let begun = Instant::now();
    let mut hasher = Hasher::new(ocikit_spec::Algorithm::Sha256);
    hasher.update(&bytes);
    let digest = hasher.finish();
    let rate = SIZE as f64 / begun.elapsed().as_secs_f64() / (1 << 20) as f64;
    println!("\nsha256 on one processor: {rate:.0} MiB/s ({})", &digest.hex()[..8]);
}
