//! How much time and memory does it take to convert images with gzip layers to lazily pulled formats, beside the programs of
//! others?
//!
//! The first image has one layer, a directory of this machine: `/usr` by default, `OCIKIT_BENCH_TREE` otherwise. The second one has
//! several, of about 1 GiB together: three directories of `/usr`, or those of `OCIKIT_BENCH_LAYERS`, separated by colons.
//! `OCIKIT_BENCH_SMOKE` takes small ones. The other programs are those of `tests/peers/install.sh lazy` and `nydus`; they read
//! the decompressed layers one after the other, ocikit and `soci` read the image. Levels are equal: 6 for gzip, 3 for zstd. The
//! limit is what any program has to do, without hashing and tables: to decompress, and to compress.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs;

use ocikit_benches::{Place, Table, find, measure};

const ROUNDS: usize = 3;

/// A program, and what it needs to convert the layers `0.tar.gz`, `1.tar.gz` … and their tars to `0.out`, `1.out` ….
struct Peer {
    name: &'static str,
    program: &'static str,
    /// The words of a shell for each layer.
    script: &'static str,
}

const PEERS: [Peer; 5] = [
    Peer { name: "estargz library", program: "estargz-build", script: "estargz-build $n.tar.gz $n.out 6" },
    Peer { name: "containers/storage", program: "chunked-build", script: "chunked-build $n.tar $n.out 3" },
    Peer {
        name: "nydus-image create",
        program: "nydus-image",
        script: "nydus-image --log-level error create --type tar-rafs --fs-version 6 --compressor zstd \
                 --blob-inline-meta --blob $n.out $n.tar",
    },
    Peer { name: "limit: gzip -dc, gzip -6", program: "gzip", script: "gzip -dc $n.tar.gz | gzip -6 >$n.out" },
    Peer {
        name: "limit: gzip -dc, zstd -3 -T2",
        program: "zstd",
        script: "gzip -dc $n.tar.gz | zstd -q -3 -T2 -f -o $n.out",
    },
];

fn main() {
    let place = Place::start(env!("CARGO_BIN_EXE_ocikit-under-bench"));
    let tree = place.tree();
    compare(&place, "one layer", std::slice::from_ref(&tree));
    compare(&place, "several layers", &place.trees(&tree));
}

fn compare(place: &Place, title: &str, trees: &[String]) {
    // zstd:chunked needs an entry for each directory, and the destination has none.
    place.image_of("app", trees, "/");
    let sources = place.layers("app");
    for (number, source) in sources.iter().enumerate() {
        place.run(&["sh", "-c", &format!("ln {source} {number}.tar.gz && gzip -dc {source} >{number}.tar")]);
    }
    let outputs = || (0..sources.len()).map(|number| format!("{number}.out"));
    let numbers = (0..sources.len()).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");

    let mut table = Table::new();
    for _ in 0..ROUNDS {
        for format in ["estargz", "zstd-chunked", "soci", "nydus"] {
            let mut cost =
                measure(&place.ocikit(&["convert", "--to", format, "oci:app:1", "-o", &format!("oci:{format}:1")]));
            if format != "soci" {
                let layers = place.layers(format);
                assert!(!sources.iter().any(|source| layers.iter().any(|new| new.ends_with(&source["app".len()..]))));
                cost.result = Some(place.bytes(layers));
            }
            table.add(&format!("ocikit convert --to {format}"), cost);
            fs::remove_dir_all(place.path(format)).expect("the result");
        }
        for Peer { name, script, .. } in PEERS.iter().filter(|peer| find(peer.program).is_some()) {
            let script = format!("set -e; for n in {numbers}; do {script}; done");
            let mut cost = measure(&place.command(&["sh", "-c", &script]));
            cost.result = Some(place.bytes(outputs()));
            table.add(name, cost);
            outputs().for_each(|output| fs::remove_file(place.path(output)).expect("the result"));
        }
        if find("soci").is_some() {
            let words =
                ["soci", "convert", "--standalone", "--platform", "linux/amd64", "--format", "oci-dir", "app", "out"];
            table.add("soci convert", measure(&place.command(&words)));
            fs::remove_dir_all(place.path("out")).expect("the result");
        }
    }
    for number in 0..sources.len() {
        let _ = fs::remove_file(place.path(format!("{number}.tar")));
        let _ = fs::remove_file(place.path(format!("{number}.tar.gz")));
    }
    fs::remove_dir_all(place.path("app")).expect("the image");
    table.print(&format!("lazy formats: {title}"));
}
