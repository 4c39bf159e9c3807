//! Files of images, compared with what other programs unpack.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ocikit_tests::{Bench, Compression, Peers, Registry, Tar, fixture, json, testdata, write_image};

use crate::bench;

/// The file at a path: kind, permissions, size or target, time.
type Seen = BTreeMap<String, (String, String, String, i64)>;

/// Layers with whiteouts, opaque directories, symlinks and hard links, and files that replace others.
fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .modified(1_704_067_200)
            .directory("etc")
            .file("etc/passwd", b"root")
            .file("etc/motd", b"hello")
            .link("etc/users", "etc/passwd")
            .directory("usr")
            .directory("usr/lib")
            .file("usr/lib/x", b"x")
            .symlink("lib", "usr/lib")
            .symlink("dangling", "/no/where")
            .directory("var")
            .directory("var/log")
            .file("var/log/a", b"a")
            .directory("var/log/old")
            .file("var/log/old/b", b"b")
            .directory("swap")
            .file("swap/file", b"")
            .file("plain", b"")
            .directory("kept")
            .file("kept/file", b"1")
            .file("/absolute/name", b"")
            .finish(),
        Tar::new()
            .modified(1_704_067_201)
            .file("etc/.wh.motd", b"")
            .directory("var")
            .directory("var/log")
            .file("var/log/c", b"c")
            .file("var/log/.wh..wh..opq", b"")
            .file("swap", b"now a file")
            .directory("plain")
            .file("plain/inside", b"")
            .mode(0o700)
            .directory("kept")
            .file(".wh.dangling", b"")
            .finish(),
        Tar::new()
            .modified(1_704_067_202)
            .file("etc/passwd", b"user")
            .file("etc/motd", b"again")
            .link("etc/greeting", "etc/motd")
            .link("library", "usr/lib/x")
            .directory("lib")
            .file("lib/y", b"y")
            .mode(0o4711)
            .file("twice", b"1")
            .file("twice", b"22")
            .finish(),
    ]
}

/// Returns the output of `ls`.
fn listed(bench: &Bench, location: &str) -> Seen {
    let text = bench.ok(&["ls", "--json", location]);
    let row = |line: &str| {
        let row = json(line);
        let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let kind = word("type");
        let mode = if kind == "symlink" { String::new() } else { word("mode") };
        let detail = if kind == "file" { row["size"].to_string() } else { word("target") };
        let modified = if kind == "directory" { 0 } else { seconds(&word("modified")) };
        (word("path"), (kind, mode, detail, modified))
    };
    text.lines().map(row).collect()
}

/// Parses a time. All fixtures are from one month, so only days are counted.
fn seconds(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    match &text[..8] {
        "1970-01-" => number(8..10) - 1,
        "2024-01-" => 1_704_067_200 + (number(8..10) - 1) * 86_400,
        other => panic!("{other}"),
    }
    .checked_add(number(11..13) * 3600 + number(14..16) * 60 + number(17..19))
    .unwrap()
}

/// Returns the files in a directory.
fn unpacked(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = format!("{:04o}", metadata.permissions().mode() & 0o7777);
            let name = format!("/{}", path.strip_prefix(root).unwrap().display());
            let kind = metadata.file_type();
            let row = if kind.is_dir() {
                waiting.push(path);
                ("directory".to_owned(), mode, String::new(), 0)
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap().display().to_string();
                ("symlink".to_owned(), String::new(), target, metadata.mtime())
            } else if kind.is_file() {
                ("file".to_owned(), mode, metadata.len().to_string(), metadata.mtime())
            } else {
                ("fifo".to_owned(), mode, String::new(), metadata.mtime())
            };
            seen.insert(name, row);
        }
    }
    seen
}

/// Ignores the permissions of directories without an entry, which depend on the umask of the other program.
fn described(listed: &Seen, expected: &mut Seen) {
    if let (Some(listed), Some(expected)) = (listed.get("/absolute"), expected.get_mut("/absolute")) {
        expected.1.clone_from(&listed.1);
    }
}

/// Compares the files of an image in a layout with those that umoci unpacks.
fn compare_with_umoci(peers: &Peers, bench: &Bench, layout: &str, tag: &str, label: &str) {
    let bundle = peers.path(&format!("bundle-{label}"));
    peers.ok(&format!("umoci unpack --rootless --image {layout}:{tag} {}", bundle.display()));
    let root = bundle.join("rootfs");
    let location = format!("oci:{layout}:{tag}");
    let listed = listed(bench, &location);
    let mut expected = unpacked(&root);
    described(&listed, &mut expected);
    assert_eq!(listed, expected, "{label}");
    for (path, (kind, ..)) in &listed {
        if kind == "file" {
            let found = bench.ocikit(&["cat", &location, path]);
            assert_eq!(found.stdout.as_bytes(), fs::read(root.join(&path[1..])).unwrap(), "{label}: {path}");
        }
    }
}

#[test]
fn umoci_unpacks_the_listed_files() {
    let Some(peers) = Peers::find(&["umoci"]) else { return };
    let bench = bench();
    for (compression, label) in [(Compression::None, "plain"), (Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")]
    {
        let layout = peers.path(&format!("layout-{label}"));
        write_image(&layout, compression, &layers());
        compare_with_umoci(&peers, &bench, &layout.display().to_string(), "1", label);
    }
    for (name, tag) in [("layout-umoci", "1"), ("layout-umoci", "latest")] {
        // umoci writes to the layout that it reads.
        let copy = peers.path(&format!("{name}-{tag}"));
        let source = fixture(&format!("{name}/layout"));
        bench.ok(&["copy", &format!("oci:{source}:{tag}"), &format!("oci:{}:{tag}", copy.display())]);
        compare_with_umoci(&peers, &bench, &copy.display().to_string(), tag, &format!("{name}-{tag}"));
    }
}

#[test]
fn crane_exports_the_listed_files() {
    let Some(peers) = Peers::find(&["crane", "tar"]) else { return };
    let (bench, registry) = (bench(), Registry::start());
    // The third layer has a hard link to a file of the first, which crane writes before that file.
    write_image(&bench.path("made.tar"), Compression::Gzip, &layers()[..2]);
    let fixtures = [
        "buildkit-single/image.tar",
        "buildkit-zstd/image.tar",
        "buildkit-docker/schema2.tar",
        "archive-podman/image.tar",
        "docker-archive/podman.tar",
    ];
    let mut archives: Vec<_> = fixtures.iter().map(|name| testdata(name)).collect();
    archives.push(bench.path("made.tar"));
    for (number, path) in archives.iter().enumerate() {
        let path = path.display().to_string();
        let reference = format!("{}/app{number}:1", registry.name());
        bench.ok(&["push", &path, &reference]);
        let exported = peers.path("export.tar").display().to_string();
        let root = peers.path("exported");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        peers.ok(&format!("crane export {reference} {exported}"));
        peers.ok(&format!("tar -xpf {exported} -C {}", root.display()));
        let (listed, mut expected) = (listed(&bench, &path), unpacked(&root));
        described(&listed, &mut expected);
        assert_eq!(listed, expected, "{path}");
    }
}
