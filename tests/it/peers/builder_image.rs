//! The builder images of `docs/builder`: built and pushed by one command, and run as the plugin is run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ocikit_tests::{Bench, Outcome, Peers, json, run, testdata};
use serde_json::{Value, json};

use super::build::{BUILDERS, context};
use crate::bench;

/// Copies a program and the libraries that it needs.
pub(super) fn copy_program(from: &Path, to: &Path, root: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
    let listed = Command::new("ldd").arg(from).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths: BTreeSet<_> = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    for library in paths {
        let target = root.join(library.strip_prefix("/").unwrap());
        if !target.exists() {
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(library, target).unwrap();
        }
    }
}

/// Pushes an image in place of `moby/buildkit:rootless`: the programs of the peers with their libraries, a shell, and a user with
/// IDs for a user namespace.
pub(super) fn buildkit_image(peers: &Peers, bench: &Bench, reference: &str) {
    let root = bench.path("base/root");
    let locate = |name: &str| PathBuf::from(peers.command(name).get_program());
    for name in ["buildctl", "buildkitd", "rootlesskit", "newuidmap", "newgidmap"] {
        copy_program(&locate(name), &root.join("usr/bin").join(name), &root);
    }
    copy_program(&locate("runc"), &root.join("usr/bin/buildkit-runc"), &root);
    for name in ["newuidmap", "newgidmap"] {
        fs::set_permissions(root.join("usr/bin").join(name), PermissionsExt::from_mode(0o4755)).unwrap();
    }
    fs::create_dir_all(root.join("bin")).unwrap();
    copy_program(&locate("busybox"), &root.join("bin/busybox"), &root);
    for name in ["sh", "rm", "sleep", "kill", "cat", "id", "ls", "env", "mkdir", "node"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    for (name, text) in [
        ("passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"),
        ("group", "root:x:0:\nuser:x:1000:\n"),
        ("subuid", "user:100000:65536\n"),
        ("subgid", "user:100000:65536\n"),
    ] {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc").join(name), text).unwrap();
    }
    for (name, mode) in [("tmp", 0o1777), ("run", 0o755), ("home/user", 0o777)] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let environment =
        "ENV HOME=/home/user BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock\nUSER 1000:1000\n";
    bench.write("base/Dockerfile", format!("FROM scratch\nCOPY root /\n{environment}"));
    let line = ["build", "base", "--no-cache-directory", "--compression", "gzip:1", "--tag", reference, "--push"];
    bench.ok(&line);
}

/// Copies the program under test without its debug information. It is not static, so its libraries are added to the base image.
pub(super) fn program(bench: &Bench) {
    fs::create_dir_all(bench.path("program")).unwrap();
    let from = PathBuf::from(bench.command::<&str>(&[]).get_program());
    let to = bench.path("program/ocikit");
    copy_program(&from, &to, &bench.path("base/root"));
    // Without it, the image is larger, and nothing else.
    let _ = Command::new("strip").arg(&to).status();
}

/// Runs a bundle by runc, with the privileges of `docker run --privileged --user 1000` and these mounts and variables.
fn run_bundle(peers: &Peers, bundle: &Path, mounts: &[(PathBuf, &str, bool)], variables: &[&str]) -> Outcome {
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (source, destination, writable) in mounts {
        let access = if *writable { "rw" } else { "ro" };
        let mount = json!({"type": "bind", "source": source, "destination": destination, "options": ["rbind", access]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    }
    let environment = config["process"]["env"].as_array_mut().unwrap();
    environment.extend(variables.iter().map(|variable| Value::from(*variable)));
    let all: Vec<_> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    for set in ["bounding", "effective", "inheritable", "permitted"] {
        config["process"]["capabilities"][set] = json!(all);
    }
    config["process"]["capabilities"]["ambient"] = json!([]);
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    config["process"]["noNewPrivileges"] = json!(false);
    config["process"]["terminal"] = json!(false);
    config["root"]["readonly"] = json!(false);
    config["linux"]["maskedPaths"] = json!([]);
    config["linux"]["readonlyPaths"] = json!([]);
    config["linux"].as_object_mut().unwrap().remove("seccomp");
    config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    fs::write(&path, config.to_string()).unwrap();
    let mut command = peers.command("runc");
    command.arg("--root").arg(peers.path("runc")).args(["run", "--bundle"]).arg(bundle).arg("ocikit-builder");
    run(&mut command, &[])
}

const CAPABILITIES: [&str; 15] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "SYS_ADMIN",
    "KILL",
    "NET_ADMIN",
];

#[test]
fn a_builder_image_is_built_pushed_and_run() {
    let needed = [&BUILDERS[..], &["registry", "rootlesskit", "newuidmap", "newgidmap", "ldd", "crane"]].concat();
    let Some(peers) = Peers::find(&needed) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    program(&bench);
    let base = format!("{}/moby/buildkit:rootless", registry.address);
    buildkit_image(&peers, &bench, &base);
    let digest = bench.ok(&["digest", &base]);

    // One command, with the definition in the documentation: no tar is extracted, and no other program pushes.
    let definition = testdata("../docs/builder");
    let (image, argument) = (format!("{}/ocikit-builder:1", registry.address), format!("BUILDKIT={base}@{digest}"));
    let directory = definition.display().to_string();
    let line = ["build", &directory, "--no-cache-directory", "--build-arg", &argument];
    bench.ok(&[&line[..], &["--build-context", "program=program", "--tag", &image, "--push"]].concat());
    let manifest = json(&peers.ok(&format!("crane manifest --insecure {image}")));
    let types = manifest.to_string();
    assert!(types.contains("application/vnd.oci.image.manifest.v1+json") && !types.contains("vnd.docker"), "{types}");

    bench.ok(&["unpack", "--bundle", &image, "bundle"]);
    let (source, output) = (bench.path("source"), bench.path("output"));
    context(&source);
    fs::create_dir(&output).unwrap();
    for (path, mode) in [(&output, 0o777), (&bench.path(""), 0o755)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let mounts = [(source.clone(), "/source", false), (output.clone(), "/build", true)];
    let variables = ["GIT_REPOSITORY_URL=https://example.com/a", "GIT_SHA=6c22711"];
    let ran = run_bundle(&peers, &bench.path("bundle"), &mounts, &variables);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("| seen"), "{ran}");
    let archive = output.join("container-image.tar").display().to_string();
    let facts = bench.json(&["inspect", "--json", &archive]);
    assert_eq!(facts["annotations"]["org.opencontainers.image.revision"], "6c22711");
    assert_eq!(fs::read_dir(&output).unwrap().count(), 1);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&archive).unwrap());
    assert_eq!(owner, 1000, "it does not run as root");
    peers.ok(&format!("skopeo inspect oci-archive:{archive}"));

    // The recipe for other toolchains, as root. The base image stands for that of Node.js.
    let image = format!("{}/ocikit-builder:nodejs", registry.address);
    let toolchain = format!("TOOLCHAIN={base}");
    let file = definition.join("toolchain.Dockerfile").display().to_string();
    let more =
        ["-f", &file, "--build-arg", &toolchain, "--build-context", "program=program", "--tag", &image, "--push"];
    bench.ok(&[&line[..], &more].concat());
    let config = bench.json(&["config", &image]);
    assert_eq!(config["config"]["User"], "0:0");
    let files = bench.ok(&["ls", &image]);
    for name in ["usr/bin/buildctl", "usr/bin/buildkit-runc", "usr/local/bin/ocikit", "bin/node"] {
        assert!(files.contains(name), "{name}: {files}");
    }
}
