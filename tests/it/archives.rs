//! Archives and layouts: docker archives, compression, pipes, `--append` and shared blobs.

use std::fs;
use std::process::Command;

use ocikit_archive::TarIndex;
use ocikit_tests::{run, testdata};
use serde_json::Value;

use crate::bench;

fn fixture(name: &str) -> String {
    testdata(name).display().to_string()
}

/// Returns the `manifest.json` of a docker archive.
fn items(bytes: &[u8]) -> Value {
    let span = TarIndex::read(bytes).unwrap().file("manifest.json").unwrap();
    serde_json::from_slice(&bytes[span.offset as usize..][..span.size as usize]).unwrap()
}

#[test]
fn docker_archive_is_converted_to_oci_and_back() {
    let bench = bench();
    for name in ["docker20-tags.tar", "podman.tar", "skopeo.tar", "crane.tar", "moby-tags.tar"] {
        let source = fixture(&format!("docker-archive/{name}"));
        bench.ok(&["copy", &source, "oci.tar"]);
        assert_eq!(bench.ok(&["digest", "oci.tar"]), bench.ok(&["digest", &source]), "{name}");
        bench.ok(&["copy", "oci.tar", "docker-archive:docker.tar:acme/back:2"]);
        assert_eq!(bench.ok(&["digest", "docker.tar"]), bench.ok(&["digest", &source]), "{name}");
        let items = items(&fs::read(bench.path("docker.tar")).unwrap());
        assert_eq!(items[0]["RepoTags"][0], "docker.io/acme/back:2", "{name}");
    }
}

#[test]
fn docker_archive_holds_one_platform() {
    let bench = bench();
    let source = fixture("buildkit-attested/multi.tar");
    bench.ok(&["copy", &source, "docker-archive:here.tar:app"]);
    bench.ok(&["copy", "--docker=linux/arm64", &source, "docker-archive:there.tar:app"]);
    assert_eq!(bench.ok(&["kind", "there.tar"]), "image");
    let platform = |archive: &str| {
        let facts: Value = serde_json::from_str(&bench.ok(&["inspect", "--json", archive])).unwrap();
        facts["platform"]["architecture"].clone()
    };
    assert_eq!(platform("there.tar"), "arm64");
    assert_ne!(bench.ok(&["digest", "here.tar"]), bench.ok(&["digest", "there.tar"]));
    assert_eq!(items(&fs::read(bench.path("there.tar")).unwrap())[0]["RepoTags"][0], "docker.io/library/app:latest");
    // An OCI archive of an index has all platforms; its `manifest.json` for docker lists the selected one.
    bench.ok(&["copy", "--docker=linux/arm64", &source, "all.tar"]);
    assert_eq!(bench.ok(&["digest", "all.tar"]), bench.ok(&["digest", &source]));
    let bytes = fs::read(bench.path("all.tar")).unwrap();
    let config = items(&bytes)[0]["Config"].as_str().unwrap().to_owned();
    let span = TarIndex::read(&bytes).unwrap().file(&config).unwrap();
    let config: Value = serde_json::from_slice(&bytes[span.offset as usize..][..span.size as usize]).unwrap();
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(bench.ocikit(&["copy", "--docker=linux/s390x", &source, "docker-archive:none.tar"]).code, 3);
    assert!(!bench.path("none.tar").exists());
}

#[test]
fn compressed_archives_are_read_and_written() {
    let bench = bench();
    let source = fixture("buildkit-multi/image.tar");
    for name in ["a.tar.gz", "a.tgz", "a.tar.zst"] {
        bench.ok(&["copy", &source, name]);
        let outcome = bench.ocikit(&["digest", name]);
        assert_eq!(outcome.stdout.trim(), bench.ok(&["digest", &source]));
        assert!(outcome.stderr.contains("unpacking"), "{outcome}");
        let outcome = bench.ocikit(&["annotate", name, "k=v"]);
        assert!(outcome.code == 1 && outcome.stderr.contains("in place"), "{outcome}");
        bench.ok(&["annotate", name, "k=v", "-o", &format!("annotated-{name}")]);
        let outcome = bench.ocikit_with_input(&["copy", "-", "piped.tar"], &fs::read(bench.path(name)).unwrap());
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!(bench.ok(&["digest", "piped.tar"]), bench.ok(&["digest", &source]));
    }
    assert_eq!(bench.names().len(), 7, "{:?}", bench.names());
    // Other programs can decompress the archive.
    let listed = run(Command::new("tar").args(["-tzf", "a.tar.gz"]).current_dir(bench.path("")), &[]);
    assert!(listed.stdout.contains("index.json"), "{listed}");
}

#[test]
fn docker_archive_is_read_from_a_pipe() {
    let bench = bench();
    for name in ["docker20-tags.tar", "podman.tar", "crane.tar", "moby-tags.tar"] {
        let source = fixture(&format!("docker-archive/{name}"));
        let outcome = bench.ocikit_with_input(&["copy", "-", "out.tar"], &fs::read(&source).unwrap());
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!(bench.ok(&["digest", "out.tar"]), bench.ok(&["digest", &source]), "{name}");
    }
    assert_eq!(bench.names(), ["out.tar"]);
}

#[test]
fn append_adds_images_to_an_archive() {
    let bench = bench();
    let (one, two) = (fixture("buildkit-single/image.tar"), fixture("buildkit-multi/image.tar"));
    bench.ok(&["copy", &one, "oci-archive:both.tar:one"]);
    bench.ok(&["copy", "--append", &two, "oci-archive:both.tar:two"]);
    assert_eq!(bench.ok(&["digest", "both.tar#one"]), bench.ok(&["digest", &one]));
    assert_eq!(bench.ok(&["digest", "both.tar#two"]), bench.ok(&["digest", &two]));
    let size = fs::metadata(bench.path("both.tar")).unwrap().len();
    bench.ok(&["copy", "--append", &two, "oci-archive:both.tar:two"]);
    assert_eq!(fs::metadata(bench.path("both.tar")).unwrap().len(), size, "the image already exists");
    // The appended image is complete.
    bench.ok(&["copy", "both.tar#two", "oci:layout:two"]);
    // A docker archive stays a docker archive.
    bench.ok(&["copy", &one, "docker-archive:docker.tar:acme/one:1"]);
    bench.ok(&["copy", "--append", &two, "docker-archive:docker.tar:acme/two:1"]);
    let items = items(&fs::read(bench.path("docker.tar")).unwrap());
    assert_eq!(items[0]["RepoTags"][0], "docker.io/acme/one:1");
    assert_eq!(items[1]["RepoTags"][0], "docker.io/acme/two:1");
    bench.ok(&["copy", &one, "oci-archive:both.tar:one"]);
    assert_eq!(bench.ocikit(&["digest", "both.tar#two"]).code, 3, "without `--append` the archive is replaced");
}

#[test]
fn layouts_can_share_a_blob_directory() {
    let bench = bench();
    let source = fixture("buildkit-single/image.tar");
    bench.ok(&["copy", "--shared-blobs", "blobs", &source, "oci:one:1"]);
    bench.ok(&["copy", "--shared-blobs", "blobs", &source, "oci:two:2"]);
    assert!(!bench.path("one/blobs").exists() && bench.path("blobs/sha256").is_dir());
    assert_eq!(bench.ok(&["digest", "--shared-blobs", "blobs", "oci:two:2"]), bench.ok(&["digest", &source]));
    bench.ok(&["copy", "--shared-blobs", "blobs", "oci:two:2", "back.tar"]);
    assert_eq!(bench.ocikit(&["inspect", "oci:two:2"]).code, 3, "the layout alone has no blobs");
}

#[test]
fn an_appended_image_takes_the_tag_that_it_brings() {
    let bench = bench();
    for (name, content) in [("one", b"1"), ("two", b"2")] {
        let layer = ocikit_tests::Tar::new().file("f", content).finish();
        ocikit_tests::write_image(&bench.path(&format!("{name}.tar")), ocikit_tests::Compression::Gzip, &[layer]);
        bench.ok(&["copy", &format!("{name}.tar"), &format!("oci:{name}:1")]);
    }
    bench.ok(&["copy", "oci:one:1", "a.tar"]);
    bench.ok(&["copy", "--append", "oci:two:1", "a.tar"]);
    assert_eq!(bench.ok(&["digest", "a.tar#1"]), bench.ok(&["digest", "oci:two:1"]));
    bench.ok(&["validate", "a.tar"]);
}
