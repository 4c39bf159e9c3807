//! Paths that are links, pipes or devices.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use ocikit_spec::Digest;
use ocikit_tests::{Bench, Compression, Registry, Tar, write_image};

use super::layouts::{layers, tree};
use crate::bench;

/// Creates files next to a layout that no command may change, and a layout whose `blobs` is a symlink to them.
fn hostile(bench: &Bench) -> Vec<String> {
    let outside = bench.path("outside");
    fs::create_dir_all(outside.join("sha256")).unwrap();
    let digest = Digest::sha256_of(b"precious");
    fs::write(outside.join("precious.txt"), "precious").unwrap();
    fs::write(outside.join("sha256/precious.txt"), "precious").unwrap();
    fs::write(outside.join("sha256").join(digest.hex()), "precious").unwrap();
    fs::write(outside.join("sha256/.ocikit-old"), "precious").unwrap();
    tree(&outside)
}

#[test]
fn no_command_writes_or_removes_files_outside_a_layout() {
    for links in ["blobs", "blobs/sha256"] {
        let bench = bench();
        write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
        let outside = hostile(&bench);
        bench.ok(&["copy", "a.tar", "oci:layout:1"]);
        // The image is also in `outside`, so that every blob can be read through the symlink.
        for blob in fs::read_dir(bench.path("layout/blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            fs::copy(blob.path(), bench.path("outside/sha256").join(blob.file_name())).unwrap();
        }
        let before = tree(&bench.path("outside"));
        assert!(before.len() > outside.len());
        let link = bench.path("layout").join(links);
        fs::remove_dir_all(&link).unwrap();
        let target = if links == "blobs" { bench.path("outside") } else { bench.path("outside/sha256") };
        symlink(target, &link).unwrap();
        write_image(&bench.path("b.tar"), Compression::Zstd, &[Tar::new().file("other", b"other").finish()]);
        bench.write("blob", "a new blob");
        for line in [
            &["gc", "oci:layout"][..],
            &["gc", "--dry-run", "oci:layout"],
            &["copy", "b.tar", "oci:layout:2"],
            &["annotate", "oci:layout:1", "k=v"],
            &["blob", "put", "blob", "oci:layout"],
        ] {
            let outcome = bench.ocikit(line);
            assert_eq!(outcome.code, 1, "{line:?}: {outcome}");
            assert!(outcome.stderr.contains("symlinks are not followed"), "{line:?}: {outcome}");
            assert_eq!(tree(&bench.path("outside")), before, "{line:?}");
        }
        for name in ["precious.txt", "sha256/precious.txt"] {
            assert_eq!(fs::read_to_string(bench.path("outside").join(name)).unwrap(), "precious");
        }
    }
}

#[test]
fn gc_removes_regular_files_named_by_digests_and_nothing_else() {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    let blobs = bench.path("layout/blobs/sha256");
    let name = |content: &[u8]| Digest::sha256_of(content).hex();
    bench.write("precious", "precious");
    fs::write(blobs.join(name(b"garbage")), "garbage").unwrap();
    symlink(bench.path("precious"), blobs.join(name(b"link"))).unwrap();
    fs::create_dir(blobs.join(name(b"directory"))).unwrap();
    fs::write(blobs.join(name(b"directory")).join(name(b"below")), "below").unwrap();
    fs::create_dir_all(bench.path("layout/blobs/md5")).unwrap();
    let others = ["notes.txt", &name(b"upper").to_uppercase(), &name(b"short")[1..], "../../mine", "../md5/file"];
    for other in others {
        fs::write(blobs.join(other), "mine").unwrap();
    }
    let gone = bench.ok(&["gc", "oci:layout"]);
    assert_eq!(gone.lines().count(), 2, "{gone}");
    assert!(gone.starts_with(&format!("blobs/sha256/{} (7 B)\n", name(b"garbage"))), "{gone}");
    for other in others {
        assert!(blobs.join(other).exists(), "{other}");
    }
    assert!(fs::symlink_metadata(blobs.join(name(b"link"))).unwrap().is_symlink());
    assert!(blobs.join(name(b"directory")).join(name(b"below")).exists());
    assert!(!blobs.join(name(b"garbage")).exists());
    assert_eq!(bench.read("precious"), "precious");
    bench.ok(&["validate", "oci:layout:1"]);
}

#[test]
fn symlinked_index_json_is_replaced_and_its_target_kept() {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    for line in [&["annotate", "oci:layout:1", "k=v"][..], &["tag", "oci:layout:1", "2"], &["delete", "oci:layout:1"]] {
        bench.ok(&["copy", "a.tar", "oci:layout:1"]);
        let list = bench.path("layout/index.json");
        fs::rename(&list, bench.path("list.json")).unwrap();
        let before = fs::read(bench.path("list.json")).unwrap();
        symlink(bench.path("list.json"), &list).unwrap();
        bench.ok(line);
        assert!(fs::symlink_metadata(&list).unwrap().is_file(), "{line:?}");
        assert_eq!(fs::read(bench.path("list.json")).unwrap(), before, "{line:?}");
        fs::remove_dir_all(bench.path("layout")).unwrap();
    }
}

#[test]
fn docker_cli_1514_output_to_devices_and_pipes() {
    let bench = bench();
    let digest = write_image(&bench.path("a.tar"), Compression::Gzip, &layers()).to_string();
    assert!(Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap().success());
    let manifest = bench.ok(&["manifest", "get", "a.tar"]);
    for line in [
        &["copy", "a.tar", "oci-archive:pipe"][..],
        &["copy", "a.tar", "./pipe"],
        &["annotate", "a.tar", "k=v", "-o", "./pipe"],
        &["manifest", "get", "a.tar", "-o", "pipe"],
        &["blob", "get", &format!("a.tar@{digest}"), "-o", "pipe"],
    ] {
        let path = bench.path("pipe");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        });
        bench.ok(line);
        let bytes = reader.join().unwrap();
        assert!(fs::symlink_metadata(bench.path("pipe")).unwrap().file_type().is_fifo(), "{line:?}");
        match line[0] {
            "copy" => {
                bench.write("out.tar", &bytes);
                assert_eq!(bench.ok(&["digest", "out.tar"]), digest, "{line:?}");
            }
            "annotate" => assert!(bytes.len() > 1024),
            _ => assert_eq!(String::from_utf8(bytes).unwrap(), manifest),
        }
    }
    for device in ["/dev/null", "/dev/full"] {
        let link = bench.path("device.tar");
        symlink(device, &link).unwrap();
        for output in [device, "device.tar", "./device.tar"] {
            let code = if device == "/dev/null" { 0 } else { 1 };
            let outcome = bench.ocikit(&["copy", "a.tar", &format!("oci-archive:{output}")]);
            assert_eq!(outcome.code, code, "{output}: {outcome}");
            assert_eq!(bench.ocikit(&["manifest", "get", "a.tar", "-o", output]).code, code, "{output}");
            assert!(fs::metadata(device).unwrap().file_type().is_char_device(), "{output}");
        }
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(device));
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn docker_cli_1514_symlinks_are_followed() {
    let bench = bench();
    let digest = write_image(&bench.path("a.tar"), Compression::Gzip, &layers()).to_string();
    fs::create_dir(bench.path("sub")).unwrap();
    for target in ["sub/new.tar", "sub/there.tar"] {
        bench.write("sub/there.tar", "old");
        symlink(target, bench.path("link.tar")).unwrap();
        bench.ok(&["copy", "a.tar", "link.tar"]);
        assert_eq!(bench.ok(&["digest", target]), digest);
        // Edits in place and rewrites.
        bench.ok(&["annotate", "link.tar", "k=v"]);
        bench.ok(&["annotate", "link.tar", "--remove", "k"]);
        bench.ok(&["gc", "link.tar"]);
        bench.ok(&["manifest", "get", "a.tar", "-o", "link.tar"]);
        assert_eq!(bench.read(target), bench.ok(&["manifest", "get", "a.tar"]));
        assert_eq!(fs::read_link(bench.path("link.tar")).unwrap(), Path::new(target));
        fs::remove_file(bench.path("link.tar")).unwrap();
    }
}

#[test]
fn standard_output_can_be_named_dash_or_by_its_path() {
    let bench = bench();
    let digest = write_image(&bench.path("a.tar"), Compression::Gzip, &layers()).to_string();
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let output = bench.command(&["copy", "a.tar", name]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        bench.write("out.tar", &output.stdout);
        assert_eq!(bench.ok(&["digest", "out.tar"]), digest, "{name}");
        // A file that is already open is written, not replaced.
        let file = File::create(bench.path("open.tar")).unwrap();
        assert!(bench.command(&["copy", "a.tar", name]).stdout(file).status().unwrap().success());
        assert_eq!(bench.ok(&["digest", "open.tar"]), digest, "{name}");
        let got = bench.ocikit(&["manifest", "get", "a.tar", "-o", name]);
        assert_eq!((got.code, got.stdout), (0, bench.ok(&["manifest", "get", "a.tar"])), "{name}");
    }
}

#[test]
fn standard_input_and_pipes_can_be_named_like_a_dash() {
    let bench = bench();
    let registry = Registry::start();
    let digest = write_image(&bench.path("a.tar"), Compression::Gzip, &layers()).to_string();
    let bytes = fs::read(bench.path("a.tar")).unwrap();
    let manifest = bench.ok(&["manifest", "get", "a.tar"]);
    assert!(Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap().success());
    for (number, name) in ["-", "/dev/stdin", "/dev/fd/0", "./pipe"].into_iter().enumerate() {
        let run = |arguments: &[&str], input: &[u8]| {
            let (path, input) = (bench.path("pipe"), input.to_vec());
            if name != "./pipe" {
                return bench.ocikit_with_input(arguments, &input);
            }
            let writer = std::thread::spawn(move || {
                let mut file = File::options().write(true).open(path).unwrap();
                // The write fails if the reader closes the pipe early.
                let _ = file.write_all(&input);
            });
            let outcome = bench.ocikit_with_input(arguments, b"");
            writer.join().unwrap();
            outcome
        };
        let reference = format!("{}/a{number}:1", registry.name());
        let outcome = run(&["push", name, &reference], &bytes);
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        assert_eq!(bench.ok(&["digest", &reference]), digest, "{name}");
        let outcome = run(&["copy", name, &format!("oci:out{number}")], &bytes);
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        let outcome = run(&["manifest", "put", name, &format!("{}/a{number}:2", registry.name())], manifest.as_bytes());
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        let outcome = run(&["blob", "put", name, &format!("{}/a{number}", registry.name())], b"a blob");
        assert_eq!(outcome.stdout.trim(), Digest::sha256_of(b"a blob").to_string(), "{name}: {outcome}");
    }
}

#[test]
fn pipes_and_devices_in_place_of_files_are_errors() {
    let bench = bench();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    assert!(Command::new("mkfifo").arg(bench.path("pipe.tar")).status().unwrap().success());
    // The pipe has no writer: opening it for reading would block.
    for line in [
        &["inspect", "pipe.tar"][..],
        &["inspect", "docker-archive:pipe.tar"],
        &["annotate", "pipe.tar", "k=v"],
        &["validate", "pipe.tar"],
        &["gc", "pipe.tar"],
        &["annotate", "/dev/zero", "k=v"],
        &["inspect", "/dev/zero"],
    ] {
        let outcome = bench.ocikit(line);
        assert!(outcome.code == 2 && outcome.stderr.starts_with("error: "), "{line:?}: {outcome}");
    }
    for line in [
        &["verify", "a.tar", "--key", "/dev/zero"][..],
        &["verify", "a.tar", "--policy", "/dev/zero"],
        &["manifest", "put", "/dev/zero", "oci:out"],
        &["sync", "/dev/zero"],
    ] {
        let outcome = bench.ocikit(line);
        assert!(outcome.code == 2 && outcome.stderr.contains("it has more than"), "{line:?}: {outcome}");
    }
    let registry = Registry::start();
    for (file, repository) in [("/dev/zero", "device"), ("pipe.tar", "pipe")] {
        let reference = format!("{}/{repository}:1", registry.name());
        let outcome = run_with(&bench, "CONTAINERS_REGISTRIES_CONF", file, &["push", "a.tar", &reference]);
        assert_eq!(outcome.code, 2, "{file}: {outcome}");
        // Credentials that cannot be read do not stop anonymous access.
        let outcome = run_with(&bench, "REGISTRY_AUTH_FILE", file, &["push", "a.tar", &reference]);
        let reason = if file == "pipe.tar" { "it is a pipe or socket" } else { "it has more than 16777216 bytes" };
        assert_eq!(outcome.code, 0, "{file}: {outcome}");
        assert!(outcome.stderr.starts_with("warning: cannot read credentials for "), "{file}: {outcome}");
        assert_eq!(outcome.stderr.matches(reason).count(), 1, "{file}: {outcome}");
    }
    let reference = format!("{}/null:1", registry.name());
    let outcome = run_with(&bench, "REGISTRY_AUTH_FILE", "/dev/null", &["push", "a.tar", &reference]);
    assert!(outcome.code == 0 && !outcome.stderr.contains("warning"), "{outcome}");
}

fn run_with(bench: &Bench, variable: &str, value: &str, arguments: &[&str]) -> ocikit_tests::Outcome {
    let mut command = bench.command(arguments);
    command.env(variable, value);
    ocikit_tests::run(command.stdin(Stdio::null()), &[])
}

#[test]
fn buildx_4092_path_may_contain_a_number_sign() {
    let bench = bench();
    fs::create_dir(bench.path("dir#7")).unwrap();
    write_image(&bench.path("a.tar"), Compression::Gzip, &layers());
    for path in ["dir#7/app.tar", "app#1.2.tar", "./app#1"] {
        bench.ok(&["copy", "a.tar", path]);
        assert!(bench.path(path).exists(), "{path}");
        bench.ok(&["validate", path]);
    }
    bench.ok(&["copy", "a.tar", "dir#7/tagged.tar#v2"]);
    bench.ok(&["digest", "dir#7/tagged.tar#v2"]);
}
