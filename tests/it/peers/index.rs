//! Indexes: the same digest as other tools, fewer requests, and every tool reads the result.

use std::fs;

use ocikit_tests::{Bench, Peers, Registry, attested, json, multi};

use crate::bench;

const PLATFORMS: [(&str, &str); 3] = [("amd64", "linux/amd64"), ("arm64", "linux/arm64"), ("arm", "linux/arm/v7")];

/// Pushes one image for each platform, under its architecture as the tag.
fn push_platforms(bench: &Bench, repository: &str) {
    for (tag, platform) in PLATFORMS {
        bench.ok(&["copy", "-q", "--platform", platform, &multi(), &format!("{repository}:{tag}")]);
    }
}

fn local(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

#[test]
fn an_index_has_the_digest_that_regctl_and_oras_give_it() {
    let Some(peers) = Peers::find(&["crane", "regctl", "oras", "registry", "olareg"]) else { return };
    for (name, registry) in peers.registries() {
        let (bench, host) = (bench(), local(&registry.address));
        peers.ok(&format!("regctl registry set --tls disabled {host}"));
        let at = |tag: &str| format!("{host}/app:{tag}");
        push_platforms(&bench, &format!("{host}/app"));
        let ours = bench.ok(&["index", "create", &at("ours"), &at("amd64"), &at("arm64"), &at("arm")]);
        peers.ok(&format!("oras manifest index create --plain-http {} amd64 arm64 arm", at("oras")));
        peers.ok(&format!(
            "regctl index create {} --ref {} --ref {} --ref {}",
            at("regctl"),
            at("amd64"),
            at("arm64"),
            at("arm")
        ));
        for tool in ["oras", "regctl"] {
            assert_eq!(bench.ok(&["digest", &at(tool)]), ours, "{tool} on {name}");
        }
        // crane adds the media type of the config as an artifact type.
        let crane = format!("-m {} -m {} -m {}", at("amd64"), at("arm64"), at("arm"));
        peers.ok(&format!("crane index append {crane} -t {}", at("crane")));
        let values = |tag: &str| {
            let index = json(&bench.ok(&["manifest", "get", &at(tag)]));
            let entries = index["manifests"].as_array().unwrap().iter();
            entries.map(|entry| [entry["digest"].clone(), entry["platform"].clone()]).collect::<Vec<_>>()
        };
        assert_eq!(values("crane"), values("ours"), "{name}");

        let removed = bench.ok(&["index", "remove", "-q", "--platform", "linux/arm/v7", &at("ours")]);
        peers.ok(&format!("regctl index delete {} --platform linux/arm/v7", at("regctl")));
        assert_eq!(bench.ok(&["digest", &at("regctl")]), removed, "{name}");
        let added = bench.ok(&["index", "add", "-q", &at("ours"), &at("arm")]);
        peers.ok(&format!("regctl index add {} --ref {}", at("regctl"), at("arm")));
        assert_eq!((bench.ok(&["digest", &at("regctl")]), &added), (ours.clone(), &ours), "{name}");
    }
}

#[test]
fn annotations_and_the_subject_are_those_of_regctl() {
    let Some(peers) = Peers::find(&["regctl", "olareg"]) else { return };
    let (bench, registry) = (bench(), peers.olareg());
    let host = local(&registry.address);
    peers.ok(&format!("regctl registry set --tls disabled {host}"));
    let at = |tag: &str| format!("{host}/app:{tag}");
    push_platforms(&bench, &format!("{host}/app"));
    let ours = bench.ok(&[
        "index",
        "create",
        &at("ours"),
        &at("arm64"),
        "-a",
        "b=2",
        "-a",
        "a=1",
        "--entry-annotation",
        "e=1",
        "--artifact-type",
        "a/b",
        "--subject",
        &at("amd64"),
    ]);
    peers.ok(&format!(
        "regctl index create {} --ref {} --annotation b=2 --annotation a=1 --desc-annotation e=1 --artifact-type a/b --subject \
         amd64",
        at("regctl"),
        at("arm64")
    ));
    assert_eq!(bench.ok(&["digest", &at("regctl")]), ours);
    let referrers = peers.ok(&format!("regctl artifact list {}", at("amd64")));
    assert!(referrers.contains(&ours), "{referrers}");
}

#[test]
fn at_most_two_thirds_of_the_requests_of_the_fastest_peer_are_sent() {
    let Some(peers) = Peers::find(&["crane", "regctl"]) else { return };
    let (bench, registry) = (bench(), Registry::start());
    let host = local(&registry.name());
    peers.ok(&format!("regctl registry set --tls disabled {host}"));
    let at = |tag: &str| format!("{host}/app:{tag}");
    push_platforms(&bench, &format!("{host}/app"));
    let count = |run: &dyn Fn()| {
        registry.clear_requests();
        run();
        let sent = registry.requests();
        let bytes: u64 = sent.iter().filter(|sent| sent.path.contains("/blobs/")).map(|sent| sent.request_bytes).sum();
        assert_eq!(bytes, 0, "no blob is uploaded");
        sent.len()
    };
    let ours = count(&|| drop(bench.ok(&["index", "create", &at("ours"), &at("amd64"), &at("arm64")])));
    let crane =
        count(&|| drop(peers.ok(&format!("crane index append -m {} -m {} -t {}", at("amd64"), at("arm64"), at("c")))));
    let regctl = count(&|| {
        drop(peers.ok(&format!("regctl index create {} --ref {} --ref {}", at("r"), at("amd64"), at("arm64"))));
    });
    assert!(ours * 3 <= crane * 2 && ours * 3 <= regctl * 2, "ocikit {ours}, crane {crane}, regctl {regctl}");
    let stated = count(&|| {
        drop(bench.ok(&[
            "index",
            "create",
            &at("s"),
            &at("amd64"),
            &at("arm64"),
            "--set-platform",
            "linux/amd64",
            "--set-platform",
            "linux/arm64",
        ]));
    });
    assert!(
        stated * 2 <= crane && stated * 2 <= regctl,
        "with platforms: ocikit {stated}, crane {crane}, regctl {regctl}"
    );
}

#[test]
fn every_tool_reads_a_composed_index() {
    let Some(peers) = Peers::find(&["crane", "regctl", "oras", "skopeo", "podman", "registry"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let host = local(&registry.address);
    peers.ok(&format!("regctl registry set --tls disabled {host}"));
    let target = format!("{host}/app:1");
    // BuildKit's index with attestations, and an image of another build.
    bench.ok(&["copy", "-q", "--platform", "linux/arm/v7", &multi(), "arm.tar"]);
    let digest = bench.ok(&["index", "create", "--flatten", &target, &attested(), "arm.tar"]);
    // `crane validate` rejects the attestation manifests of BuildKit.
    assert_eq!(peers.ok(&format!("crane digest {target}")), digest);
    assert_eq!(peers.ok(&format!("regctl image digest {target}")), digest);
    assert_eq!(peers.ok(&format!("oras resolve --plain-http {target}")), digest);
    let raw = peers.ok(&format!("skopeo inspect --raw --tls-verify=false docker://{target}"));
    assert_eq!(
        json(&raw)["manifests"].as_array().unwrap().len(),
        json(&bench.ok(&["index", "list", "--json", &target]))["manifests"].as_array().unwrap().len()
    );
    peers.ok(&format!(
        "skopeo copy -q --all --src-tls-verify=false docker://{target} oci:{}:1",
        peers.path("all").display()
    ));
    for (platform, architecture) in [("linux/arm/v7", "arm"), ("linux/amd64", "amd64")] {
        let config = json(&peers.ok(&format!("crane config --platform {platform} {target}")));
        assert_eq!(config["architecture"], architecture);
        let config = json(&peers.ok(&format!("regctl image config --platform {platform} {target}")));
        assert_eq!(config["architecture"], architecture);
    }
    let storage = format!("--root {0}/r --runroot {0}/rr", peers.path("").display());
    let options = "--storage-driver vfs --cgroup-manager cgroupfs --events-backend none";
    let pulled =
        peers.ok(&format!("podman {storage} {options} pull -q --tls-verify=false --platform linux/arm/v7 {target}"));
    let facts = json(&peers.ok(&format!("podman {storage} {options} image inspect {}", pulled.trim())));
    assert_eq!(facts[0]["Architecture"], "arm");
}

#[test]
fn attestations_are_those_of_the_selected_images() {
    let Some(peers) = Peers::find(&["regctl", "skopeo", "registry"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let host = local(&registry.address);
    peers.ok(&format!("regctl registry set --tls disabled {host}"));
    let at = |tag: &str| format!("{host}/app:{tag}");
    bench.ok(&["copy", "-q", &attested(), &at("all")]);
    bench.ok(&["index", "create", &at("ours"), &at("all"), "--platform", "linux/amd64"]);
    peers.ok(&format!("regctl index create {} --ref {} --platform linux/amd64", at("regctl"), at("all")));
    let entries =
        |tag: &str| json(&bench.ok(&["index", "list", "--json", &at(tag)]))["manifests"].as_array().unwrap().clone();
    let (ours, regctl) = (entries("ours"), entries("regctl"));
    assert_eq!((ours.len(), regctl.len()), (2, 1), "regctl leaves the attestation out");
    assert_eq!(ours[0]["digest"], regctl[0]["digest"]);
    assert_eq!(ours[1]["annotations"]["vnd.docker.reference.digest"], ours[0]["digest"]);
    let raw = peers.ok(&format!(
        "skopeo inspect --raw --tls-verify=false docker://{}@{}",
        format_args!("{host}/app"),
        ours[1]["digest"].as_str().unwrap()
    ));
    assert!(raw.contains("in-toto"), "{raw}");
}

#[test]
fn an_index_in_a_layout_is_read_by_oras_and_regctl() {
    let Some(peers) = Peers::find(&["oras", "regctl", "skopeo"]) else { return };
    let bench = bench();
    for (tag, platform) in PLATFORMS {
        bench.ok(&["copy", "-q", "--platform", platform, &multi(), &format!("oci:layout:{tag}")]);
    }
    let digest = bench.ok(&["index", "create", "oci:layout:1", "oci:layout:amd64", "oci:layout:arm64"]);
    let layout = bench.path("layout").display().to_string();
    assert_eq!(peers.ok(&format!("oras resolve --oci-layout {layout}:1")), digest);
    assert_eq!(peers.ok(&format!("regctl image digest ocidir://{layout}:1")), digest);
    let raw = json(&peers.ok(&format!("skopeo inspect --raw oci:{layout}:1")));
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
    peers.ok(&format!("oras manifest index create --oci-layout {layout}:2 amd64 arm64"));
    assert_eq!(bench.ok(&["digest", "oci:layout:2"]), digest);
    fs::remove_dir_all(bench.path("layout")).unwrap();
}
