//! Archives and layouts: docker archives, compression, pipes, `--append` and shared blobs.

use std::fs;
use std::path::Path;
use std::process::Command;

use ocikit_archive::TarIndex;
use ocikit_tests::{attested, fixture, multi, run, single, testdata};
use serde_json::Value;

use crate::bench;

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
    let source = attested();
    bench.ok(&["copy", &source, "docker-archive:here.tar:app"]);
    bench.ok(&["copy", "--docker=linux/arm64", &source, "docker-archive:there.tar:app"]);
    assert_eq!(bench.ok(&["kind", "there.tar"]), "image");
    let platform = |archive: &str| {
        let facts = bench.json(&["inspect", "--json", archive]);
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
    let source = multi();
    for name in ["a.tar.gz", "a.tgz", "a.tar.zst"] {
        bench.ok(&["copy", &source, name]);
        let outcome = bench.ocikit(&["digest", name]);
        assert_eq!(outcome.stdout.trim(), bench.ok(&["digest", &source]));
        assert!(outcome.stderr.contains("decompressing"), "{outcome}");
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
    let (one, two) = (single(), multi());
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
    let source = single();
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

/// Writes two archives with a different image each, `one.tar` and `two.tar`.
fn two_images(bench: &ocikit_tests::Bench) {
    for name in ["one", "two"] {
        let layer = ocikit_tests::Tar::new().file("f", name.as_bytes()).finish();
        let image = bench.path("image.tar");
        ocikit_tests::write_image(&image, ocikit_tests::Compression::Gzip, &[layer]);
        bench.ok(&["copy", "image.tar", &format!("oci:{name}:{name}")]);
        bench.ok(&["copy", &format!("oci:{name}:{name}"), &format!("{name}.tar")]);
    }
}

/// Adds the blobs and the `manifest.json` of one archive to the end of another, which keeps its `index.json`.
fn add_docker_list(archive: &Path, from: &Path) {
    let (mut bytes, added) = (fs::read(archive).unwrap(), fs::read(from).unwrap());
    bytes.truncate(TarIndex::read(&bytes).unwrap().end().start as usize);
    let index = TarIndex::read(&added).unwrap();
    let is_added = |name: &str| name == "manifest.json" || name.starts_with("blobs/sha256/");
    for entry in index.entries().iter().filter(|entry| entry.name.as_deref().is_some_and(is_added)) {
        bytes.extend(&added[entry.start as usize..entry.end() as usize]);
    }
    bytes.extend([0; 1024]);
    fs::write(archive, bytes).unwrap();
}

#[test]
fn an_archive_with_another_image_for_docker_is_not_verified() {
    let bench = bench();
    two_images(&bench);
    bench.ok(&["keygen", "--unencrypted", "-o", "k"]);
    bench.ok(&["sign", "--key", "k.key", "one.tar"]);
    bench.ok(&["verify", "--key", "k.pub", "one.tar"]);
    add_docker_list(&bench.path("one.tar"), &bench.path("two.tar"));
    for line in [&["verify", "--key", "k.pub", "one.tar"][..], &["validate", "one.tar"]] {
        let outcome = bench.ocikit(line);
        assert!(outcome.code == 5 && outcome.to_string().contains("which is not in `index.json`"), "{outcome}");
    }
    // The original list is read, and what is written has equal lists.
    bench.ok(&["copy", "one.tar", "copied.tar"]);
    bench.ok(&["annotate", "one.tar", "k=v"]);
    for archive in ["one.tar", "copied.tar"] {
        bench.ok(&["validate", archive]);
        let listed = items(&fs::read(bench.path(archive)).unwrap());
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    }
    bench.ok(&["verify", "--key", "k.pub", "copied.tar"]);
}

#[test]
fn a_deleted_image_is_not_loaded_by_docker() {
    let bench = bench();
    two_images(&bench);
    bench.ok(&["copy", "--append", "oci:two:two", "one.tar"]);
    let before = items(&fs::read(bench.path("one.tar")).unwrap());
    assert_eq!(before.as_array().unwrap().len(), 2, "{before}");
    bench.ok(&["delete", "one.tar#one"]);
    bench.ok(&["gc", "one.tar"]);
    let after = items(&fs::read(bench.path("one.tar")).unwrap());
    assert_eq!(after.as_array().unwrap().as_slice(), &before.as_array().unwrap()[1..]);
    let outcome = bench.ocikit(&["validate", "one.tar"]);
    assert!(outcome.code == 0 && !outcome.to_string().contains("nreferenced"), "{outcome}");
}

#[test]
fn archives_of_docker_and_buildkit_have_equal_lists() {
    let bench = bench();
    for name in ["buildkit-docker/image.tar", "docker-archive/moby-containerd.tar", "docker-archive/moby-two.tar"] {
        let original = fs::read(testdata(name)).unwrap();
        bench.write("a.tar", &original);
        let outcome = bench.ocikit(&["validate", "a.tar"]);
        assert!(!outcome.to_string().contains("not in `index.json`"), "{name}: {outcome}");
        if TarIndex::read(&original).unwrap().file("index.json").is_none() {
            continue;
        }
        // An edit that does not concern the list keeps it byte for byte.
        let tags = bench.ok(&["tags", "a.tar"]);
        let first = tags.split_whitespace().next().unwrap();
        bench.ok(&["annotate", &format!("a.tar#{first}"), "k=v"]);
        let edited = fs::read(bench.path("a.tar")).unwrap();
        assert_eq!(items(&edited), items(&original), "{name}");
    }
}

#[test]
fn a_docker_archive_is_not_changed_in_place() {
    let bench = bench();
    bench.ok(&["keygen", "--unencrypted", "-o", "k"]);
    fs::copy(testdata("docker-archive/podman.tar"), bench.path("a.tar")).unwrap();
    for line in [
        &["annotate", "a.tar", "k=v"][..],
        &["sign", "--key", "k.key", "a.tar"],
        &["gc", "a.tar"],
        &["delete", "a.tar#x"],
    ] {
        let outcome = bench.ocikit(line);
        assert!(outcome.code == 1 && outcome.stderr.contains("`ocikit copy a.tar oci.tar`"), "{outcome}");
    }
}

/// docker reads zstd layers from version 23 on.
#[test]
fn zstd_layers_in_a_docker_archive_have_a_warning() {
    use ocikit_tests::{Compression, Tar, write_image};

    let bench = bench();
    for (name, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        write_image(&bench.path(name), compression, &[Tar::new().file("a", b"1").finish()]);
    }
    let warnings = |line: &[&str]| {
        let outcome = bench.ocikit(line);
        assert_eq!(outcome.code, 0, "{line:?}: {outcome}");
        outcome.stderr.matches("which docker before version 23 cannot load").count()
    };
    for (line, wanted) in [
        (&["copy", "oci:gzip:1", "docker-archive:a.tar"][..], 0),
        (&["copy", "oci:zstd:1", "docker-archive:a.tar"], 1),
        (&["copy", "--dry-run", "oci:zstd:1", "docker-archive:new.tar"], 1),
        (&["copy", "oci:zstd:1", "docker-archive:a.tar:app:1", "docker-archive:a.tar:app:2"], 1),
        (&["copy", "oci:zstd:1", "oci:other:1", "oci-archive:other.tar"], 0),
        (&["annotate", "oci:zstd:1", "a=b", "-o", "docker-archive:a.tar"], 1),
        (&["recompress", "--compression", "gzip", "oci:zstd:1", "-o", "docker-archive:a.tar"], 0),
        (&["convert", "--to", "zstd-chunked", "oci:gzip:1", "-o", "docker-archive:a.tar"], 1),
    ] {
        assert_eq!(warnings(line), wanted, "{line:?}");
    }
}
