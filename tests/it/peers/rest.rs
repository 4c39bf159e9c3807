//! Archives and layouts written by ocikit, read by other programs.

use std::fs;

use ocikit_tests::{Bench, Peers, fixture, multi, single};

use super::engine;
use crate::bench;

/// An image for one platform by each common tool, and an index.
const SOURCES: [&str; 4] = [
    "buildkit-single/image.tar",
    "buildkit-zstd/image.tar",
    "docker-archive/docker20-tags.tar",
    "docker-archive/podman.tar",
];

/// Writes an image in every format. Returns the formats with their paths.
fn written(bench: &Bench, source: &str, name: &str) -> Vec<(&'static str, String)> {
    let forms = [
        ("oci-archive", format!("oci-archive:{name}.tar:1")),
        ("oci-archive.gz", format!("oci-archive:{name}.tar.gz:1")),
        ("docker-archive", format!("docker-archive:{name}-docker.tar:acme/{name}:1")),
        ("oci", format!("oci:{name}:1")),
    ];
    let path = |location: &str| location.split(':').nth(1).unwrap_or_default().to_owned();
    let each = forms.into_iter().map(|(kind, location)| {
        bench.ok(&["copy", source, &location]);
        (kind, bench.path(&path(&location)).display().to_string())
    });
    each.collect()
}

#[test]
fn all_tools_read_written_images() {
    let Some(peers) = Peers::find(&["skopeo", "crane", "regctl", "oras", "umoci", "podman", "registry"]) else {
        return;
    };
    let bench = bench();
    let registry = peers.distribution("registry");
    let storage = format!("--root {0}/r --runroot {0}/rr", peers.path("").display());
    let podman = format!("podman {storage} --storage-driver vfs --cgroup-manager cgroupfs --events-backend none");
    for (at, source) in SOURCES.iter().enumerate() {
        let name = format!("image{at}");
        let digest = bench.ok(&["digest", &fixture(source)]);
        for (kind, path) in written(&bench, &fixture(source), &name) {
            let target = format!("{}/{name}-{}", registry.address, kind.replace('.', "-"));
            match kind {
                "oci-archive" => {
                    peers.ok(&format!("skopeo copy oci-archive:{path} dir:{name}-dir"));
                    assert_eq!(peers.ok(&format!("oras resolve --oci-layout {path}:1")), digest, "{source}");
                    peers.ok(&format!("regctl image import ocidir://{name}-regctl:1 {path}"));
                    assert_eq!(peers.ok(&format!("regctl image digest ocidir://{name}-regctl:1")), digest);
                    peers.ok(&format!("{podman} load -q -i {path}"));
                }
                "oci-archive.gz" => {
                    peers.ok(&format!("skopeo copy oci-archive:{path} dir:{name}-gz-dir"));
                    peers.ok(&format!("regctl image import ocidir://{name}-regctl-gz:1 {path}"));
                    peers.ok(&format!("{podman} load -q -i {path}"));
                }
                "docker-archive" => {
                    peers.ok(&format!("skopeo copy docker-archive:{path} dir:{name}-docker-dir"));
                    let loaded = peers.ok(&format!("{podman} load -q -i {path}"));
                    assert!(loaded.contains(&format!("acme/{name}:1")), "{source}: {loaded}");
                    // crane reads every compressed layer of a docker archive as gzip.
                    if !source.contains("zstd") {
                        peers.ok(&format!("crane push --insecure {path} {target}"));
                        peers.ok(&format!("crane validate --insecure --remote {target}"));
                    }
                    peers.ok(&format!("regctl image import ocidir://{name}-regctl-docker:1 {path}"));
                }
                _ => {
                    peers.ok(&format!("skopeo copy oci:{path}:1 dir:{name}-oci-dir"));
                    peers.ok(&format!("crane push --insecure {path} {target}"));
                    assert_eq!(peers.ok(&format!("crane digest --insecure {target}")), digest, "{source}");
                    assert_eq!(peers.ok(&format!("regctl image digest ocidir://{path}:1")), digest, "{source}");
                    assert_eq!(peers.ok(&format!("oras resolve --oci-layout {path}:1")), digest, "{source}");
                    peers.ok(&format!("umoci unpack --rootless --image {path}:1 {name}-umoci"));
                }
            }
        }
    }
}

#[test]
fn docker_engine_loads_written_images() {
    let Some(peers) = Peers::find(&["dockerd", "docker", "runc"]) else { return };
    let bench = bench();
    let mut daemon = engine(&peers);
    let docker = format!("docker -H {}", daemon.address);
    for (at, source) in SOURCES.iter().enumerate() {
        let name = format!("image{at}");
        let source = fixture(source);
        bench.ok(&["copy", &source, &format!("docker-archive:{name}.tar:acme/{name}:1")]);
        let loaded = peers.ok(&format!("{docker} load -i {}", bench.path(&format!("{name}.tar")).display()));
        assert!(loaded.contains(&format!("acme/{name}:1")), "{source}: {loaded}");
    }
    // Several images in one archive, and an index next to the manifest.json for docker.
    let multi = multi();
    bench.ok(&["copy", &multi, "oci-archive:all.tar:acme/all:1"]);
    let single = single();
    bench.ok(&["copy", "--append", &single, "oci-archive:all.tar:acme/more:1"]);
    let loaded = peers.ok(&format!("{docker} load -i {}", bench.path("all.tar").display()));
    assert!(loaded.contains("acme/all:1") && loaded.contains("acme/more:1"), "{loaded}");
    // Archives saved by this engine are read.
    peers.ok(&format!("{docker} save -o {} acme/image0:1 acme/all:1", bench.path("saved.tar").display()));
    for name in ["acme/image0:1", "acme/all:1"] {
        bench.ok(&["copy", &format!("docker-archive:saved.tar:{name}"), "oci:saved:1"]);
    }
    daemon.stop();
}

#[test]
fn blobs_are_shared_with_skopeo() {
    let Some(peers) = Peers::find(&["skopeo"]) else { return };
    let bench = bench();
    let source = single();
    let (layout, blobs) = (bench.path("layout").display().to_string(), bench.path("blobs").display().to_string());
    fs::create_dir(&blobs).unwrap();
    peers.ok(&format!("skopeo copy --dest-shared-blob-dir {blobs} oci-archive:{source} oci:{layout}:1"));
    assert_eq!(bench.ok(&["digest", "--shared-blobs", &blobs, "oci:layout:1"]), bench.ok(&["digest", &source]));
    bench.ok(&["copy", "--shared-blobs", &blobs, "oci:layout:1", "oci:other:1"]);
    let other = bench.path("other").display().to_string();
    peers.ok(&format!("skopeo copy --src-shared-blob-dir {blobs} oci:{other}:1 dir:copied"));
}
