//! How much time and memory does it take to convert images with gzip layers to lazily pulled formats, beside the programs of
//! others?
//!
//! The first image has one layer, a directory of this machine: `/usr` by default, `OCIKIT_BENCH_TREE` otherwise. The second one has
//! several, of about 1 GiB together: three directories of `/usr`, or those of `OCIKIT_BENCH_LAYERS`, separated by colons.
//! `OCIKIT_BENCH_SMOKE` takes small ones. The other programs are those of `tests/peers/install.sh lazy`, and `nydus-image`; they
//! convert the layers one after the other, ocikit and `soci` read the image. Levels are equal: 6 for gzip, 3 for zstd. The
//! limit is what any program has to do, without hashing and tables: to decompress, and to compress.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "this is a bench")]

use std::fs;
use std::process::Stdio;

use ocikit_benches::{Place, Table, find, measure};

const ROUNDS: usize = 3;

/// A program that converts the layers `0.tar.gz`, `1.tar.gz` …, or their tars, to `0.out`, `1.out` ….
struct Peer {
    /// The format of `ocikit convert --to` that it is compared with.
    format: &'static str,
    name: &'static str,
    program: &'static str,
    /// The words of a shell for each layer.
    script: &'static str,
}

const PEERS: [Peer; 7] = [
    Peer {
        format: "estargz",
        name: "estargz library",
        program: "estargz-build",
        script: "estargz-build $n.tar.gz $n.out 6",
    },
    Peer {
        format: "zstd-chunked",
        name: "containers/storage",
        program: "chunked-build",
        script: "chunked-build $n.tar $n.out 3",
    },
    Peer {
        format: "nydus",
        name: "nydus-image create",
        program: "nydus-image",
        script: "nydus-image --log-level error create --type targz-rafs --fs-version 6 --compressor zstd \
                 --blob-inline-meta --blob $n.out $n.tar.gz",
    },
    Peer {
        format: "nydus",
        name: "nydus-image create, from tars",
        program: "nydus-image",
        script: "nydus-image --log-level error create --type tar-rafs --fs-version 6 --compressor zstd \
                 --blob-inline-meta --blob $n.out $n.tar",
    },
    Peer {
        format: "estargz",
        name: "limit: gzip -dc, gzip -6",
        program: "gzip",
        script: "gzip -dc $n.tar.gz | gzip -6 >$n.out",
    },
    Peer {
        format: "zstd-chunked",
        name: "limit: gzip -dc, zstd -3 -T2",
        program: "zstd",
        script: "gzip -dc $n.tar.gz | zstd -q -3 -T2 -f -o $n.out",
    },
    Peer {
        format: "soci",
        name: "soci convert",
        program: "soci",
        script: "soci convert --standalone --platform linux/amd64 --format oci-dir app $n.out",
    },
];

const FORMATS: [&str; 4] = ["estargz", "zstd-chunked", "soci", "nydus"];

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
    let peers: Vec<_> =
        PEERS.iter().filter(|peer| find(peer.program).is_some() && converts(place, peer, sources.len())).collect();
    let mut tables = FORMATS.map(|_| Table::new());
    for _ in 0..ROUNDS {
        for (format, table) in FORMATS.into_iter().zip(&mut tables) {
            let mut cost =
                measure(&place.ocikit(&["convert", "--to", format, "oci:app:1", "-o", &format!("oci:{format}:1")]));
            if format != "soci" {
                let layers = place.layers(format);
                assert!(!sources.iter().any(|source| layers.iter().any(|new| new.ends_with(&source["app".len()..]))));
                cost.result = Some(place.bytes(layers));
            }
            table.add("ocikit convert", cost);
            fs::remove_dir_all(place.path(format)).expect("the result");
            for peer in peers.iter().filter(|peer| peer.format == format) {
                let mut cost = measure(&place.command(&["sh", "-c", &peer.line(sources.len())]));
                let outputs = peer.outputs(sources.len());
                cost.result = (format != "soci").then(|| place.bytes(outputs));
                table.add(peer.name, cost);
                remove_outputs(place, sources.len());
            }
        }
    }
    for number in 0..sources.len() {
        let _ = fs::remove_file(place.path(format!("{number}.tar")));
        let _ = fs::remove_file(place.path(format!("{number}.tar.gz")));
    }
    fs::remove_dir_all(place.path("app")).expect("the image");
    for (format, table) in FORMATS.into_iter().zip(tables) {
        table.print(&format!("{title} to {format}"));
    }
}

impl Peer {
    /// Returns the names of its results.
    fn outputs(&self, layers: usize) -> impl Iterator<Item = String> {
        (0..self.times(layers)).map(|number| format!("{number}.out"))
    }

    /// Returns how often it is started: once for each layer, or once for the image.
    fn times(&self, layers: usize) -> usize {
        if self.format == "soci" { 1 } else { layers }
    }

    /// Returns the line for a shell.
    fn line(&self, layers: usize) -> String {
        let numbers = (0..self.times(layers)).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        format!("set -e; for n in {numbers}; do {}; done", self.script)
    }
}

fn remove_outputs(place: &Place, layers: usize) {
    for output in (0..layers).map(|number| place.path(format!("{number}.out"))) {
        let _ = fs::remove_file(&output).or_else(|_| fs::remove_dir_all(&output));
    }
}

/// Returns whether a program can convert the layers at all.
fn converts(place: &Place, peer: &Peer, layers: usize) -> bool {
    let status = place.command(&["sh", "-c", &peer.line(layers)]).stdout(Stdio::null()).status().expect("a shell");
    if !status.success() {
        eprintln!("{} cannot convert these layers and is skipped", peer.name);
    }
    remove_outputs(place, layers);
    status.success()
}
