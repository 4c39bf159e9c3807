//! How much time and memory does it take to convert a docker archive of 10 MiB, 1 GiB and 4 GiB to an OCI archive?
//!
//! The layers stay uncompressed. The limit is reading, hashing and writing once: `tee` to a file and to sha256sum.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::fs;
use std::process::{Command, Stdio};

use ocikit_benches::{Table, find, layout, measure, run_if_asked, tar};

const ROUNDS: usize = 3;

fn main() {
    run_if_asked();
    // skopeo writes the docker archive.
    if find("skopeo").is_none() {
        return;
    }
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let ocikit = env!("CARGO_BIN_EXE_ocikit-under-bench");
    for (title, layers, size) in [("10 MiB", 1, 10 << 20), ("1 GiB", 8, 128 << 20), ("4 GiB", 8, 512 << 20)] {
        layout(&path("layout"), layers, size);
        tar(&path("layout"), &path("image.tar"));
        fs::remove_dir_all(path("layout")).expect("a layout");
        let line = |line: &[&str]| {
            let mut command = Command::new(line[0]);
            command.args(&line[1..]).current_dir(directory.path()).env("HOME", directory.path());
            command
        };
        // A docker archive without an OCI layout, as docker before version 25 and podman write it.
        let save = ["skopeo", "--insecure-policy", "copy", "--quiet", "oci-archive:image.tar:1"];
        let mut save = line(&[&save[..], &["docker-archive:saved.tar:example/app:1"]].concat());
        assert!(save.stdout(Stdio::null()).status().expect("skopeo").success());
        let mut table = Table::new();
        for _ in 0..ROUNDS {
            table.add("ocikit copy", measure(&line(&[ocikit, "copy", "--quiet", "saved.tar", "oci.tar"])));
            fs::remove_file(path("oci.tar")).expect("the OCI archive");
            let skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-decompress"];
            let skopeo = [&skopeo[..], &["docker-archive:saved.tar", "oci-archive:oci.tar:1"]].concat();
            table.add("skopeo copy", measure(&line(&skopeo)));
            fs::remove_file(path("oci.tar")).expect("the OCI archive");
            let limit = "tee copy.tar < saved.tar | sha256sum > sum";
            table.add("copy and sha256sum", measure(&line(&["sh", "-c", limit])));
            fs::remove_file(path("copy.tar")).expect("the copy");
            let validate = line(&[ocikit, "validate", "--quiet", "image.tar"]);
            table.add("(ocikit validate, of the OCI archive)", measure(&validate));
        }
        fs::remove_file(path("saved.tar")).expect("the docker archive");
        table.print(&format!("docker archive of {title} to OCI archive"));
    }
}
