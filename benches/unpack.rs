//! How much time and memory does it take to unpack an image with one gzip layer?
//!
//! The limit is `gzip -dc | tar -x`, which hashes nothing and checks no names. The layer holds a directory of this machine: `/usr` by
//! default, `OCIKIT_BENCH_TREE` otherwise; `OCIKIT_BENCH_SMOKE` takes a small one. Each program writes to an empty directory.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs;

use ocikit_benches::{Place, Table, find, measure};

const ROUNDS: usize = 3;

fn main() {
    let place = Place::start(env!("CARGO_BIN_EXE_ocikit-under-bench"));
    place.image_of("app", &[place.tree()], "/tree");
    let blob = place.layers("app").remove(0);

    let mut table = Table::new();
    for _ in 0..ROUNDS {
        table.add("ocikit unpack", measure(&place.ocikit(&["unpack", "oci:app:1", "out"])));
        fs::remove_dir_all(place.path("out")).expect("the result");
        fs::create_dir(place.path("out")).expect("a directory");
        let script = format!("gzip -dc {blob} | tar -x --numeric-owner -C out");
        table.add("gzip -dc, tar -x", measure(&place.command(&["sh", "-c", &script])));
        fs::remove_dir_all(place.path("out")).expect("the result");
        if find("umoci").is_some() {
            table.add(
                "umoci raw unpack",
                measure(&place.command(&["umoci", "raw", "unpack", "--image", "app:1", "out"])),
            );
            fs::remove_dir_all(place.path("out")).expect("the result");
        }
    }
    table.print("unpack");
}
