//! Changes of images that have a lazily pulled format, and options of `convert` that have no effect.

use ocikit_archive::Compression;
use ocikit_image::testing::{Tar, random};
use ocikit_tests::{Bench, write_image};
use serde_json::Value;

use crate::bench;

/// Writes a plain image, and a directory with a file to add.
fn image(bench: &Bench) {
    let lower = Tar::new().directory("etc").file("etc/motd", b"hello").finish();
    let upper = Tar::new().file("noise", &random(3, 20_000)).finish();
    write_image(&bench.path("app"), Compression::Gzip, &[lower, upper]);
    std::fs::create_dir(bench.path("more")).unwrap();
    bench.write("more/file", "x");
}

fn index(bench: &Bench, location: &str) -> Value {
    bench.json(&["manifest", "get", location])
}

/// A changed layer beside the bootstrap would make an image that nothing can read.
#[test]
fn layers_of_a_nydus_image_cannot_be_changed() {
    let bench = bench();
    image(&bench);
    bench.ok(&["convert", "--to", "nydus", "oci:app:1", "-o", "oci:nydus:1"]);
    bench.ok(&["convert", "--to", "nydus", "--placement", "index", "oci:app:1", "-o", "oci:mixed:1"]);
    bench.ok(&["unpack", "--bundle", "oci:nydus:1", "bundle"]);
    bench.write("bundle/rootfs/etc/motd", "other");
    for line in [
        &["append", "oci:nydus:1", "more"][..],
        &["append", "oci:nydus:1", "--remove-layer", "1"],
        &["append", "oci:nydus:1", "--delete", "noise"],
        &["append", "oci:mixed:1", "more"],
        &["append", "oci:mixed:1", "more", "--platform", "linux/amd64"],
        &["flatten", "oci:nydus:1"],
        &["recompress", "--compression", "zstd", "oci:nydus:1"],
        &["normalize", "--time", "0", "oci:nydus:1"],
        &["rebase", "oci:app:1", "--old-base", "oci:app:1", "--new-base", "oci:nydus:1"],
        &["repack", "bundle", "oci:nydus:1"],
    ] {
        let outcome = bench.ocikit(&[line, &["-o", "oci:changed:1"]].concat());
        assert_ne!(outcome.code, 0, "{line:?}: {outcome}");
        assert!(
            outcome.stderr.contains("hint: convert it first with `ocikit convert --to plain`"),
            "{line:?}: {outcome}"
        );
        assert!(!bench.path("changed").join("index.json").exists(), "{line:?}");
    }
    // Annotations and configs are no layers, and the Nydus image stays that of the plain one.
    bench.ok(&["edit", "oci:mixed:1", "--label", "a=b"]);
    bench.ok(&["validate", "oci:mixed:1"]);
    let mixed = index(&bench, "oci:mixed:1");
    let source = &mixed["manifests"][1]["annotations"]["containerd.io/snapshot/nydus-source-digest"];
    assert_eq!(*source, mixed["manifests"][0]["digest"]);
    // All layers can be replaced.
    bench.ok(&["convert", "--to", "plain", "oci:mixed:1"]);
    bench.ok(&["append", "oci:mixed:1", "more"]);
    assert_eq!(bench.ok(&["cat", "oci:mixed:1", "file"]), "x");
}

/// An image whose files are all empty has a bootstrap and no blobs. The content of the layer decides, not its annotation.
#[test]
fn a_nydus_image_without_blobs_is_no_plain_one() {
    let bench = bench();
    let tar = Tar::new().directory("etc").file("etc/empty", b"").finish();
    write_image(&bench.path("empty"), Compression::Gzip, std::slice::from_ref(&tar));
    std::fs::create_dir(bench.path("more")).unwrap();
    std::fs::write(bench.path("more/file"), "x").unwrap();
    let changes = [
        &["append", "oci:nydus:1", "more"][..],
        &["flatten", "oci:nydus:1"],
        &["recompress", "--compression", "zstd", "oci:nydus:1"],
        &["normalize", "--time", "0", "oci:nydus:1"],
        &["rebase", "oci:empty:1", "--old-base", "oci:empty:1", "--new-base", "oci:nydus:1"],
        &["convert", "--to", "docker", "--drop-unsupported", "oci:nydus:1"],
        &["convert", "--to", "estargz", "oci:nydus:1"],
    ];
    for version in ["5", "6"] {
        bench.ok(&["convert", "--to", "nydus", "--rafs-version", version, "oci:empty:1", "-o", "oci:nydus:1"]);
        assert_eq!(index(&bench, "oci:nydus:1")["layers"].as_array().unwrap().len(), 1);
        let to_docker = bench.ocikit(&["copy", "oci:nydus:1", "docker-archive:docker.tar"]);
        let changed = changes.iter().map(|line| bench.ocikit(&[line, &["-o", "oci:changed:1"][..]].concat()));
        for outcome in changed.chain([to_docker]) {
            assert_ne!(outcome.code, 0, "{outcome}");
            assert!(outcome.stderr.contains("format of Nydus"), "{outcome}");
        }
        bench.ok(&["copy", "oci:nydus:1", "oci-archive:nydus.tar"]);
        let shown = bench.ok(&["inspect", "nydus.tar"]);
        assert!(shown.contains(&format!("nydus-bootstrap-v{version}")), "{shown}");
        bench.ok(&["validate", "nydus.tar"]);
        bench.ok(&["diff", "oci:empty:1", "nydus.tar"]);
        assert_eq!(bench.ok(&["ls", "nydus.tar"]), bench.ok(&["ls", "oci:empty:1"]));
        bench.ok(&["convert", "--to", "nydus", "oci:nydus:1", "-o", "oci:same:1"]);
        assert_eq!(bench.ok(&["digest", "oci:same:1"]), bench.ok(&["digest", "oci:nydus:1"]));
        bench.ok(&["convert", "--to", "plain", "oci:nydus:1", "-o", "oci:back:1"]);
        assert_eq!(bench.ok(&["ls", "oci:back:1"]), bench.ok(&["ls", "oci:empty:1"]));
        for path in ["nydus.tar", "nydus", "same"] {
            let path = bench.path(path);
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }
    // A plain layer with the annotation of a bootstrap can be changed.
    let mut manifest = index(&bench, "oci:empty:1");
    manifest["layers"][0]["annotations"]["containerd.io/snapshot/nydus-bootstrap"] = "true".into();
    std::fs::write(bench.path("manifest.json"), manifest.to_string()).unwrap();
    bench.ok(&["manifest", "put", "manifest.json", "oci:empty:1"]);
    bench.ok(&["append", "oci:empty:1", "more", "-o", "oci:changed:1"]);
    bench.ok(&["flatten", "oci:changed:1"]);
    bench.ok(&["copy", "oci:empty:1", "docker-archive:docker.tar"]);
}

/// A SOCI index is one of certain layers.
#[test]
fn a_soci_index_of_other_layers_is_dropped() {
    let bench = bench();
    image(&bench);
    let to_soci = ["convert", "--to", "soci", "--min-layer-size=0"];
    bench.ok(&[&to_soci[..], &["oci:app:1", "-o", "oci:soci:1"]].concat());
    for line in [
        &["flatten", "oci:soci:1"][..],
        &["recompress", "--compression", "gzip", "--level", "9", "oci:soci:1"],
        &["append", "oci:soci:1", "more"],
        &["append", "oci:soci:1", "--remove-layer", "1"],
        &["convert", "--to", "estargz", "oci:soci:1"],
    ] {
        let outcome = bench.ocikit(&[line, &["-o", "oci:changed:1"]].concat());
        assert_eq!(outcome.code, 0, "{line:?}: {outcome}");
        assert!(outcome.stderr.contains("warning: dropped the SOCI index of 1 image"), "{line:?}: {outcome}");
        assert_eq!(index(&bench, "oci:changed:1")["manifests"].as_array().unwrap().len(), 1, "{line:?}");
        bench.ok(&["validate", "oci:changed:1"]);
        assert!(!bench.ok(&["manifest", "get", "oci:changed:1", "--platform", "linux/amd64"]).contains("soci"));
        bench.ok(&[&to_soci[..], &["oci:changed:1", "-o", "oci:again:1"]].concat());
        assert_eq!(index(&bench, "oci:again:1")["manifests"].as_array().unwrap().len(), 2, "{line:?}");
        bench.ok(&["validate", "oci:again:1"]);
        std::fs::remove_dir_all(bench.path("changed")).unwrap();
        std::fs::remove_dir_all(bench.path("again")).unwrap();
    }
    // The layers stay, and with them the index.
    let outcome = bench.ocikit(&["edit", "oci:soci:1", "--label", "a=b"]);
    assert!(outcome.code == 0 && !outcome.stderr.contains("SOCI"), "{outcome}");
    let edited = index(&bench, "oci:soci:1");
    let about = &edited["manifests"][1]["annotations"]["com.amazon.soci.image-manifest-digest"];
    assert_eq!(*about, edited["manifests"][0]["digest"]);
    bench.ok(&["validate", "oci:soci:1"]);
}

/// docker reads neither Nydus images nor artifacts.
#[test]
fn docker_gets_no_lazy_formats() {
    let bench = bench();
    image(&bench);
    bench.ok(&["convert", "--to", "nydus", "oci:app:1", "-o", "oci:nydus:1"]);
    bench.ok(&["convert", "--to", "soci", "--min-layer-size=0", "oci:app:1", "-o", "oci:soci:1"]);
    for line in [
        &["convert", "--to", "docker", "--drop-unsupported", "oci:nydus:1", "-o", "oci:docker:1"][..],
        &["copy", "oci:nydus:1", "docker-archive:docker.tar"],
    ] {
        let outcome = bench.ocikit(line);
        assert_ne!(outcome.code, 0, "{line:?}: {outcome}");
        assert!(outcome.stderr.contains("hint: convert it first with `ocikit convert --to plain`"), "{outcome}");
    }
    assert!(!bench.path("docker.tar").exists());
    bench.ok(&["copy", "oci:nydus:1", "oci-archive:nydus.tar"]);
    bench.ok(&["validate", "nydus.tar"]);
    assert_ne!(bench.ocikit(&["convert", "--to", "docker", "oci:soci:1", "-o", "oci:docker:1"]).code, 0);
    bench.ok(&["convert", "--to", "docker", "--drop-unsupported", "oci:soci:1", "-o", "oci:docker:1"]);
    assert_eq!(index(&bench, "oci:docker:1")["manifests"].as_array().unwrap().len(), 1);
    bench.ok(&["validate", "oci:docker:1"]);
}

#[test]
fn options_without_effect_are_refused() {
    let bench = bench();
    image(&bench);
    let before = bench.ok(&["digest", "oci:app:1"]);
    for line in [
        "--to estargz --rafs-version 5",
        "--to nydus --soci-version v1",
        "--to nydus --level 3",
        "--to oci --level 99",
        "--to zstd-chunked --prefetch usr",
        "--to oci --placement index",
        "--to nydus --drop-unsupported",
        "--to soci --compression gzip",
        "--to soci --placement index --soci-version v1",
        "--to nydus --prefetch=",
        "--to estargz --suffix=",
    ] {
        let words: Vec<_> = ["convert", "oci:app:1"].into_iter().chain(line.split(' ')).collect();
        let outcome = bench.ocikit(&words);
        assert_eq!(outcome.code, 2, "{line}: {outcome}");
    }
    assert_eq!(bench.ok(&["digest", "oci:app:1"]), before);
    for line in
        ["build . --rafs-version 5", "build . --lazy estargz --chunk-size 4096", "build . --lazy nydus --lazy-suffix="]
    {
        let outcome = bench.ocikit(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(outcome.code, 2, "{line}: {outcome}");
    }
}
