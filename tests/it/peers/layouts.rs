//! Layouts that cosign saves, and archives that docker can load, as other programs read them.

use std::fs;

use ocikit_tests::{Peers, fixture, single};

use super::sign::{cosign, cosign_signs};
use crate::bench;

#[test]
fn signatures_saved_by_cosign_are_found_and_copied() {
    let Some(peers) = Peers::find(&["crane", "cosign"]) else { return };
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "secret");
    let registry = peers.crane_registry();
    let image = format!("{}/app:1", registry.address);
    bench.ok(&["push", &single(), &image]);
    bench.ok(&["keygen", "-o", "k"]);
    for name in ["k.key", "k.pub"] {
        fs::copy(bench.path(name), peers.path(name)).unwrap();
    }
    let digest = bench.ok(&["digest", &image]);
    cosign_signs(&peers, "k.key", "cosign", "", &format!("{}/app@{digest}", registry.address));
    cosign(&peers, &format!("save --allow-insecure-registry --dir saved {image}")).ok();
    let saved = format!("oci:{}", peers.path("saved").display());
    let index = fs::read_to_string(peers.path("saved/index.json")).unwrap();
    assert_eq!(index.matches("\"digest\"").count(), 1, "the signature is not listed: {index}");
    let count = || fs::read_dir(peers.path("saved/blobs/sha256")).unwrap().count();
    let before = count();
    bench.ok(&["gc", &saved]);
    assert_eq!(count(), before);
    bench.ok(&["verify", &saved, "--key", "k.pub"]);
    let copied = format!("{}/copied:1", registry.address);
    bench.ok(&["copy", &saved, &copied]);
    let verified = super::sign::cosign_verifies(&peers, "k.pub", "cosign", "", &copied);
    assert_eq!(verified.code, 0, "{verified}");
}

#[test]
fn archives_for_docker_are_oci_archives_for_other_tools() {
    let Some(peers) = Peers::find(&["skopeo", "podman", "regctl", "oras"]) else { return };
    let bench = bench();
    for source in ["buildkit-single/image.tar", "buildkit-multi/image.tar"] {
        bench.ok(&["copy", &fixture(source), "oci-archive:a.tar:1"]);
        let path = bench.path("a.tar").display().to_string();
        let digest = bench.ok(&["digest", "a.tar"]);
        let raw = peers.ok(&format!("skopeo inspect --raw oci-archive:{path}:1"));
        assert_eq!(raw, bench.ok(&["manifest", "get", "a.tar"]), "{source}");
        let _ = fs::remove_dir_all(peers.path("copied"));
        let copied = peers.path("copied").display().to_string();
        peers.ok(&format!("skopeo copy --all oci-archive:{path}:1 oci:{copied}:1"));
        assert_eq!(bench.ok(&["digest", &format!("oci:{copied}")]), digest, "{source}");
        let loaded =
            peers.ok(&format!("podman --storage-driver vfs --root {} load -i {path}", peers.path("p").display()));
        assert!(loaded.contains("Loaded image"), "{source}: {loaded}");
        bench.ok(&["copy", "a.tar", "docker-archive:d.tar:acme/app:1"]);
        let docker = bench.path("d.tar").display().to_string();
        peers.ok(&format!("skopeo inspect --raw docker-archive:{docker}"));
        fs::remove_file(&path).unwrap();
    }
}
