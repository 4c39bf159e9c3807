//! Directories and bundles, beside those of umoci.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use ocikit_archive::Compression;
use ocikit_image::testing::Tar;
use ocikit_tests::{Peers, run, write_image};

use crate::bench;

fn sha256(bytes: &[u8]) -> String {
    ocikit_spec::Digest::sha256_of(bytes).to_string()
}

/// Type, permissions, owner, time, number of names, device and contents of each file.
pub(super) fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
        let metadata = fs::symlink_metadata(at).unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(at).unwrap()),
            kind if kind.is_file() && metadata.len() > 1000 => sha256(&fs::read(at).unwrap()),
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

pub(super) fn layers() -> Vec<Vec<u8>> {
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

/// Returns the path of the static busybox of this machine.
fn busybox() -> &'static str {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap()
}

#[test]
fn bundles_run() {
    let Some(peers) = Peers::find(&["umoci", "runc", "busybox"]) else { return };
    let bench = bench();
    let program = fs::read(busybox()).unwrap();
    let layer = Tar::new().mode(0o755).file("bin/busybox", &program).symlink("bin/sh", "busybox").finish();
    write_image(&bench.path("layout"), Compression::Gzip, &[vec![layer], layers()].concat());
    let image = format!("oci:{}:1", bench.path("layout").display());
    let script =
        "/bin/busybox id; echo $GREETING; /bin/busybox pwd; /bin/busybox cat /etc/motd; /bin/busybox ls -ln /etc /old";
    let line = ["edit", "--user", "app", "--env", "GREETING=hello", "--workdir", "/old", "--entrypoint", "/bin/sh"];
    bench.ok(&[&line[..], &["--cmd=-c", "--cmd", script, &image]].concat());
    bench.ok(&["unpack", "--bundle", &image, "ocikit"]);
    peers.ok(&format!("umoci unpack --image {}:1 {}", bench.path("layout").display(), bench.path("umoci").display()));
    let [ours, theirs] = ["ocikit", "umoci"].map(|name| {
        let path = bench.path(name).join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["process"]["terminal"] = false.into();
        fs::write(&path, config.to_string()).unwrap();
        // Both programs leave the name of the container to the caller.
        let id = format!("{name}-{}", std::process::id());
        peers.ok(&format!("runc --root {} run -b {} {id}", peers.path("runc").display(), bench.path(name).display()))
    });
    assert_eq!(ours, theirs);
    assert!(ours.contains("uid=1000(app) gid=1001(app) groups=55(more)"), "{ours}");
    assert!(ours.contains("hello\n/old\nmotd"), "{ours}");
}

#[test]
fn images_of_buildkit_are_unpacked_as_by_umoci() {
    let Some(peers) = Peers::find(&["buildctl", "buildkitd", "runc", "busybox", "umoci"]) else { return };
    let bench = bench();
    fs::create_dir(bench.path("app")).unwrap();
    fs::copy(busybox(), bench.path("app/busybox")).unwrap();
    let steps = [
        "mkdir -p /srv/a /srv/b; echo one > /srv/a/one; ln /srv/a/one /srv/a/same; ln -s /srv/a /srv/link; mkfifo /srv/pipe",
        "chmod 4755 /srv/a/one; chown 1000:1001 /srv/b; touch -d 2001-02-03 /srv/b; echo two > /srv/b/two; chmod 1777 /srv",
        "rm -r /srv/a; mkdir /srv/a; echo three > /srv/a/three; rm /srv/link; echo file > /srv/link; mv /srv/b /srv/c",
        "echo again >> /srv/c/two; mknod /srv/null c 1 3; dd if=/dev/zero of=/srv/large bs=1M count=2 2> /dev/null",
    ];
    let run = |step: &&str| format!("RUN [\"/bin/busybox\", \"sh\", \"-c\", \"{step}\"]\n");
    let steps: String = steps.iter().map(run).collect();
    let text = format!(
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{steps}"
    );
    bench.write("app/Dockerfile", text);
    bench.ok(&["build", "app", "-o", "app.tar"]);
    bench.ok(&["copy", "-q", "app.tar", "oci:layout:1"]);
    let layout = bench.path("layout").display().to_string();
    for options in ["", "--rootless "] {
        let [theirs, ours] = ["umoci", "ocikit"].map(|name| bench.path(&format!("{name}{}", options.trim())));
        peers.ok(&format!("umoci raw unpack {options}--image {layout}:1 {}", theirs.display()));
        let (image, target) = (format!("oci:{layout}:1"), ours.display().to_string());
        let words: Vec<_> = options.split_whitespace().collect();
        bench.ok(&[&["unpack", &image, &target], &words[..]].concat());
        let found = tree(&ours);
        assert!(found == tree(&theirs), "{options}");
        assert!(found.len() > 100 && found.contains_key("srv/c/two") && !found.contains_key("srv/a/one"));
    }
}

#[test]
fn exports_are_those_of_crane() {
    let Some(peers) = Peers::find(&["crane", "registry", "tar"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let lower =
        Tar::new().modified(60).directory("bin").mode(0o755).file("bin/a", b"a").link("bin/b", "bin/a").finish();
    let image = format!("{}/app:1", registry.address.replace("127.0.0.1", "localhost"));
    write_image(&bench.path("a.tar"), Compression::Gzip, &[vec![lower], layers()].concat());
    bench.ok(&["copy", "-q", "a.tar", &image]);
    bench.ok(&["export", &image, "-o", "ours.tar"]);
    peers.ok(&format!("crane export {image} {}", bench.path("theirs.tar").display()));
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        let (root, tar) = (bench.path(name), bench.path(&format!("{name}.tar")));
        fs::create_dir(&root).unwrap();
        // Without -P, GNU tar creates absolute symlinks last, which changes the time of their directories.
        peers.ok(&format!("tar -C {} --numeric-owner -xpPf {}", root.display(), tar.display()));
        let mut found = tree(&root);
        // The layers have no entry for the root.
        found.remove("");
        found
    });
    bench.ok(&["unpack", &image, "tree"]);
    let mut expected = tree(&bench.path("tree"));
    expected.remove("");
    assert_eq!(ours, expected);
    // crane writes a directory before the files of lower layers, so that GNU tar loses its time.
    let without_times = |found: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let directory = |facts: &str| facts.ends_with(' ');
        let facts = |facts: &String| facts.split(']').next().unwrap_or_default().to_owned();
        found.iter().map(|(name, it)| (name.clone(), if directory(it) { facts(it) } else { it.clone() })).collect()
    };
    assert_eq!(without_times(&ours), without_times(&theirs));
    // A hard link whose file is replaced by an upper layer: the link keeps the old contents. crane writes the link as it is in
    // the layer, so that it points to the new file.
    let layers = [Tar::new().file("a", b"old").link("b", "a").finish(), Tar::new().file("a", b"new").finish()];
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers);
    bench.ok(&["copy", "-q", "a.tar", &image]);
    peers.ok(&format!("crane export {image} {}", bench.path("theirs.tar").display()));
    bench.ok(&["export", &image, "-o", "ours.tar"]);
    let linked = |name: &str| peers.ok(&format!("tar -xOf {} b", bench.path(name).display()));
    assert_eq!(linked("ours.tar"), "old");
    let theirs = peers.ok(&format!("tar -tvf {}", bench.path("theirs.tar").display()));
    assert!(theirs.contains("b link to a"), "{theirs}");
    bench.ok(&["unpack", &image, "unpacked"]);
    assert_eq!(fs::read(bench.path("unpacked/b")).unwrap(), b"old");
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn another_user_unpacks_the_files_of_umoci() {
    let Some(peers) = Peers::find(&["umoci", "setpriv", "chown"]) else { return };
    let bench = bench();
    if fs::metadata(bench.path("")).unwrap().uid() != 0 {
        eprintln!("SKIPPED another_user_unpacks_the_files_of_umoci: only root can run a program as another user");
        return;
    }
    let device = Tar::new().modified(90).entry(b'3', "null", "", b"").finish();
    write_image(&bench.path("layout"), Compression::Gzip, &[layers(), vec![device]].concat());
    // The other user can read neither the target directory of the build nor the home directory of root.
    fs::copy(env!("CARGO_BIN_EXE_ocikit-under-test"), bench.path("ocikit")).unwrap();
    fs::copy(peers.command("umoci").get_program(), bench.path("umoci")).unwrap();
    fs::create_dir_all(bench.path("home")).unwrap();
    let directory = bench.path("").display().to_string();
    peers.ok(&format!("chown -R 65534:65534 {directory}"));
    let as_user = |words: &[&str]| {
        let mut command = Command::new(peers.command("setpriv").get_program());
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words);
        command.current_dir(bench.path("")).env("HOME", bench.path("home"));
        run(&mut command, &[])
    };
    for bundle in [false, true] {
        let [theirs, ours] = ["umoci", "ocikit"].map(|name| format!("{name}-{bundle}"));
        let command: &[&str] = if bundle { &["unpack"] } else { &["raw", "unpack"] };
        as_user(&[&["./umoci"], command, &["--rootless", "--image", "layout:1", &theirs]].concat()).ok();
        let command: &[&str] = if bundle { &["unpack", "--bundle"] } else { &["unpack"] };
        as_user(&[&["./ocikit"], command, &["--rootless", "oci:layout:1", &ours]].concat()).ok();
        let found = [&ours, &theirs]
            .map(|name| tree(&bench.path(&if bundle { format!("{name}/rootfs") } else { name.clone() })));
        assert_eq!(found[0], found[1]);
        assert!(found[0].values().all(|facts| facts.contains(", 65534, 65534, ")), "{found:?}");
    }
    let repacked = as_user(&["./ocikit", "repack", "ocikit-true", "oci:layout:1"]).ok();
    assert_eq!(repacked, bench.ok(&["digest", "oci:layout:1"]), "nothing changed");
    let changed = as_user(&["./ocikit", "repack", "umoci-true", "oci:layout:1"]).ok();
    assert_eq!(changed, repacked, "nothing changed");
}
