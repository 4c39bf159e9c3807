//! How long does `inspect` of an archive with 10,000 entries take?
//!
//! The limit is reading every header once, as `tar -tf` does.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use ocikit_archive::{END, Header, padding};
use ocikit_benches::{Table, find, layout, measure, random, run_if_asked, tar};
use ocikit_spec::Digest;

const ROUNDS: usize = 15;

fn main() {
    run_if_asked();
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    layout(&path("layout"), 8, 4096);
    tar(&path("layout"), &path("small.tar"));
    // The image is at the end, so that every reader must read all headers before it.
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path("image.tar")).expect("a file");
    for number in 0..10_000_u64 {
        let bytes = random(number + 1000, 8192);
        file.write_all(&Header::file(&Digest::sha256_of(&bytes).blob_path(), 8192).to_bytes()).expect("room");
        file.write_all(&bytes).expect("room");
        file.write_all(&END[..padding(8192) as usize]).expect("room");
    }
    file.seek(SeekFrom::End(0)).expect("a file");
    file.write_all(&std::fs::read(path("small.tar")).expect("an archive")).expect("room");
    drop(file);

    let mut table = Table::new();
    for _ in 0..ROUNDS {
        for (name, line) in [
            ("ocikit inspect", vec![env!("CARGO_BIN_EXE_ocikit-under-bench"), "inspect", "image.tar"]),
            ("tar -tf", vec!["tar", "-tf", "image.tar"]),
            ("oras manifest fetch", vec!["oras", "manifest", "fetch", "--oci-layout", "image.tar:1"]),
            ("skopeo inspect", vec!["skopeo", "inspect", "--raw", "oci-archive:image.tar"]),
        ] {
            if line[0].starts_with('/') || find(line[0]).is_some() {
                let mut command = Command::new(line[0]);
                command.args(&line[1..]).current_dir(directory.path()).env("HOME", directory.path());
                table.add(name, measure(&command));
            }
        }
    }
    table.print("open and inspect, 10,000 entries");
}
