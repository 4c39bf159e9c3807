//! `docs/from-crane.md`: each row of its table runs beside crane.

use ocikit_tests::{Bench, Peers, testdata};
use serde_json::Value;

use super::pages::has_every_subcommand;
use crate::bench;

const PAGE: &str = include_str!("../../../docs/from-crane.md");

/// A row of the table: what one types in crane and in ocikit, and what is the same.
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

    fn prepare(&self) {
        for side in ["crane", "ocikit"] {
            let registry = self.registry(side);
            for (name, tag) in [("buildkit-multi", "app:1"), ("buildkit-single", "one:1"), ("buildkit-zstd", "base:1")]
            {
                let image = testdata(&format!("{name}/image.tar")).display().to_string();
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
        let read = |flag: &str| -> Value { serde_json::from_str(&self.bench.ok(&["inspect", flag, &name])).unwrap() };
        match what {
            "digest" => self.bench.ok(&["digest", &name]),
            // The same settings, whatever the order of the keys.
            "settings" => {
                let config = read("--config");
                let mut kept: Value = config["config"].clone();
                // crane drops what it does not know.
                if let Some(settings) = kept.as_object_mut() {
                    settings.retain(|_, value| !value.is_null());
                    settings.sort_keys();
                }
                format!("{kept} {} {} {}", config["os"], config["architecture"], config["rootfs"]["diff_ids"])
            }
            "annotations" => read("--raw")["annotations"].to_string(),
            "layers" => {
                let manifest = read("--raw");
                let layers = manifest["layers"].as_array().unwrap();
                layers.iter().map(|layer| layer["digest"].to_string()).collect()
            }
            other => panic!("the page says `{other}`"),
        }
    }
}

#[test]
fn each_row_does_the_same_as_crane() {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    let (bench, registry) = (bench(), peers.crane_registry());
    let single = testdata("buildkit-single/image.tar").display().to_string();
    let config = bench.ok(&["config", &single, "--platform", "linux/amd64"]);
    let config = format!("sha256:{}", ocikit::Digest::sha256_of(config.as_bytes()).hex());
    let manifest = bench.ok(&["digest", &single]);
    bench.ok(&["copy", "-q", &single, "oci:image"]);
    peers.ok(&format!("cp -r {} image", bench.path("image").display()));
    let mut compared = 0;
    for (number, row) in rows().iter().enumerate() {
        if row.same.starts_with("none: ") || row.same.starts_with("not compared here: ") {
            continue;
        }
        let host = registry.address.as_str();
        let sides =
            Sides { peers: &peers, bench: &bench, number, host, config: config.clone(), manifest: manifest.clone() };
        sides.prepare();
        let crane = peers.ok(&sides.line(row.crane, "crane"));
        let ocikit = sides.ocikit(&sides.line(row.ocikit, "ocikit"));
        match row.same.split_once(" of ") {
            Some((what, name)) => {
                let (one, other) = (sides.part(what, name, "crane"), sides.part(what, name, "ocikit"));
                assert_eq!(one, other, "{what} of {name} after `{}`", row.ocikit);
            }
            None if row.same == "output" => assert_eq!(crane.trim_end(), ocikit.trim_end(), "`{}`", row.ocikit),
            None => assert_eq!(row.same, "success", "`{}`", row.ocikit),
        }
        compared += 1;
    }
    assert!(compared >= 20, "{compared} rows were compared");
}

#[test]
fn the_page_has_every_command_of_crane() {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    has_every_subcommand(&peers, "crane", "from-crane.md");
}
