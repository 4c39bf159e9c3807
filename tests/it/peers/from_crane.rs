//! `docs/from-crane.md`: each row of its table runs beside crane.

use std::fs;
use std::path::{Path, PathBuf};

use ocikit_tests::{Bench, Peers, Registry, fixture, single};
use serde_json::Value;

use super::pages::has_every_subcommand;
use crate::bench;

const PAGE: &str = include_str!("../../../docs/from-crane.md");

/// A row of the table: what one types in crane and in ocikit, and what is the same: `PART of NAME`, several with `and`
/// between them, and after a semicolon what is not.
struct Row<'a> {
    crane: &'a str,
    ocikit: &'a str,
    same: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let cells = PAGE.lines().filter(|line| line.starts_with("| `crane ")).map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
        let mut next = || cells.next().unwrap_or_else(|| panic!("three cells: {line}"));
        Row { crane: next(), ocikit: next(), same: next() }
    });
    cells.collect()
}

/// The two registries of a row, each with an index `app:1`, an image `one:1` and another one `base:1`.
struct Sides<'a> {
    peers: &'a Peers,
    bench: &'a Bench,
    number: usize,
    host: &'a str,
    config: String,
    manifest: String,
}

impl Sides<'_> {
    fn registry(&self, side: &str) -> String {
        format!("{}/row{}/{side}", self.host, self.number)
    }

    /// Returns a command line with the names of one side.
    fn line(&self, text: &str, side: &str) -> String {
        let image = match side {
            "crane" => self.peers.path("image").display().to_string(),
            _ => self.bench.path("image").display().to_string(),
        };
        let text = text.replace("reg/", &format!("{}/", self.registry(side)));
        text.replace("HOST", self.host)
            .replace("CONFIG", &self.config)
            .replace("MANIFEST", &self.manifest)
            .replace("IMAGE", &image)
    }

    /// Pushes the images that a row names.
    fn prepare(&self, row: &Row) {
        for side in ["crane", "ocikit"] {
            let registry = self.registry(side);
            let images = [("buildkit-multi", "app:1"), ("buildkit-single", "one:1"), ("buildkit-zstd", "base:1")];
            let named = |tag: &str| row.crane.contains(&format!("reg/{}", tag.trim_end_matches(":1")));
            for (name, tag) in images.into_iter().filter(|(_, tag)| named(tag)) {
                let image = fixture(&format!("{name}/image.tar"));
                self.bench.ok(&["push", "-q", &image, &format!("{registry}/{tag}")]);
            }
        }
    }

    fn ocikit(&self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        self.bench.ok(&words)
    }

    /// Returns a part of what a name leads to on one side, by ocikit.
    fn part(&self, what: &str, name: &str, side: &str) -> String {
        let name = self.line(name, side);
        let name = match (name.strip_prefix("./"), side) {
            (Some(path), "crane") => self.peers.path(path).display().to_string(),
            _ => name,
        };
        let read = |flag: &str| -> Value { self.bench.json(&["inspect", flag, &name]) };
        match what {
            "digest" => self.bench.ok(&["digest", &name]),
            // The same settings, whatever the order of the keys.
            "settings" => {
                let config = read("--config");
                let mut kept: Value = config["config"].clone();
                // crane drops what it does not know.
                if let Some(settings) = kept.as_object_mut() {
                    settings.retain(|_, value| !value.is_null());
                }
                kept.sort_all_objects();
                format!("{kept} {} {} {}", config["os"], config["architecture"], config["rootfs"]["diff_ids"])
            }
            "annotations" => {
                let mut annotations = read("--raw")["annotations"].clone();
                annotations.sort_all_objects();
                annotations.to_string()
            }
            "layers" => values(&read("--raw")["layers"], &["digest", "mediaType", "size"]),
            "diff_ids" => read("--config")["rootfs"]["diff_ids"].to_string(),
            "entries" => values(&read("--raw")["manifests"], &["digest", "mediaType", "size", "platform"]),
            "config" => self.bench.ok(&["config", &name]),
            "files" => {
                let path = match name.strip_prefix("./") {
                    Some(path) => self.bench.path(path),
                    None if name.starts_with('/') => name.into(),
                    None => {
                        self.bench.ok(&["export", &name, "-o", "exported.tar"]);
                        self.bench.path("exported.tar")
                    }
                };
                files(self.peers, &path)
            }
            other => panic!("the page says `{other}`"),
        }
    }
}

/// Returns these members of each object in a list.
fn values(list: &Value, members: &[&str]) -> String {
    let objects = list.as_array().unwrap_or_else(|| panic!("a list: {list}"));
    let lines = objects.iter().map(|object| members.iter().map(|member| format!("{} ", object[member])).collect());
    lines.collect::<Vec<String>>().join("\n")
}

/// Returns the entries of a tar in the order of their names, and the sorted digests of their contents.
fn files(peers: &Peers, tar: &Path) -> String {
    let tar = tar.display();
    let entries = peers.ok(&format!("tar --full-time --numeric-owner -tvf {tar}"));
    let contents = peers.ok(&format!("tar --to-command=sha256sum -xf {tar}"));
    let entries =
        entries.lines().map(|line| line.trim_end_matches('/').split_whitespace().collect::<Vec<_>>().join(" "));
    let mut entries: Vec<_> = entries.collect();
    // `ocikit export` repeats directories after their files, so that extracting sets their times last.
    entries.sort_by_key(|entry| entry.split(' ').skip(5).collect::<Vec<_>>().join(" "));
    entries.dedup();
    assert!(entries.len() > 3, "{entries:?}");
    format!("{}\n{}", entries.join("\n"), sorted(&contents).join("\n"))
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// The commands of crane that change an image or an index.
const CHANGES: [&str; 5] = ["append", "flatten", "index", "mutate", "rebase"];

#[test]
fn commands_that_change_an_image_do_the_same_as_crane() {
    compare(|command| CHANGES.contains(&command), 10);
}

#[test]
fn other_commands_do_the_same_as_crane() {
    compare(|command| !CHANGES.contains(&command), 15);
}

/// Runs the rows of some commands of crane, of which there are at least so many.
fn compare(selects: fn(&str) -> bool, least: usize) {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    let (bench, registry) = (bench(), peers.crane_registry());
    let single = single();
    let config = bench.ok(&["config", &single, "--platform", "linux/amd64"]);
    let config = format!("sha256:{}", ocikit::Digest::sha256_of(config.as_bytes()).hex());
    let manifest = bench.ok(&["digest", &single]);
    bench.ok(&["copy", "-q", &single, "oci:image"]);
    peers.ok(&format!("cp -r {} image", bench.path("image").display()));
    fs::write(peers.path("new.txt"), "new").unwrap();
    peers.ok("tar -cf layer.tar new.txt");
    peers.ok("tar -czf layer.tar.gz new.txt");
    for name in ["layer.tar", "layer.tar.gz"] {
        fs::copy(peers.path(name), bench.path(name)).unwrap();
    }
    let (mut compared, mut different) = (0, Vec::new());
    for (number, row) in rows().iter().enumerate() {
        let command = row.crane.split_whitespace().nth(1).unwrap_or_default();
        let skipped = ["none: ", "not compared here: ", "in a test of its own: "];
        if !selects(command) || skipped.iter().any(|reason| row.same.starts_with(reason)) {
            continue;
        }
        let host = registry.address.as_str();
        let sides =
            Sides { peers: &peers, bench: &bench, number, host, config: config.clone(), manifest: manifest.clone() };
        sides.prepare(row);
        let crane = peers.ok(&sides.line(row.crane, "crane"));
        let ocikit = sides.ocikit(&sides.line(row.ocikit, "ocikit"));
        let (same, _) = row.same.split_once(';').unwrap_or((row.same, ""));
        for part in same.split(" and ") {
            let (one, other) = match part.split_once(" of ") {
                Some((what, name)) => (sides.part(what, name, "crane"), sides.part(what, name, "ocikit")),
                None if part == "output" => (crane.trim_end().to_owned(), ocikit.trim_end().to_owned()),
                // The registry of crane lists in any order.
                None if part == "lines" => (sorted(&crane).join("\n"), sorted(&ocikit).join("\n")),
                None if part == "success" => continue,
                None => panic!("the page says `{part}`"),
            };
            if one != other {
                different.push(format!("{part} after `{}`:\n{one}\n{other}", row.ocikit));
            }
        }
        compared += 1;
    }
    assert!(different.is_empty(), "not the same as crane:\n{}", different.join("\n"));
    assert!(compared >= least, "{compared} rows were compared");
}

#[test]
fn login_and_logout_write_the_same_file_as_crane() {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    let (bench, registry) = (bench(), Registry::for_user("user", "secret"));
    let host = registry.name();
    let written = |home: PathBuf| -> Value {
        serde_json::from_slice(&fs::read(home.join(".docker/config.json")).unwrap()).unwrap()
    };
    let same = || {
        let (crane, ocikit) = (written(peers.path("home")), written(bench.path("home")));
        assert_eq!(crane["auths"], ocikit["auths"]);
        ocikit["auths"].clone()
    };
    peers.ok(&format!("crane auth login -u user -p secret {host}"));
    bench.ocikit_with_input(&["login", "-u", "user", "--password-stdin", &host], b"secret").ok();
    assert!(same()[&host]["auth"].is_string());
    peers.ok(&format!("crane auth logout {host}"));
    bench.ok(&["logout", &host]);
    assert!(same().as_object().is_none_or(|auths| auths.is_empty()));
}

#[test]
fn the_page_has_every_command_of_crane() {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    has_every_subcommand(&peers, "crane", "from-crane.md");
}
