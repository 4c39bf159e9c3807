//! `unpack`, `export` and `repack`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use ocikit_archive::Compression;
use ocikit_image::testing::Tar;
use ocikit_tests::{Bench, write_image};
use serde_json::Value;

use crate::bench;

fn layers() -> Vec<Vec<u8>> {
    let passwd = b"root:x:0:0::/root:/bin/sh\n";
    let lower = Tar::new()
        .modified(7)
        .directory("etc")
        .file("etc/motd", b"old")
        .file("etc/passwd", passwd)
        .link("etc/motd2", "etc/motd");
    let upper = Tar::new().modified(8).file("etc/motd", b"new").symlink("link", "/etc/motd").file("gone/.wh.x", b"");
    vec![lower.finish(), upper.finish()]
}

/// Returns a bench with an image. Without the privileges of root, owners are recorded.
fn with_image() -> (Bench, &'static [&'static str]) {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    let is_root = fs::metadata(bench.path("a.tar")).unwrap().uid() == 0;
    (bench, if is_root { &[] } else { &["--rootless"] })
}

#[test]
fn an_image_is_unpacked_to_a_new_directory() {
    let (bench, owners) = with_image();
    assert_eq!(bench.ok(&[&["unpack", "a.tar", "rootfs"], owners].concat()), "rootfs");
    assert_eq!(fs::read(bench.path("rootfs/etc/motd")).unwrap(), b"new");
    assert_eq!(fs::read(bench.path("rootfs/etc/motd2")).unwrap(), b"old");
    assert_eq!(fs::read_link(bench.path("rootfs/link")).unwrap().to_str(), Some("/etc/motd"));
    assert_eq!(fs::symlink_metadata(bench.path("rootfs/etc/motd")).unwrap().mtime(), 8);
    let again = bench.ocikit(&[&["unpack", "a.tar", "rootfs"], owners].concat());
    assert_eq!(again.code, 1, "{again}");
    assert!(again.stderr.contains("name a new or an empty directory"), "{again}");
    assert_eq!(bench.names(), ["a.tar", "rootfs"]);
}

#[test]
fn a_failed_unpack_leaves_nothing() {
    let bench = bench();
    let layer = Tar::new().file("a", b"x").link("b", "missing").finish();
    write_image(&bench.path("a.tar"), Compression::Gzip, &[layer]);
    let outcome = bench.ocikit(&["unpack", "--rootless", "a.tar", "rootfs"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("hard link to a missing file"), "{outcome}");
    assert_eq!(bench.names(), ["a.tar"]);
}

#[test]
fn a_bundle_without_changes_is_repacked_to_the_same_image() {
    let (bench, owners) = with_image();
    bench.ok(&[&["unpack", "--bundle", "a.tar", "bundle"], owners].concat());
    let config: Value = serde_json::from_slice(&fs::read(bench.path("bundle/config.json")).unwrap()).unwrap();
    assert_eq!(config["root"]["path"], "rootfs");
    let before = bench.ok(&["digest", "a.tar"]);
    assert_eq!(bench.ok(&["repack", "bundle", "a.tar"]), before, "nothing changed");
    fs::remove_file(bench.path("bundle/rootfs/link")).unwrap();
    fs::write(bench.path("bundle/rootfs/added"), "x").unwrap();
    let after = bench.ok(&["repack", "bundle", "a.tar", "-o", "b.tar"]);
    assert_ne!(after, before);
    bench.ok(&[&["unpack", "b.tar", "again"], owners].concat());
    assert_eq!(fs::read(bench.path("again/added")).unwrap(), b"x");
    assert!(fs::symlink_metadata(bench.path("again/link")).is_err());
    let entries = bench.ok(&["ls", "--layer", "2", "b.tar"]);
    assert!(entries.contains(".wh.link") || entries.contains("link"), "{entries}");
    // A directory without records is compared with the image.
    bench.ok(&[&["unpack", "a.tar", "plain"], owners].concat());
    assert_eq!(bench.ok(&[&["repack", "plain", "a.tar"], owners].concat()), before);
}

#[test]
fn an_export_holds_the_merged_files() {
    let (bench, _) = with_image();
    bench.ok(&["export", "a.tar", "-o", "rootfs.tar"]);
    let tar = fs::read(bench.path("rootfs.tar")).unwrap();
    assert_eq!(bench.command(&["export", "a.tar"]).output().unwrap().stdout, tar, "standard output has the same bytes");
    assert!(tar.starts_with(b"etc/\0"), "there is no entry for a root that no layer describes");
    write_image(&bench.path("flat.tar"), Compression::None, &[tar]);
    let files = |archive: &str| -> Vec<String> {
        let lines = bench.ok(&["ls", "--json", archive]);
        let entries = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries.map(|entry| format!("{} {} {}", entry["path"], entry["type"], entry["size"])).collect()
    };
    assert_eq!(files("a.tar"), files("flat.tar"));
    assert_eq!(bench.ok(&["cat", "flat.tar", "/etc/motd2"]), "old");
}
