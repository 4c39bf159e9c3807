//! How much time and memory does it take to convert an image with one gzip layer to a lazily pulled format, beside the
//! programs of others?
//!
//! The layer holds a directory of this machine: `/usr` by default, `OCIKIT_BENCH_TREE` otherwise; `OCIKIT_BENCH_SMOKE` takes a
//! small one. The other programs are those of `tests/peers/install.sh lazy`. Levels are equal: 6 for gzip, 3 for zstd.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "this is a bench")]

use std::fs;
use std::path::Path;
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
    let run = |words: &[&str]| {
        let status = line(words).stdout(Stdio::null()).status().expect("a program");
        assert!(status.success(), "{words:?}");
    };
    let tree = tree(directory.path());
    let tree = tree.to_str().expect("a path of text");
    layout(&path("base"), 1, 0);
    run(&[ocikit, "append", "oci:base:1", tree, "--destination", "/tree", "--remove-layer", "1", "-o", "oci:app:1"]);
    let blob = |layout: &str| {
        let manifest = line(&[ocikit, "manifest", "get", &format!("oci:{layout}:1")]).output().expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest.stdout).expect("a manifest");
        let digest = manifest["layers"][0]["digest"].as_str().expect("a digest");
        format!("{layout}/blobs/{}", digest.replace(':', "/"))
    };
    let source = blob("app");
    run(&["sh", "-c", &format!("gzip -dc {source} >app.layer")]);

    let mut table = Table::new();
    let sizes = |name: &str, file: &Path| {
        let bytes = fs::metadata(file).map(|found| found.len()).unwrap_or_default();
        println!("{name}: {bytes} bytes");
    };
    for round in 0..ROUNDS {
        for format in ["estargz", "zstd-chunked", "soci"] {
            let target = format!("oci:{format}:1");
            let words = [ocikit, "convert", "--to", format, "oci:app:1", "-o", &target];
            table.add(&format!("ocikit {format}"), measure(&line(&words)));
            if round == 0 && format != "soci" {
                sizes(&format!("ocikit {format}"), &path(&blob(format)));
            }
            fs::remove_dir_all(path(format)).expect("the result");
        }
        let theirs: [(&str, [&str; 4]); 2] = [
            ("estargz library", ["estargz-build", &source, "theirs", "6"]),
            ("containers/storage", ["chunked-build", "app.layer", "theirs", "3"]),
        ];
        for (name, words) in theirs.iter().filter(|(_, words)| find(words[0]).is_some()) {
            table.add(name, measure(&line(words)));
            if round == 0 {
                sizes(name, &path("theirs"));
            }
            fs::remove_file(path("theirs")).expect("the result");
        }
        if find("soci").is_some() {
            let words =
                ["soci", "convert", "--standalone", "--platform", "linux/amd64", "--format", "oci-dir", "app", "out"];
            table.add("soci", measure(&line(&words)));
            fs::remove_dir_all(path("out")).expect("the result");
        }
    }
    table.print("lazy formats");
}
