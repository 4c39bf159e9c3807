//! Images with changed layers, as other programs read them.

use std::fs;

use ocikit_tests::{Peers, attested, json, single, testdata};

use super::engine;
use crate::bench;

const READERS: [&str; 5] = ["crane", "skopeo", "podman", "umoci", "registry"];

/// Changes an image, and has other programs read the result.
fn other_tools_accept(change: &[&str]) {
    let Some(peers) = Peers::find(&READERS) else { return };
    let bench = bench();
    fs::create_dir_all(bench.path("dist/sub")).unwrap();
    bench.write(&format!("dist/sub/{}", "long".repeat(40)), "text");
    fs::hard_link(bench.path(&format!("dist/sub/{}", "long".repeat(40))), bench.path("dist/link")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("sub", bench.path("dist/symlink")).unwrap();
    let registry = peers.distribution("registry");
    let host = registry.address.replace("127.0.0.1", "localhost");
    fs::copy(testdata("buildkit-attested/multi.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["append", "a.tar", "dist", "--destination", "/opt"]);
    let (command, rest) = change.split_first().unwrap();
    bench.ok(&[&[*command, "a.tar"], rest].concat());
    let reference = format!("{host}/app:1");
    bench.ok(&["push", "a.tar", &reference]);
    // The configs of attestation manifests have no platform, which crane rejects in an unchanged index too.
    // crane pushes and pulls zstd layers, but does not read them.
    let fast = if change.contains(&"zstd") { "--fast" } else { "" };
    peers.ok(&format!("crane --platform linux/amd64 validate {fast} --remote {reference}"));
    let raw = peers.ok(&format!("crane manifest {reference}"));
    assert_eq!(raw.trim(), bench.ok(&["manifest", "get", &reference]).trim(), "{change:?}");
    let layout = peers.path("layout").display().to_string();
    peers.ok(&format!("skopeo copy --all --src-tls-verify=false docker://{reference} oci:{layout}:1"));
    let platform = "--override-os linux --override-arch amd64";
    let single = peers.path("single").display().to_string();
    peers.ok(&format!("skopeo {platform} copy --src-tls-verify=false docker://{reference} oci:{single}:1"));
    let bundle = peers.path("bundle");
    // umoci reads gzip and zstd layers, and checks every digest and diff_id.
    peers.ok(&format!("umoci raw unpack --rootless --image {single}:1 {}", bundle.display()));
    let link = bundle.join("opt/link");
    assert_eq!(fs::read_to_string(&link).unwrap(), "text", "{change:?}");
    let storage = format!("--root {0}/r --runroot {0}/rr --storage-driver vfs", peers.path("").display());
    let pull = format!("podman {storage} pull -q --tls-verify=false --platform linux/amd64 {reference}");
    peers.ok(&pull);
}

#[test]
fn other_tools_accept_a_new_layer() {
    other_tools_accept(&["append", "dist", "--destination", "/srv", "--delete", "/etc/acme.conf"]);
}

#[test]
fn other_tools_accept_a_flat_image() {
    other_tools_accept(&["flatten"]);
}

#[test]
fn other_tools_accept_zstd_layers() {
    other_tools_accept(&["recompress", "--compression", "zstd"]);
}

#[test]
fn other_tools_accept_recompressed_gzip_layers() {
    other_tools_accept(&["recompress", "--compression", "gzip", "--level", "9"]);
}

#[test]
fn other_tools_accept_a_normalized_image() {
    other_tools_accept(&["normalize", "--time", "1700000000"]);
}

#[test]
fn other_tools_accept_an_image_in_the_format_of_docker() {
    other_tools_accept(&["convert", "--to", "docker", "--drop-unsupported"]);
}

#[test]
fn docker_loads_changed_images() {
    let Some(peers) = Peers::find(&["dockerd", "docker", "runc"]) else { return };
    let bench = bench();
    fs::create_dir(bench.path("dist")).unwrap();
    bench.write("dist/program", "text");
    let source = attested();
    let changes: [(&str, &[&str]); 6] = [
        ("append", &["dist", "--destination", "/opt"]),
        ("edit", &["--label", "team=web", "--cmd", "/program"]),
        ("flatten", &[]),
        ("normalize", &["--time", "1700000000"]),
        ("recompress", &["--compression", "gzip", "--level", "9"]),
        ("convert", &["--to", "docker", "--drop-unsupported"]),
    ];
    let mut daemon = engine(&peers);
    let docker = format!("docker -H {}", daemon.address);
    for (command, rest) in changes {
        let archive = bench.path(&format!("{command}.tar")).display().to_string();
        bench.ok(&["copy", &source, &format!("oci-archive:{archive}:acme/{command}:1")]);
        bench.ok(&[&[command, &archive], rest].concat());
        let loaded = peers.ok(&format!("{docker} load -i {archive}"));
        assert!(loaded.contains(&format!("acme/{command}:1")), "{command}: {loaded}");
        let layers = peers.ok(&format!("{docker} image inspect acme/{command}:1 --format {{{{.RootFS.Layers}}}}"));
        let config = bench.ok(&["config", "--platform", "linux/amd64", &archive]);
        let config = json(&config);
        for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap() {
            assert!(layers.contains(diff_id.as_str().unwrap()), "{command}: {layers}");
        }
    }
    daemon.stop();
}

#[test]
fn crane_and_ocikit_append_the_same_layer() {
    let Some(peers) = Peers::find(&["crane", "registry", "tar"]) else { return };
    let bench = bench();
    let registry = peers.distribution("registry");
    let host = registry.address.replace("127.0.0.1", "localhost");
    let base = format!("{host}/base:1");
    bench.ok(&["push", &single(), &base]);
    fs::create_dir(peers.path("files")).unwrap();
    fs::write(peers.path("files/x"), "x").unwrap();
    peers.ok("tar -C files -cf layer.tar x");
    peers.ok(&format!("crane append -b {base} -f layer.tar -t {host}/crane:1"));
    let ours = format!("{host}/ours:1");
    bench.ok(&["append", &base, &peers.path("layer.tar").display().to_string(), "-o", &ours]);
    let diff_ids = |reference: &str| {
        let config = json(&peers.ok(&format!("crane config {reference}")));
        config["rootfs"]["diff_ids"].clone()
    };
    assert_eq!(diff_ids(&ours), diff_ids(&format!("{host}/crane:1")));
    peers.ok(&format!("crane validate --remote {ours}"));
}
