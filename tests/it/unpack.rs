//! `unpack`, `export` and `repack`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use ocikit_archive::Compression;
use ocikit_image::testing::Tar;
use ocikit_tests::{Bench, Registry, json, write_image};
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
    bench.write("bundle/rootfs/added", "x");
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
        let entries = lines.lines().map(json);
        entries.map(|entry| format!("{} {} {}", entry["path"], entry["type"], entry["size"])).collect()
    };
    assert_eq!(files("a.tar"), files("flat.tar"));
    assert_eq!(bench.ok(&["cat", "flat.tar", "/etc/motd2"]), "old");
}

#[test]
fn an_export_downloads_each_layer_once() {
    let (bench, _) = with_image();
    let registry = Registry::start();
    let remote = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", "a.tar", &remote]);
    registry.clear_requests();
    bench.ok(&["export", &remote, "-o", "remote.tar"]);
    let requests = registry.requests().into_iter().filter(|sent| sent.method == "GET" && sent.path.contains("/blobs/"));
    let mut blobs: Vec<_> = requests.map(|sent| sent.path).collect();
    blobs.sort();
    let count = blobs.len();
    blobs.dedup();
    assert!(count == blobs.len() && count > 1, "{blobs:#?}");
    bench.ok(&["export", "a.tar", "-o", "local.tar"]);
    assert!(fs::read(bench.path("remote.tar")).unwrap() == fs::read(bench.path("local.tar")).unwrap());
}

/// Changes the header that starts at a place of a tar, and its checksum.
fn patch(tar: &mut [u8], at: usize, changes: &[(usize, &[u8])]) {
    let header = &mut tar[at..at + 512];
    for (place, bytes) in changes {
        header[*place..place + bytes.len()].copy_from_slice(bytes);
    }
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A file in the sparse format of GNU with this size, and no data.
fn sparse_bomb(size: u64) -> Vec<u8> {
    let mut tar = Tar::new().entry(b'S', "bomb", "", b"").finish();
    let mut binary = [0; 12];
    binary[0] = 0x80;
    binary[4..].copy_from_slice(&size.to_be_bytes());
    let zero: &[u8] = b"00000000000\0";
    patch(&mut tar, 0, &[(257, b"ustar  \0"), (386, zero), (398, zero), (483, &binary)]);
    tar
}

/// A tar with many empty files.
fn many_files(count: usize) -> Vec<u8> {
    let mut tar = Tar::new().file("files/0000000", b"").finish();
    let end = tar.split_off(512);
    let header = tar.clone();
    for number in 1..count {
        let at = tar.len();
        tar.extend_from_slice(&header);
        patch(&mut tar, at, &[(6, format!("{number:07}").as_bytes())]);
    }
    tar.extend_from_slice(&end);
    tar
}

/// Unpacks layers beside a directory `outside` with a file, with every command that writes files. Returns the first error.
///
/// Nothing but the target may appear or change, and no target may appear after an error.
fn unpack_hostile(layers: &[Vec<u8>], code: i32) -> (Bench, String) {
    let (bench, owners) = with_image();
    write_image(&bench.path("b.tar"), Compression::Gzip, layers);
    fs::create_dir(bench.path("outside")).unwrap();
    bench.write("outside/file", "kept");
    let mut errors = Vec::new();
    for (options, target) in [
        (owners, "rootfs"),
        (&["--rootless"], "mine"),
        (&["--bundle", "--rootless"], "bundle"),
        (&["--sparse", "--rootless"], "sparse"),
    ] {
        let line = [&["--progress", "none", "unpack", "b.tar", target], options].concat();
        let (outcome, cost) = crate::hostile::run_measured(&bench, &line);
        assert_eq!(outcome.code, code, "{line:?}: {outcome}");
        assert!(cost.kibibytes < 200 << 10, "{line:?}: {} KiB", cost.kibibytes);
        assert_eq!(bench.path(target).exists(), code == 0, "{line:?}");
        errors.push(outcome.stderr);
    }
    let mut expected = vec!["a.tar", "b.tar", "outside"];
    if code == 0 {
        expected.extend(["bundle", "mine", "rootfs", "sparse"]);
    }
    expected.sort_unstable();
    assert_eq!(bench.names(), expected, "nothing is left beside the target");
    let outside: Vec<_> = fs::read_dir(bench.path("outside")).unwrap().collect();
    assert_eq!(outside.len(), 1);
    assert_eq!(fs::read(bench.path("outside/file")).unwrap(), b"kept");
    let metadata = fs::metadata(bench.path("outside/file")).unwrap();
    assert_eq!(metadata.nlink(), 1, "no hard link to a file outside");
    (bench, errors.swap_remove(0))
}

#[test]
fn hostile_names_stay_in_the_target() {
    let place = tempfile::tempdir().unwrap();
    let absolute = place.path().display().to_string();
    let layer = Tar::new()
        .file("../outside/escaped", b"1")
        .file("../../outside/file", b"2")
        .file(&format!("{absolute}/written"), b"3")
        .symlink("out", "../outside")
        .file("out/file", b"4")
        .symlink("absolute", &absolute)
        .file("absolute/through", b"5")
        .symlink("target", &format!("{absolute}/target"))
        .file("target", b"6")
        .file("absolute/.wh.through", b"")
        .finish();
    let upper = Tar::new().file("out/again", b"7").file("absolute/upper", b"8").file("out/.wh.file", b"").finish();
    let (bench, _) = unpack_hostile(&[layer, upper], 0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is written through an absolute symlink");
    assert_eq!(fs::read(bench.path("rootfs/target")).unwrap(), b"6");
    assert_eq!(fs::read(bench.path("rootfs/outside/escaped")).unwrap(), b"1");
}

#[test]
fn hostile_hard_links_are_refused() {
    for target in ["../outside/file", "../../../../etc/passwd", "/etc/passwd"] {
        let (_bench, error) = unpack_hostile(&[Tar::new().link("linked", target).finish()], 3);
        assert!(error.contains("hard link to a missing file"), "{error}");
    }
    let through = Tar::new().symlink("out", "../outside").link("linked", "out/file").finish();
    let (_bench, error) = unpack_hostile(&[through], 3);
    assert!(error.contains("hard link to a missing file"), "{error}");
}

#[test]
fn whiteouts_of_the_root_hide_only_files_of_the_image() {
    let lower = Tar::new().file("a", b"a").directory("b").file("b/c", b"c").finish();
    let upper = Tar::new().file(".wh..wh..opq", b"").file("../.wh.outside", b"").file("new", b"n").finish();
    let (bench, _) = unpack_hostile(&[lower.clone(), upper], 0);
    assert_eq!(fs::read_dir(bench.path("rootfs")).unwrap().count(), 1);
    for name in [".wh..", ".wh..."] {
        let (_bench, error) = unpack_hostile(&[lower.clone(), Tar::new().file(name, b"").finish()], 3);
        assert!(error.contains("without a valid name"), "{name}: {error}");
    }
}

#[test]
fn sparse_bombs_take_no_space_or_are_refused() {
    let (bench, _) = with_image();
    write_image(&bench.path("b.tar"), Compression::Gzip, &[sparse_bomb(1 << 40)]);
    bench.ok(&["unpack", "--rootless", "b.tar", "rootfs"]);
    let bomb = fs::metadata(bench.path("rootfs/bomb")).unwrap();
    assert_eq!(bomb.len(), 1 << 40);
    assert!(bomb.blocks() < 100, "{}", bomb.blocks());
    // The records of a bundle have the digest of the file; reading the hole would take hours.
    let outcome = bench.ocikit(&["unpack", "--rootless", "--bundle", "b.tar", "bundle"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(bench.names(), ["a.tar", "b.tar", "rootfs"]);
    let (_bench, error) = unpack_hostile(&[sparse_bomb(1 << 50)], 3);
    assert!(error.contains("a sparse file claims"), "{error}");
}

/// More take long on a slow disk. The number of files is bounded by their paths, see the tests of `archive::unpack`.
const FILES: usize = 40_000;

#[test]
fn many_files_are_unpacked_or_refused_within_the_memory_limit() {
    let (bench, owners) = with_image();
    write_image(&bench.path("b.tar"), Compression::Gzip, &[many_files(FILES)]);
    let (outcome, cost) = crate::hostile::run_measured(&bench, &[&["unpack", "b.tar", "rootfs"], owners].concat());
    assert!(cost.kibibytes < 200 << 10, "{} KiB", cost.kibibytes);
    match outcome.code {
        0 => assert_eq!(fs::read_dir(bench.path("rootfs/files")).unwrap().count(), FILES),
        code => {
            assert!(code == 1 && outcome.stderr.contains("exceed the limit"), "{outcome}");
            assert_eq!(bench.names(), ["a.tar", "b.tar"]);
        }
    }
}

#[test]
fn devices_need_privileges_or_rootless() {
    let mut layer = Tar::new().file("before", b"x").entry(b'3', "null", "", b"").finish();
    patch(&mut layer, 1024, &[(329, b"0000001\0"), (337, b"0000003\0")]);
    let (bench, owners) = with_image();
    write_image(&bench.path("b.tar"), Compression::Gzip, &[layer]);
    let program = bench.path("program");
    // As root, the program runs as another user, who must be able to read it.
    let mut command = if owners.is_empty() {
        fs::copy(env!("CARGO_BIN_EXE_ocikit-under-test"), &program).unwrap();
        assert!(
            Command::new("chown")
                .args(["-R", "65534:65534", "."])
                .current_dir(bench.path(""))
                .status()
                .unwrap()
                .success()
        );
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_ocikit-under-test"))
    };
    command.current_dir(bench.path("")).env("HOME", bench.path("home")).args(["unpack", "b.tar", "rootfs"]);
    let outcome = ocikit_tests::run(&mut command, &[]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("--rootless"), "{outcome}");
    assert!(!bench.path("rootfs").exists());
    let names = bench.names();
    command.arg("--rootless");
    let outcome = ocikit_tests::run(&mut command, &[]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let null = fs::symlink_metadata(bench.path("rootfs/null")).unwrap();
    assert!(null.is_file() && null.len() == 0, "a device is an empty file");
    assert_eq!(bench.names().len(), names.len() + 1, "nothing is left beside the target");
}
