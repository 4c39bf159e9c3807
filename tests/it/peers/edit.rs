//! Archives that were annotated in place, as other programs read them afterwards.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use ocikit_tests::{Archive, Bench, Peers, json, testdata, write_archive};
use serde_json::Value;

use crate::bench;

const READERS: [&str; 7] = ["crane", "skopeo", "oras", "regctl", "podman", "registry", "tar"];

/// Returns the value of the manifest's annotation `k` that each program reads; `None` if there is none.
fn seen(peers: &Peers, archive: &str, round: &str) -> Vec<(&'static str, Option<String>)> {
    let value = |text: &str| {
        let manifest = json(text);
        manifest["annotations"]["k"].as_str().map(str::to_owned)
    };
    let mut found = Vec::new();
    let skopeo = peers.ok(&format!("skopeo inspect --raw oci-archive:{archive}"));
    found.push(("skopeo", value(&skopeo)));
    let tag = if peers.run(&format!("oras resolve --oci-layout {archive}:1")).code == 0 {
        ":1".to_owned()
    } else {
        digest_for_oras(peers, archive)
    };
    found.push(("oras", value(&peers.ok(&format!("oras manifest fetch --oci-layout {archive}{tag}")))));
    peers.ok(&format!("regctl image import ocidir://regctl-{round}:1 {archive}"));
    found.push((
        "regctl",
        value(&peers.ok(&format!("regctl manifest get --format raw-body ocidir://regctl-{round}:1"))),
    ));
    let unpacked = peers.path(&format!("unpacked-{round}"));
    fs::create_dir_all(&unpacked).unwrap();
    peers.ok(&format!("tar -xf {archive} -C {}", unpacked.display()));
    let index: Value = serde_json::from_slice(&fs::read(unpacked.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    found.push(("tar", value(&fs::read_to_string(unpacked.join("blobs").join(digest)).unwrap())));
    found
}

fn digest_for_oras(peers: &Peers, archive: &str) -> String {
    let index = peers.ok(&format!("tar -xOf {archive} index.json"));
    // tar prints all entries of that name in order; oras reads the last.
    let last = serde_json::Deserializer::from_str(&index).into_iter::<Value>().last().unwrap().unwrap();
    format!("@{}", last["manifests"][0]["digest"].as_str().unwrap())
}

/// Has all programs read the annotations of an archive that was annotated in place four times.
fn all_tools_read(name: &str) {
    let Some(peers) = Peers::find(&READERS) else { return };
    let bench = bench();
    fs::copy(testdata(name), bench.path("a.tar")).unwrap();
    let archive = bench.path("a.tar").display().to_string();
    for round in 0..4 {
        let value = format!("value {round}");
        bench.ok(&["annotate", "a.tar", &format!("k={value}")]);
        let round = format!("{}-{round}", name.replace(['/', '.'], "-"));
        for (program, found) in seen(&peers, &archive, &round) {
            assert_eq!(found.as_ref(), Some(&value), "{program} on {name}");
        }
    }
    let storage = format!("--root {0}/r --runroot {0}/rr", peers.path("").display());
    let options = "--storage-driver vfs --cgroup-manager cgroupfs --events-backend none";
    let loaded = peers.ok(&format!("podman {storage} {options} load -q -i {archive}"));
    let image = loaded.split_whitespace().last().unwrap().to_owned();
    let facts = json(&peers.ok(&format!("podman {storage} {options} image inspect {image}")));
    assert_eq!(facts[0]["Annotations"]["k"], "value 3", "podman on {name}");
    // crane reads only archives with a manifest.json.
    let layout = peers.path("crane-layout");
    let _ = fs::remove_dir_all(&layout);
    fs::create_dir(&layout).unwrap();
    peers.ok(&format!("tar -xf {archive} -C {}", layout.display()));
    let registry = peers.distribution("registry");
    let reference = format!("{}/app:1", registry.address.replace("127.0.0.1", "localhost"));
    peers.ok(&format!("crane push {} {reference}", layout.display()));
    let manifest = json(&peers.ok(&format!("crane manifest {reference}")));
    assert_eq!(manifest["annotations"]["k"], "value 3", "crane on {name}");
}

#[test]
fn all_tools_read_an_archive_of_buildkit() {
    all_tools_read("buildkit-single/image.tar");
}

#[test]
fn all_tools_read_an_archive_of_buildkit_for_docker() {
    all_tools_read("buildkit-docker/image.tar");
}

#[test]
fn all_tools_read_an_archive_of_podman() {
    all_tools_read("archive-podman/image.tar");
}

#[test]
fn all_tools_read_an_archive_of_regctl() {
    all_tools_read("archive-regctl/image.tar");
}

/// Kills an edit of an archive after different times; what is left holds the old or the new annotation.
fn all_tools_read_after_killed_edits(name: &str) {
    let Some(peers) = Peers::find(&READERS) else { return };
    let bench: Bench = bench();
    fs::copy(testdata(name), bench.path("a.tar")).unwrap();
    let archive = bench.path("a.tar").display().to_string();
    bench.ok(&["annotate", "a.tar", "k=0"]);
    for round in 1_u64..=25 {
        let before = bench.ok(&["inspect", "--raw", "a.tar"]);
        let mut child =
            bench.command(&["annotate", "a.tar", &format!("k={round}")]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * round * 17 % 9_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let old = json(&before);
        let possible = [old["annotations"]["k"].as_str().unwrap().to_owned(), round.to_string()];
        let left = bench.json(&["inspect", "--raw", "a.tar"]);
        assert!(possible.iter().any(|value| left["annotations"]["k"] == **value), "{left} of {possible:?}");
        // The other programs read every third archive.
        if round % 3 != 0 {
            continue;
        }
        let label = format!("{}-{round}", name.replace(['/', '.'], "-"));
        for (program, found) in seen(&peers, &archive, &label) {
            assert!(possible.contains(found.as_ref().unwrap()), "{program} on {name}: {found:?} of {possible:?}");
        }
    }
}

// index.json at the end and at the start of the archive, which are edited in different ways.

#[test]
fn all_tools_read_an_archive_of_buildkit_after_killed_edits() {
    all_tools_read_after_killed_edits("buildkit-docker/image.tar");
}

#[test]
fn all_tools_read_an_archive_of_regctl_after_killed_edits() {
    all_tools_read_after_killed_edits("archive-regctl/image.tar");
}

#[test]
fn a_four_gigabyte_archive_is_annotated_in_place() {
    let Some(peers) = Peers::find(&["skopeo", "oras", "tar"]) else { return };
    let bench = bench();
    write_archive(&bench.path("a.tar"), Archive { layers: 4, size: 1 << 30, valid_digests: false });
    bench.ok(&["annotate", "a.tar", "k=v"]);
    let archive = bench.path("a.tar").display().to_string();
    let digest = digest_for_oras(&peers, &archive);
    let manifest = json(&peers.ok(&format!("oras manifest fetch --oci-layout {archive}{digest}")));
    assert_eq!(manifest["annotations"]["k"], "v");
    let blocks = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(bench.path("a.tar")).unwrap().blocks()
    };
    assert!(blocks * 512 < 1 << 20, "its holes are not filled: nothing was copied");
}

/// What keeps changes from being lost is that the tag is read before and after.
#[test]
fn changes_of_one_tag_are_not_lost_in_other_registries() {
    let Some(peers) = Peers::find(&["registry", "olareg"]) else { return };
    for registry in [peers.distribution("registry"), peers.olareg()] {
        let reference = format!("{}/app:1", registry.address.replace("127.0.0.1", "localhost"));
        crate::concurrent::six_writers(&bench(), &reference);
    }
}
