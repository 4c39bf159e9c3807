//! Pushing to real registries, and reading the result with other programs.

use std::process::Stdio;

use ocikit_spec::Digest;
use ocikit_tests::{Peers, fixture, json, single, testdata};

use crate::bench;

#[test]
fn other_tools_read_the_printed_digest() {
    let Some(peers) = Peers::find(&["registry", "olareg", "crane", "skopeo", "regctl", "oras"]) else { return };
    let bench = bench();
    for (kind, registry) in peers.registries() {
        let address = registry.address.replace("127.0.0.1", "localhost");
        for (tag, name) in [
            ("single", "buildkit-single/image.tar"),
            ("multi", "buildkit-multi/image.tar"),
            ("attested", "buildkit-attested/multi.tar"),
        ] {
            let source = fixture(name);
            let reference = format!("{address}/acme/app:{tag}");
            let digest = bench.ok(&["digest", &source]);
            assert_eq!(bench.ok(&["push", &source, &reference]), format!("{reference}@{digest}"), "{kind}");
            assert_eq!(peers.ok(&format!("crane digest {reference}")), digest, "{kind} {name}");
            let raw = peers.run(&format!("skopeo inspect --tls-verify=false --raw docker://{reference}")).stdout;
            assert_eq!(Digest::sha256_of(raw.as_bytes()).to_string(), digest, "{kind} {name}");
            let host = format!("--host reg={address},tls=disabled");
            let raw = peers.run(&format!("regctl {host} manifest get --format raw-body {reference}")).stdout;
            assert_eq!(Digest::sha256_of(raw.as_bytes()).to_string(), digest, "{kind} {name}");
            assert_eq!(peers.ok(&format!("oras resolve --plain-http {reference}")), digest, "{kind} {name}");
            // crane validates BuildKit attestations as images, which fails.
            if tag != "attested" {
                peers.ok(&format!("crane validate --insecure --remote {reference}"));
            }
        }
    }
}

/// olareg 0.1 loses entries of its list of referrers if several referrers of one subject are put at the same time.
#[test]
fn copies_keep_all_referrers_of_one_subject() {
    let Some(peers) = Peers::find(&["registry", "olareg"]) else { return };
    let bench = bench();
    std::fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    for name in ["one", "two", "three", "four"] {
        bench.ok(&["keygen", "--unencrypted", "-o", name]);
        bench.ok(&["sign", "-q", "--key", &format!("{name}.key"), "a.tar"]);
    }
    for (kind, registry) in peers.registries() {
        let address = registry.address.replace("127.0.0.1", "localhost");
        for round in 0..5 {
            let reference = format!("{address}/referrers/app{round}:1");
            bench.ok(&["push", "-q", "a.tar", &reference]);
            let referrers = bench.ok(&["referrers", &reference]);
            assert_eq!(
                referrers.lines().filter(|line| line.contains("sigstore.bundle")).count(),
                4,
                "{kind}: {referrers}"
            );
        }
    }
}

#[test]
fn all_tools_read_pulled_images() {
    let Some(peers) = Peers::find(&["registry", "olareg", "crane", "skopeo", "umoci", "podman", "oras", "regctl"])
    else {
        return;
    };
    let bench = bench();
    for (kind, registry) in peers.registries() {
        let reference = format!("{}/acme/app:1", registry.address.replace("127.0.0.1", "localhost"));
        let source = single();
        bench.ok(&["push", &source, &reference]);
        bench.ok(&["pull", &reference, "-o", "pulled.tar"]);
        bench.ok(&["pull", &reference, "-o", "oci:layout:1"]);
        let (archive, layout) = (bench.path("pulled.tar"), bench.path("layout"));
        let (archive, layout) = (archive.display(), layout.display());
        let digest = bench.ok(&["digest", &source]);

        peers.ok(&format!("skopeo copy oci-archive:{archive} oci:skopeo-{kind}:1"));
        peers.ok(&format!("skopeo copy oci:{layout}:1 dir:dir-{kind}"));
        peers.ok(&format!("umoci unpack --rootless --image {layout}:1 umoci-{kind}"));
        assert!(peers.path(&format!("umoci-{kind}/rootfs/app/app")).exists());
        let storage = format!("--root {0}/r-{kind} --runroot {0}/rr-{kind}", peers.path("").display());
        let options = "--storage-driver vfs --cgroup-manager cgroupfs --events-backend none";
        let loaded = peers.ok(&format!("podman {storage} {options} load -q -i {archive}"));
        assert!(loaded.contains("Loaded image"), "{loaded}");
        assert_eq!(peers.ok(&format!("oras resolve --oci-layout {archive}:1")), digest);
        assert_eq!(peers.ok(&format!("oras resolve --oci-layout {layout}:1")), digest);
        peers.ok(&format!("regctl image import ocidir://regctl-{kind}:1 {archive}"));
        assert_eq!(peers.ok(&format!("regctl image digest ocidir://regctl-{kind}:1")), digest);
        let other = format!("{}/crane:1", registry.address.replace("127.0.0.1", "localhost"));
        peers.ok(&format!("crane push {layout} {other}"));
        assert_eq!(peers.ok(&format!("crane digest {other}")), digest);
    }
}

#[test]
fn pulled_blobs_are_identical() {
    let Some(peers) = Peers::find(&["registry", "olareg"]) else { return };
    let bench = bench();
    for (kind, registry) in peers.registries() {
        for (tag, name) in [("multi", "buildkit-multi/image.tar"), ("attested", "buildkit-attested/multi.tar")] {
            let reference = format!("{}/app:{tag}", registry.address.replace("127.0.0.1", "localhost"));
            bench.ok(&["push", &fixture(name), &reference]);
            let layout = format!("{kind}-{tag}");
            bench.ok(&["pull", &reference, "-o", &format!("oci:{layout}")]);
            let blobs = std::fs::read_dir(bench.path(&layout).join("blobs/sha256")).unwrap();
            let mut count = 0;
            for blob in blobs {
                let blob = blob.unwrap();
                let digest = Digest::sha256_of(&std::fs::read(blob.path()).unwrap());
                assert_eq!(digest.hex(), blob.file_name().to_string_lossy());
                count += 1;
            }
            let text = std::fs::read_to_string(testdata("expected.json")).unwrap();
            let expected = json(&text);
            assert_eq!(expected["fixtures"][name]["oci"]["blobs"]["count"], count);
        }
    }
}

#[test]
fn buildkit_output_is_pushed_from_a_pipe() {
    let Some(peers) = Peers::find(&["registry", "buildctl", "buildkitd", "runc", "crane"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let socket = peers.path("bk.sock");
    let address = format!("unix://{}", socket.display());
    let mut command = peers.command("buildkitd");
    command.arg("--root").arg(peers.path("bk")).args(["--addr", &address, "--oci-worker-snapshotter=native"]);
    let mut daemon = ocikit_tests::Daemon::start(command, &peers.path("bk.log"));
    daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
    std::fs::create_dir(peers.path("context")).unwrap();
    std::fs::write(peers.path("context/Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    std::fs::write(peers.path("context/file"), vec![7; 5 << 20]).unwrap();
    let mut build = peers.command("buildctl");
    build.args(["--addr", &address, "build", "--frontend=dockerfile.v0", "--local=context=context"]);
    build.args(["--local=dockerfile=context", "--output=type=oci,dest=-", "--progress=plain"]);
    let mut build = build.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let reference = format!("{}/app:1", registry.address.replace("127.0.0.1", "localhost"));
    let push = bench.command(&["push", "-", &reference]).stdin(build.stdout.take().unwrap()).output().unwrap();
    assert!(build.wait().unwrap().success() && push.status.success(), "{}", String::from_utf8_lossy(&push.stderr));
    let digest = peers.ok(&format!("crane digest {reference}"));
    assert_eq!(String::from_utf8_lossy(&push.stdout), format!("{reference}@{digest}\n"));
    peers.ok(&format!("crane validate --insecure --remote {reference}"));
    assert_eq!(bench.names(), Vec::<String>::new(), "no temporary file");
}
