//! How long does it take to push an archive of 1 GiB, eight layers that do not compress, to distribution's registry?
//!
//! The limit is what curl needs for the same blobs, four at a time, without hashing anything.

#![allow(clippy::expect_used, clippy::print_stderr, reason = "this is a bench")]

use std::path::Path;
use std::process::Command;

use ocikit_benches::{Table, daemon, find, layout, measure, run_if_asked, tar};

const ROUNDS: usize = 7;

fn main() {
    run_if_asked();
    let Some(registry) = find("registry") else { return };
    let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    layout(&path("layout"), 8, 128 << 20);
    tar(&path("layout"), &path("image.tar"));
    let mut table = Table::new();
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        for (name, line) in [
            ("ocikit push", vec![env!("CARGO_BIN_EXE_ocikit-under-bench"), "push", "-q", "image.tar", "REF"]),
            ("curl, 4 at a time, no hashing", vec!["sh", "-c", CURL, "curl", "REGISTRY"]),
            ("oras cp, from the tar", vec!["oras", "cp", "--to-plain-http", "--from-oci-layout", "image.tar:1", "REF"]),
            (
                "regctl image import",
                vec!["regctl", "--host", "reg=REGISTRY,tls=disabled", "image", "import", "REF", "image.tar"],
            ),
            ("crane push, from the layout", vec!["crane", "push", "layout", "REF"]),
            (
                "skopeo copy",
                vec![
                    "skopeo",
                    "copy",
                    "-q",
                    "--insecure-policy",
                    "--dest-tls-verify=false",
                    "oci-archive:image.tar",
                    "docker://REF",
                ],
            ),
        ] {
            // skopeo takes so long that fewer rounds tell enough.
            if (name.starts_with("skopeo") && round >= 3)
                || (!Path::new(line[0]).is_absolute() && find(line[0]).is_none())
            {
                continue;
            }
            let (mut server, address) = daemon(&registry, directory.path());
            let mut command = Command::new(line[0]);
            let words = line[1..]
                .iter()
                .map(|word| word.replace("REF", &format!("{address}/app:1")).replace("REGISTRY", &address));
            command.args(words).current_dir(directory.path()).env("HOME", directory.path());
            table.add(name, measure(&command));
            server.kill().and_then(|()| server.wait()).expect("a registry");
        }
    }
    table.print("push of 1 GiB, 8 layers");
}

/// Asks for an upload and sends a file there, for every blob of the layout.
const CURL: &str = r#"
ls layout/blobs/sha256 | xargs -P 4 -I{} sh -c '
  location=$(curl -sS -o /dev/null -D - -X POST "http://$0/v2/app/blobs/uploads/" | tr -d "\r" | sed -n "s/^[Ll]ocation: //p")
  curl -sS -f -o /dev/null -T "layout/blobs/sha256/$1" "$location&digest=sha256:$1"' "$1" {}
"#;
