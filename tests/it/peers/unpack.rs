//! Directories and bundles, beside those of umoci.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ocikit_archive::Compression;
use ocikit_image::testing::Tar;
use ocikit_tests::{Peers, write_image};

use crate::bench;

/// Type, permissions, owner, time, number of names, device and contents of each file.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
        let metadata = fs::symlink_metadata(at).unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(at).unwrap()),
            kind if kind.is_file() => format!("{:?}", fs::read(at).unwrap()),
            _ => String::new(),
        };
        let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
        let seen = [metadata.mode().into(), metadata.uid().into(), metadata.gid().into(), links, metadata.rdev()];
        let name = at.strip_prefix(root).unwrap().display().to_string();
        found.insert(name, format!("{seen:?} {} {content}", metadata.mtime()));
        if metadata.is_dir() {
            fs::read_dir(at).unwrap().for_each(|entry| walk(root, &entry.unwrap().path(), found));
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn layers() -> Vec<Vec<u8>> {
    let lower = Tar::new()
        .modified(70)
        .directory(".")
        .directory("etc")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n")
        .file("etc/group", b"app:x:1001:\nmore:x:55:app\n")
        .directory("old")
        .file("old/a", b"a")
        .file("old/b", b"b")
        .mode(0o4755)
        .file("etc/suid", b"s")
        .link("etc/suid2", "etc/suid");
    let upper = Tar::new()
        .modified(80)
        .directory("etc")
        .file("etc/motd", b"motd")
        .symlink("etc/link", "/nowhere")
        .directory("old")
        .file("old/.wh..wh..opq", b"")
        .file("old/c", b"c")
        .entry(b'6', "fifo", "", b"");
    vec![lower.finish(), upper.finish()]
}

#[test]
fn trees_are_those_of_umoci() {
    let Some(peers) = Peers::find(&["umoci"]) else { return };
    let bench = bench();
    write_image(&bench.path("layout"), Compression::Gzip, &layers());
    let layout = bench.path("layout").display().to_string();
    for rootless in ["", "--rootless "] {
        let [theirs, ours] = ["umoci", "ocikit"].map(|name| bench.path(&format!("{name}-{}", rootless.trim())));
        peers.ok(&format!("umoci unpack {rootless}--image {layout}:1 {}", theirs.display()));
        let mut line = vec!["unpack", "--bundle"];
        line.extend(rootless.split_whitespace());
        let from = format!("oci:{layout}:1");
        let target = ours.display().to_string();
        line.extend([from.as_str(), target.as_str()]);
        bench.ok(&line);
        assert_eq!(tree(&ours.join("rootfs")), tree(&theirs.join("rootfs")), "{rootless}");
        let read = |path: &Path| -> serde_json::Value {
            let mut config: serde_json::Value =
                serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
            config["hostname"] = "x".into();
            config
        };
        let (mine, other) = (read(&ours), read(&theirs));
        for key in ["ociVersion", "root", "mounts", "linux"] {
            assert_eq!(mine[key], other[key], "{key} {rootless}");
        }
        assert_eq!(mine["process"]["user"], other["process"]["user"]);
    }
}

#[test]
fn bundles_are_repacked_by_the_other_program() {
    let Some(peers) = Peers::find(&["umoci", "skopeo"]) else { return };
    let bench = bench();
    write_image(&bench.path("layout"), Compression::Gzip, &layers());
    let layout = bench.path("layout").display().to_string();
    bench.ok(&["unpack", "--bundle", &format!("oci:{layout}:1"), "ours"]);
    peers.ok(&format!("umoci unpack --image {layout}:1 {}", bench.path("theirs").display()));
    let before = bench.ok(&["digest", &format!("oci:{layout}:1")]);
    assert_eq!(bench.ok(&["repack", "theirs", &format!("oci:{layout}:1")]), before, "nothing changed");
    for bundle in ["ours", "theirs"] {
        let root = bench.path(bundle).join("rootfs");
        fs::write(root.join("etc/motd"), "changed").unwrap();
        fs::remove_file(root.join("etc/group")).unwrap();
        fs::remove_dir_all(root.join("old")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
    }
    peers.ok(&format!("umoci repack --image {layout}:from-ours {}", bench.path("ours").display()));
    bench.ok(&["repack", "theirs", &format!("oci:{layout}:1"), "-o", &format!("oci:{layout}:from-theirs")]);
    peers.ok(&format!("skopeo inspect oci:{layout}:from-theirs"));
    for tag in ["from-ours", "from-theirs"] {
        peers.ok(&format!("umoci unpack --image {layout}:{tag} {}", bench.path(&format!("umoci-{tag}")).display()));
        bench.ok(&["unpack", &format!("oci:{layout}:{tag}"), &format!("ocikit-{tag}")]);
        let found = tree(&bench.path(&format!("ocikit-{tag}")));
        assert_eq!(found, tree(&bench.path(&format!("umoci-{tag}")).join("rootfs")), "{tag}");
        let names = |tree: &BTreeMap<String, String>| tree.keys().cloned().collect::<Vec<_>>();
        let expected = tree(&bench.path("ours").join("rootfs"));
        assert_eq!(names(&found), names(&expected), "{tag}");
        assert_eq!(fs::read(bench.path(&format!("ocikit-{tag}/etc/motd"))).unwrap(), b"changed");
    }
}
