//! How much time and memory does it take to convert an image with one gzip layer to a lazily pulled format, beside the
//! programs of others?
//!
//! The layer holds a directory of this machine: `/usr` by default, `OCIKIT_BENCH_TREE` otherwise; `OCIKIT_BENCH_SMOKE` takes a
//! small one. The other programs are those of `tests/peers/install.sh lazy`. Levels are equal: 6 for gzip, 3 for zstd.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "this is a bench")]

use std::fs;
use std::path::Path;

use ocikit_benches::{Place, Table, find, layout, measure, run_if_asked};

const ROUNDS: usize = 3;

fn main() {
    run_if_asked();
    let place = Place::new();
    let ocikit = env!("CARGO_BIN_EXE_ocikit-under-bench");
    let tree = place.tree();
    layout(&place.path("base"), 1, 0);
    place.run(&[ocikit, "append", "oci:base:1", &tree, "--remove-layer", "1", "-o", "oci:app:1"]);
    let blob = |layout: &str| place.first_layer(ocikit, layout);
    let source = blob("app");
    place.run(&["sh", "-c", &format!("gzip -dc {source} >app.layer")]);

    let mut table = Table::new();
    let sizes = |name: &str, file: &Path| {
        let bytes = fs::metadata(file).map(|found| found.len()).unwrap_or_default();
        println!("{name}: {bytes} bytes");
    };
    for round in 0..ROUNDS {
        for format in ["estargz", "zstd-chunked", "soci"] {
            let target = format!("oci:{format}:1");
            let words = [ocikit, "convert", "--to", format, "oci:app:1", "-o", &target];
            table.add(&format!("ocikit {format}"), measure(&place.command(&words)));
            if round == 0 && format != "soci" {
                assert_ne!(
                    blob(format).rsplit('/').next(),
                    source.rsplit('/').next(),
                    "{format} left the layer as it was"
                );
                sizes(&format!("ocikit {format}"), &place.path(blob(format)));
            }
            fs::remove_dir_all(place.path(format)).expect("the result");
        }
        let theirs: [(&str, [&str; 4]); 2] = [
            ("estargz library", ["estargz-build", &source, "theirs", "6"]),
            ("containers/storage", ["chunked-build", "app.layer", "theirs", "3"]),
        ];
        for (name, words) in theirs.iter().filter(|(_, words)| find(words[0]).is_some()) {
            table.add(name, measure(&place.command(words)));
            if round == 0 {
                sizes(name, &place.path("theirs"));
            }
            fs::remove_file(place.path("theirs")).expect("the result");
        }
        if find("soci").is_some() {
            let words =
                ["soci", "convert", "--standalone", "--platform", "linux/amd64", "--format", "oci-dir", "app", "out"];
            table.add("soci", measure(&place.command(&words)));
            fs::remove_dir_all(place.path("out")).expect("the result");
        }
    }
    table.print("lazy formats");
}
