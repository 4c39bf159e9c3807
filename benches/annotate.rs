//! How long does it take to annotate an archive of 10 MiB, 1 GiB and 4 GiB in place?
//!
//! No other program edits an archive in place: the alternative is to unpack, annotate the layout, and pack again. The limit is
//! `tar` appending one small file, followed by `sync`.

#![allow(clippy::expect_used, reason = "this is a bench")]

use std::process::Command;

use ocikit_benches::{Table, find, layout, measure, run_if_asked, tar};

const ROUNDS: usize = 9;

fn main() {
    run_if_asked();
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    for (title, layers, size) in [("10 MiB", 1, 10 << 20), ("1 GiB", 8, 128 << 20), ("4 GiB", 8, 512 << 20)] {
        layout(&path("layout"), layers, size);
        tar(&path("layout"), &path("image.tar"));
        let mut table = Table::new();
        for round in 0..ROUNDS {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ocikit-under-bench"));
            command.args(["annotate", "image.tar", &format!("round={round}")]).current_dir(directory.path());
            table.add("ocikit annotate", measure(&command));
            // `tar -r` runs on a copy, because the archive must not grow.
            if layers == 1 {
                std::fs::copy(path("image.tar"), path("copy.tar")).expect("a copy");
                let script = "tar -rf copy.tar layout/oci-layout && sync copy.tar";
                let mut command = Command::new("sh");
                command.args(["-c", script]).current_dir(directory.path());
                table.add("tar -r, and sync", measure(&command));
            }
        }
        if find("umoci").is_some() {
            let script = "rm -rf unpacked && mkdir unpacked && tar -xf image.tar -C unpacked && umoci config --image \
                          unpacked:1 --manifest.annotation k=v && tar -cf packed.tar -C unpacked . && rm -r unpacked packed.tar";
            for _ in 0..3 {
                let mut command = Command::new("sh");
                command.args(["-c", script]).current_dir(directory.path());
                table.add("unpack, umoci config, pack", measure(&command));
            }
        }
        table.print(&format!("annotate an archive of {title}"));
        std::fs::remove_dir_all(path("layout")).expect("a layout");
    }
}
