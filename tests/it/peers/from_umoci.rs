//! The rows of `docs/from-umoci.md`: each command of umoci beside the one of ocikit, with the same result.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ocikit_archive::Compression;
use ocikit_image::testing::Tar;
use ocikit_tests::{Bench, Peers, json, write_image};
use serde_json::Value;

use super::unpack::{layers, tree};
use crate::bench;

/// Both programs, and a layout with an image under `1`.
struct Rows {
    peers: Peers,
    bench: Bench,
    layout: String,
}

impl Rows {
    fn new() -> Option<Rows> {
        let peers = Peers::find(&["umoci"])?;
        let bench = bench();
        write_image(&bench.path("layout"), Compression::Gzip, &layers());
        let layout = bench.path("layout").display().to_string();
        fs::create_dir(bench.path("source")).unwrap();
        bench.write("source/added", "added");
        Some(Rows { peers, bench, layout })
    }

    fn at(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.layout)
    }

    /// Runs umoci; `IMAGE` stands for `--image LAYOUT:1`, `DIR` for the directory of the bench.
    fn umoci(&self, line: &str) -> String {
        let directory = self.bench.path("").display().to_string();
        let image = format!("--image {}:1", self.layout);
        self.peers
            .ok(&format!("umoci {}", line.replace("IMAGE", &image).replace("DIR", directory.trim_end_matches('/'))))
    }

    fn ours(&self, words: &[&str]) -> String {
        self.bench.ok(words)
    }

    fn digest(&self, tag: &str) -> String {
        self.ours(&["digest", &self.at(tag)])
    }

    fn config(&self, tag: &str) -> Value {
        json(&self.ours(&["config", &self.at(tag)]))
    }

    fn tags(&self) -> Vec<String> {
        let listed = self.ours(&["tags", &format!("oci:{}", self.layout)]);
        sorted(&listed)
    }

    /// Checks that umoci unpacks the same files from two images.
    fn same_files(&self, tags: [&str; 2]) {
        let [left, right] = tags.map(|tag| {
            let target = self.bench.path(&format!("files-{tag}"));
            self.peers.ok(&format!("umoci raw unpack --image {}:{tag} {}", self.layout, target.display()));
            let found = tree(&target);
            fs::remove_dir_all(&target).unwrap();
            found
        });
        assert_eq!(left, right, "{tags:?}");
    }
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn read(path: &Path) -> Value {
    json(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}: {}", path.display())))
}

/// Returns the commands of a help text, each with its other names.
fn commands(help: &str) -> Vec<Vec<String>> {
    let lines = help.lines().skip_while(|line| line.trim() != "COMMANDS:").skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    let names = lines.filter_map(|line| line.trim().split_once("  ")).map(|(names, _)| names);
    names.map(|names| names.split(", ").map(str::to_owned).collect()).collect()
}

#[test]
fn the_page_has_every_subcommand() {
    let Some(peers) = Peers::find(&["umoci"]) else { return };
    let page = fs::read_to_string(format!("{}/../docs/from-umoci.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut pending: Vec<(&str, Vec<String>)> = Vec::new();
    pending.extend(commands(&peers.ok("umoci --help")).into_iter().map(|names| ("umoci", names)));
    pending.extend(commands(&peers.ok("umoci raw --help")).into_iter().map(|names| ("umoci raw", names)));
    pending.retain(|(_, names)| !["raw", "help"].contains(&names[0].as_str()));
    assert!(pending.len() >= 14, "{pending:?}");
    for (program, names) in pending {
        let is_named = |name: &String| page.contains(&format!("| `{program} {name} "));
        assert!(names.iter().any(is_named), "from-umoci.md: {program} {names:?}");
    }
}

#[test]
fn new_layouts_and_images() {
    let Some(rows) = Rows::new() else { return };
    rows.umoci("init --layout DIR/theirs");
    rows.ours(&["copy", "-q", &rows.at("1"), "oci:theirs:1"]);
    rows.ours(&["copy", "-q", &rows.at("1"), "oci:ours:1"]);
    for layout in ["theirs", "ours"] {
        assert_eq!(rows.umoci(&format!("ls --layout DIR/{layout}")).trim(), "1");
        assert_eq!(rows.ours(&["digest", &format!("oci:{layout}:1")]), rows.digest("1"));
    }
    // There is no command for an image without layers, but that of umoci can be changed.
    rows.umoci("new --image DIR/layout:empty");
    rows.ours(&["append", &rows.at("empty"), "source", "-o", &rows.at("filled")]);
    rows.ours(&["unpack", &rows.at("filled"), "filled"]);
    assert_eq!(fs::read(rows.bench.path("filled/added")).unwrap(), b"added");
}

#[test]
fn bundles_and_directories() {
    let Some(rows) = Rows::new() else { return };
    let maps = "--uid-map 0:100000:65536 --gid-map 0:100000:65536";
    for (name, options) in [("plain", ""), ("rootless", "--rootless"), ("mapped", maps)] {
        rows.umoci(&format!("unpack {options} IMAGE DIR/umoci-{name}"));
        let (image, target) = (rows.at("1"), format!("ocikit-{name}"));
        let words: Vec<_> = options.split_whitespace().collect();
        rows.ours(&[&["unpack", "--bundle"], &words[..], &[&image, &target]].concat());
        let roots = [&format!("umoci-{name}/rootfs"), &format!("{target}/rootfs")].map(|path| rows.bench.path(path));
        assert_eq!(tree(&roots[0]), tree(&roots[1]), "{name}");
        let record = |program: &str| read(&rows.bench.path(&format!("{program}-{name}/umoci.json")));
        let (theirs, ours) = (record("umoci"), record("ocikit"));
        assert_eq!(theirs["from_descriptor_path"], ours["from_descriptor_path"], "{name}");
        assert_eq!(theirs["map_options"], ours["map_options"], "{name}");
        let mtree = |program: &str| {
            let found = fs::read_dir(rows.bench.path(&format!("{program}-{name}"))).unwrap();
            let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.ends_with(".mtree")).collect::<Vec<_>>()
        };
        assert_eq!(mtree("umoci"), mtree("ocikit"), "{name}");

        rows.umoci(&format!("raw unpack {options} IMAGE DIR/raw-{name}"));
        let target = format!("directory-{name}");
        rows.ours(&[&["unpack"], &words[..], &[&image, &target]].concat());
        assert_eq!(tree(&rows.bench.path(&format!("raw-{name}"))), tree(&rows.bench.path(&target)), "{name}");
    }
    // The bundle has the same config.
    rows.umoci("raw runtime-config IMAGE --rootfs DIR/umoci-plain/rootfs DIR/config.json");
    let (theirs, ours) = (read(&rows.bench.path("config.json")), read(&rows.bench.path("ocikit-plain/config.json")));
    for key in ["ociVersion", "mounts", "linux", "root"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    for key in ["args", "cwd", "env", "user"] {
        assert_eq!(ours["process"][key], theirs["process"][key], "{key}");
    }
}

#[test]
fn repacked_bundles() {
    let Some(rows) = Rows::new() else { return };
    rows.umoci("unpack IMAGE DIR/theirs");
    rows.ours(&["unpack", "--bundle", &rows.at("1"), "ours"]);
    for bundle in ["theirs", "ours"] {
        let root = rows.bench.path(bundle).join("rootfs");
        fs::write(root.join("etc/motd"), "changed").unwrap();
        fs::remove_dir_all(root.join("old")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        for path in ["etc/motd", "etc", "new", ""] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(90);
            fs::File::open(root.join(path)).unwrap().set_modified(time).unwrap();
        }
    }
    let before = rows.digest("1");
    rows.umoci(&format!("repack --image {}:theirs DIR/theirs", rows.layout));
    rows.ours(&["repack", "ours", &rows.at("1"), "-o", &rows.at("ours")]);
    assert_eq!(rows.digest("1"), before);
    rows.same_files(["theirs", "ours"]);
    let count = |tag: &str| rows.config(tag)["rootfs"]["diff_ids"].as_array().unwrap().len();
    assert_eq!((count("theirs"), count("ours")), (3, 3));

    // With --refresh-bundle, the bundle of umoci records the new image. With ocikit, unpack again.
    rows.umoci(&format!("repack --refresh-bundle --image {}:refreshed DIR/theirs", rows.layout));
    rows.ours(&["unpack", "--bundle", &rows.at("ours"), "again"]);
    let refreshed = rows.digest("refreshed");
    assert_eq!(rows.ours(&["repack", "theirs", &rows.at("refreshed")]), refreshed, "nothing changed");
    let ours = rows.digest("ours");
    assert_eq!(rows.ours(&["repack", "again", &rows.at("ours")]), ours, "nothing changed");
    rows.ours(&["repack", "ours", &rows.at("1")]);
    assert_ne!(rows.digest("1"), before, "the tag moved");
}

#[test]
fn inserted_files_and_layers() {
    let Some(rows) = Rows::new() else { return };
    let image = rows.at("1");
    for (name, theirs, ours) in [
        ("file", "DIR/source/added /srv/added", &["--destination", "/srv/added", &image, "source/added"][..]),
        ("directory", "DIR/source /etc", &["--destination", "/etc", &image, "source"]),
        ("whiteout", "--whiteout /old/c", &["--delete", "/old/c", &image]),
        ("opaque", "--opaque DIR/source /etc", &["--delete", "/etc", "--destination", "/etc", &image, "source"]),
    ] {
        let tags = [format!("theirs-{name}"), format!("ours-{name}")];
        let tags = [tags[0].as_str(), tags[1].as_str()];
        rows.umoci(&format!("insert --tag {} IMAGE {theirs}", tags[0]));
        let extra: &[&str] = if name == "directory" || name == "opaque" { &["--include-directory"] } else { &[] };
        let output = rows.at(tags[1]);
        rows.ours(&[&["append", "-o", &output], extra, ours].concat());
        rows.same_files(tags);
    }
    let tar = Tar::new().modified(5).directory("srv").file("srv/a", b"a").finish();
    rows.bench.write("layer.tar", tar);
    rows.umoci("raw add-layer --tag theirs IMAGE DIR/layer.tar");
    rows.ours(&["append", &image, "layer.tar", "-o", &rows.at("ours")]);
    assert_eq!(rows.config("theirs")["rootfs"], rows.config("ours")["rootfs"], "the same tar");
}

#[test]
fn configs() {
    let Some(rows) = Rows::new() else { return };
    let theirs = "--config.user app --config.env A=1 --config.entrypoint /app --config.cmd serve --config.workingdir /srv \
                  --config.label k=v --config.exposedports 80/tcp --config.volume /data --config.stopsignal SIGINT \
                  --author me --created 2020-01-01T00:00:00Z --manifest.annotation a=b --architecture arm64 --os linux";
    rows.umoci(&format!("config --tag theirs --no-history {theirs} IMAGE"));
    let ours = "--user app --env A=1 --entrypoint /app --cmd serve --workdir /srv --label k=v --port 80/tcp --volume /data \
                --stop-signal SIGINT --author me --created 2020-01-01T00:00:00Z --annotation a=b --architecture arm64 --os linux";
    let words: Vec<_> = ours.split_whitespace().collect();
    let (image, output) = (rows.at("1"), rows.at("ours"));
    rows.ours(&[&["edit", "-o", &output, &image], &words[..]].concat());
    assert_eq!(rows.config("theirs"), rows.config("ours"));
    let manifest = |tag: &str| json(&rows.ours(&["manifest", "get", &rows.at(tag)]));
    assert_eq!(manifest("theirs")["annotations"], manifest("ours")["annotations"]);
    assert_eq!(manifest("theirs")["layers"], manifest("ours")["layers"]);

    rows.peers
        .ok(&format!("umoci config --no-history --clear config.env --clear config.cmd --image {}:theirs", rows.layout));
    rows.ours(&["edit", "--remove", "env", "--remove", "cmd", &rows.at("ours")]);
    let (theirs, ours) = (rows.config("theirs"), rows.config("ours"));
    for key in ["Env", "Cmd"] {
        assert!(ours["config"][key].is_null(), "{ours}");
        assert!(theirs["config"][key].as_array().is_none_or(Vec::is_empty), "{theirs}");
    }
    rows.umoci("config --tag theirs2 --author you --history.comment why IMAGE");
    rows.ours(&["edit", "--author", "you", "--history", "why", &rows.at("1"), "-o", &rows.at("ours2")]);
    let count = |tag: &str| rows.config(tag)["history"].as_array().map_or(0, Vec::len);
    assert_eq!(count("theirs2"), count("ours2"));
}

#[test]
fn facts_and_tags() {
    let Some(rows) = Rows::new() else { return };
    let theirs = json(&rows.umoci("stat --json IMAGE"));
    let ours = json(&rows.ours(&["inspect", "--json", &rows.at("1")]));
    let manifest = json(&rows.ours(&["manifest", "get", &rows.at("1")]));
    let of = |layers: &[Value]| -> Vec<(Value, Value)> {
        layers.iter().map(|layer| (layer["digest"].clone(), layer["size"].clone())).collect()
    };
    let seen = theirs["manifest"]["blob"]["layers"].as_array().unwrap();
    assert_eq!(theirs["manifest"]["descriptor"]["digest"], ours["digest"]);
    assert_eq!(theirs["config"]["descriptor"]["digest"], manifest["config"]["digest"]);
    assert_eq!(of(seen), of(ours["layers"].as_array().unwrap()));
    assert_eq!(of(seen), of(manifest["layers"].as_array().unwrap()));

    rows.umoci("tag IMAGE theirs");
    rows.ours(&["copy", "-q", &rows.at("1"), &rows.at("ours")]);
    assert_eq!(rows.digest("theirs"), rows.digest("ours"));
    let listed = sorted(&rows.umoci("ls --layout DIR/layout"));
    assert_eq!(listed, ["1", "ours", "theirs"]);
    assert_eq!(listed, rows.tags());
    rows.peers.ok(&format!("umoci rm --image {}:ours", rows.layout));
    rows.ours(&["delete", &rows.at("theirs")]);
    assert_eq!(rows.tags(), ["1"]);
}

#[test]
fn garbage() {
    let Some(rows) = Rows::new() else { return };
    rows.ours(&["append", &rows.at("1"), "source", "-o", &rows.at("gone")]);
    rows.ours(&["copy", "-q", &rows.at("1"), "oci:theirs:1"]);
    rows.ours(&["copy", "-q", &rows.at("gone"), "oci:theirs:gone"]);
    let blobs = |layout: &str| -> BTreeSet<_> {
        let found = fs::read_dir(rows.bench.path(layout).join("blobs/sha256")).unwrap();
        found.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = blobs("layout");
    assert_eq!(before, blobs("theirs"));
    // umoci removes the entry and leaves the blobs to gc.
    rows.umoci("rm --image DIR/theirs:gone");
    rows.umoci("rm --image DIR/layout:gone");
    rows.umoci("gc --layout DIR/theirs");
    rows.ours(&["gc", &format!("oci:{}", rows.layout)]);
    assert_eq!(blobs("layout"), blobs("theirs"));
    assert!(blobs("layout").len() < before.len());
}
