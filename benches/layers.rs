//! How much time, memory and room does it take to recompress an image from gzip to zstd and back, and to append a directory?
//!
//! skopeo recompresses while it copies. crane appends a tar, which `tar` has to write first. The image has layers from a
//! directory of this machine: `/usr` by default, `OCIKIT_BENCH_TREE` otherwise; `OCIKIT_BENCH_SMOKE` takes a small one.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs;

use ocikit_benches::{Place, Table, find, layout, measure, tar};

const ROUNDS: usize = 3;

fn main() {
    let place = Place::start(env!("CARGO_BIN_EXE_ocikit-under-bench"));
    let tree = place.tree();
    layout(&place.path("layout"), 1, 1 << 10);
    tar(&place.path("layout"), &place.path("base.tar"));
    place.run_ocikit(&["append", "base.tar", &tree, "--destination", "/tree", "-o", "oci:gzip:1"]);
    place.run_ocikit(&["recompress", "--compression", "zstd", "oci:gzip:1", "-o", "oci:zstd:1"]);

    for (from, to) in [("gzip", "zstd"), ("zstd", "gzip")] {
        let mut table = Table::new();
        for _ in 0..ROUNDS {
            let source = format!("oci:{from}:1");
            let ours = ["recompress", "--compression", to, &source, "-o", "oci:out:1"];
            table.add("ocikit recompress", measure(&place.ocikit(&ours)));
            fs::remove_dir_all(place.path("out")).expect("the result");
            if find("skopeo").is_some() {
                let format = ["--dest-compress-format", to];
                let skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet", &source, "oci:out:1"];
                table.add("skopeo copy", measure(&place.command(&[&skopeo[..], &format].concat())));
                fs::remove_dir_all(place.path("out")).expect("the result");
            }
        }
        table.print(&format!("recompress {from} to {to}"));
    }

    let mut table = Table::new();
    for _ in 0..ROUNDS {
        table.add("ocikit append", measure(&place.ocikit(&["append", "base.tar", &tree, "-o", "out.tar"])));
        fs::remove_file(place.path("out.tar")).expect("the result");
        if find("crane").is_some() {
            let script =
                format!("tar -C {tree} -cf layer.tar . && crane append -f layer.tar -t bench/app:1 -o out.tar");
            table.add("tar, crane append", measure(&place.command(&["sh", "-c", &script])));
            let _ = fs::remove_file(place.path("layer.tar"));
            let _ = fs::remove_file(place.path("out.tar"));
        }
    }
    table.print("append a directory");
}
