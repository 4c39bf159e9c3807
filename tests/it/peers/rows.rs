//! What the rows of `from-oras.md` and `from-regctl.md` share: both programs, and a registry with an index under `app:1`.

use std::fs;

use ocikit_tests::{Bench, Daemon, Peers, multi};
use serde_json::Value;

use crate::bench;

/// Both programs, and a registry with an index under `app:1`.
pub(super) struct Rows {
    pub(super) peers: Peers,
    pub(super) bench: Bench,
    registry: Daemon,
}

impl Rows {
    /// Starts with a registry, which `prepare` makes known to the peer, and with small files for both programs.
    pub(super) fn with(peers: Peers, registry: Daemon, prepare: impl FnOnce(&Rows), files: &[(&str, &str)]) -> Rows {
        let rows = Rows { peers, bench: bench(), registry };
        prepare(&rows);
        let image = multi();
        rows.bench.ok(&["copy", "-q", &image, &rows.at("app:1")]);
        for (name, contents) in files {
            for path in [rows.bench.path(name), rows.peers.path(name)] {
                fs::write(path, contents).unwrap();
            }
        }
        rows
    }

    pub(super) fn host(&self) -> String {
        self.registry.address.replace("127.0.0.1", "localhost")
    }

    pub(super) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Runs the other program.
    pub(super) fn peer(&self, program: &str, line: &str) -> String {
        self.peers.ok(&format!("{program} {line}"))
    }

    pub(super) fn ours(&self, words: &[&str]) -> String {
        self.bench.ok(words)
    }

    pub(super) fn digest(&self, name: &str) -> String {
        self.ours(&["digest", &self.at(name)])
    }

    pub(super) fn layer(&self) -> String {
        let manifest = self.ours(&["manifest", "get", "--platform", "linux/amd64", &self.at("app:1")]);
        json(&manifest)["layers"][0]["digest"].as_str().unwrap().to_owned()
    }
}

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
