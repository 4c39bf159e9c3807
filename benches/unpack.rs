//! How much time and memory does it take to unpack an image with one gzip layer?
//!
//! The limit is `gzip -dc | tar -x`, which hashes nothing and checks no names. The layer holds a directory of this machine: `/usr` by
//! default, `OCIKIT_BENCH_TREE` otherwise; `OCIKIT_BENCH_SMOKE` takes a small one. Each program writes to an empty directory.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs;
use std::process::{Command, Stdio};

use ocikit_benches::{Table, find, layout, measure, run_if_asked, tree};
use serde_json::Value;

const ROUNDS: usize = 3;

fn main() {
    run_if_asked();
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let ocikit = env!("CARGO_BIN_EXE_ocikit-under-bench");
    let line = |line: &[&str]| {
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).current_dir(directory.path()).env("HOME", directory.path());
        command
    };
    let tree = tree(directory.path());
    let tree = tree.to_str().expect("a path of text");
    layout(&path("base"), 1, 0);
    // The empty layer is no tar, which umoci refuses.
    let words =
        [ocikit, "append", "oci:base:1", tree, "--destination", "/tree", "--remove-layer", "1", "-o", "oci:app:1"];
    let status = line(&words).stdout(Stdio::null()).status().expect("a program");
    assert!(status.success(), "{words:?}");
    let manifest = line(&[ocikit, "manifest", "get", "oci:app:1"]).output().expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest.stdout).expect("a manifest");
    let digest = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let blob = format!("app/blobs/{}", digest.replace(':', "/"));

    let mut table = Table::new();
    for _ in 0..ROUNDS {
        table.add("ocikit unpack", measure(&line(&[ocikit, "unpack", "oci:app:1", "out"])));
        fs::remove_dir_all(path("out")).expect("the result");
        fs::create_dir(path("out")).expect("a directory");
        let script = format!("gzip -dc {blob} | tar -x --numeric-owner -C out");
        table.add("gzip -dc, tar -x", measure(&line(&["sh", "-c", &script])));
        fs::remove_dir_all(path("out")).expect("the result");
        if find("umoci").is_some() {
            table.add("umoci raw unpack", measure(&line(&["umoci", "raw", "unpack", "--image", "app:1", "out"])));
            fs::remove_dir_all(path("out")).expect("the result");
        }
    }
    table.print("unpack");
}
