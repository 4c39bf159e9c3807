//! The same inputs to us and to other programs: platforms, credentials, proxies, and strange indexes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use ocikit_spec::Digest;
use ocikit_tests::{Daemon, Peers, fixture, free_port, json, single};
use serde_json::{Value, json};

use crate::bench;

/// Which image of an index a platform means. Others do not fall back from `amd64/v2` or `arm/v6`, so only requests that
/// they answer are compared.
#[test]
fn a_platform_means_the_same_image_to_others() {
    let Some(peers) = Peers::find(&["crane", "skopeo"]) else { return };
    let (bench, registry) = (bench(), peers.crane_registry());
    let config = |text: &str| {
        let value = json(text);
        let part = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        [part("os"), part("architecture"), part("variant")].join("/")
    };
    for (name, platforms) in [
        ("platform-amd64v3.tar", &["linux/amd64"][..]),
        ("platform-armv5v7.tar", &["linux/arm/v7", "linux/arm/v5", "linux/arm64"]),
    ] {
        let image = format!("{}/{}:1", registry.address, name.trim_end_matches(".tar"));
        bench.ok(&["push", "-q", &fixture(&format!("platforms/{name}")), &image]);
        for platform in platforms {
            let ours = config(&bench.ok(&["config", "--platform", platform, &image]));
            let mut parts = platform.split('/');
            let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
            let variant = parts.next().map(|variant| format!(" --override-variant {variant}")).unwrap_or_default();
            let skopeo = format!("skopeo --override-os {os} --override-arch {architecture}{variant}");
            let skopeo = peers.ok(&format!("{skopeo} inspect --tls-verify=false --config docker://{image}"));
            assert_eq!(config(&skopeo), ours, "{name} {platform}: skopeo");
            // crane takes the first entry for the architecture, whatever its variant (GoogleContainerTools/kaniko#1591).
            if variant.is_empty() {
                continue;
            }
            let crane = peers.ok(&format!("crane config --platform {platform} {image}"));
            assert_eq!(config(&crane), ours, "{name} {platform}: crane");
        }
    }
}

/// Distribution with a user `alice` and the password `s3cret`.
fn guarded(peers: &Peers) -> Daemon {
    // bcrypt of the password, with a cost of 5.
    const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
    let (port, root, users) = (free_port(), peers.path("guarded"), peers.path("htpasswd"));
    fs::write(&users, HTPASSWD).unwrap();
    let config = peers.path("guarded.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\nlog: {{level: \
         warn}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
        root.display(),
        users.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = peers.command("registry");
    command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
    let mut daemon = Daemon::start(command, &peers.path("guarded.log"));
    daemon.address = format!("127.0.0.1:{port}");
    let address = daemon.address.clone();
    daemon.wait(|| std::net::TcpStream::connect(&address).is_ok());
    daemon
}

/// Credentials that podman and crane store are used, and a wrong password is unauthorized.
#[test]
fn credentials_that_others_store_are_accepted_by_distribution() {
    let Some(peers) = Peers::find(&["registry", "podman", "crane"]) else { return };
    let (bench, registry) = (bench(), guarded(&peers));
    let (address, image) = (&registry.address, format!("{}/acme/app:1", registry.address));
    let source = single();
    let anonymous = bench.ocikit(&["push", "--retries", "0", &source, &image]);
    assert_eq!(anonymous.code, 4, "{anonymous}");
    let auth = peers.path("auth.json").display().to_string();
    peers.ok(&format!("podman login --tls-verify=false --authfile {auth} -u alice -p s3cret {address}"));
    let digest = bench.ok(&["push", "-q", "--authfile", &auth, &source, &image]);
    peers.ok(&format!("crane auth login -u alice -p s3cret {address}"));
    assert!(digest.ends_with(&peers.ok(&format!("crane digest {image}"))), "{digest}");
    let docker = peers.path("home/.docker/config.json").display().to_string();
    bench.ok(&["digest", "--authfile", &docker, &image]);
    let wrong = crate::bench().with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "wr0ng");
    let wrong = wrong.ocikit(&["digest", &image]);
    assert!(wrong.code == 4 && wrong.stderr.contains("OCIKIT_USERNAME and OCIKIT_PASSWORD"), "{wrong}");
}

/// A proxy that answers every request with 502. Returns its address and the hosts that were requested.
fn recording_proxy() -> (String, Arc<Mutex<BTreeSet<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, hosts) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(BTreeSet::new())));
    let all = hosts.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or_default();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            // `CONNECT HOST:PORT` or `GET http://HOST:PORT/`.
            let target = text.split_whitespace().nth(1).unwrap_or_default().trim_start_matches("http://");
            all.lock().unwrap().insert(target.split('/').next().unwrap_or_default().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, hosts)
}

/// `NO_PROXY` means the same as for crane, which uses Go's `httpproxy`.
#[test]
fn no_proxy_means_the_same_to_crane() {
    let Some(peers) = Peers::find(&["crane"]) else { return };
    let (proxy, hosts) = recording_proxy();
    let proxy = format!("http://{proxy}");
    let seen = |host: &str| {
        let mut hosts = hosts.lock().unwrap();
        let is_seen = hosts.contains(host);
        hosts.clear();
        is_seen
    };
    for (except, host) in [
        ("", "registry.invalid:5000"),
        ("registry.invalid", "registry.invalid:5000"),
        ("registry.invalid", "a.registry.invalid:5000"),
        (".registry.invalid", "registry.invalid:5000"),
        (".registry.invalid", "a.registry.invalid:5000"),
        ("*.registry.invalid", "registry.invalid:5000"),
        ("*.registry.invalid", "a.registry.invalid:5000"),
        ("registry.invalid:5000", "registry.invalid:5000"),
        ("registry.invalid:5001", "registry.invalid:5000"),
        ("istry.invalid", "registry.invalid:5000"),
        ("REGISTRY.invalid", "registry.invalid:5000"),
        (" other.invalid , registry.invalid ", "registry.invalid:5000"),
        ("*", "registry.invalid:5000"),
    ] {
        let mut crane = peers.command("crane");
        crane.args(["digest", "--insecure", &format!("{host}/acme/app:1")]);
        crane.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy).env("NO_PROXY", except);
        ocikit_tests::run(&mut crane, &[]);
        let theirs = seen(host);
        let bench = bench().with("HTTP_PROXY", &proxy).with("HTTPS_PROXY", &proxy).with("NO_PROXY", except);
        bench.ocikit(&["digest", "--plain-http", "--retries", "0", &format!("{host}/acme/app:1")]);
        assert_eq!(seen(host), theirs, "NO_PROXY={except}: {host}");
    }
}

/// An index that lists a manifest under an unknown media type comes back from every registry that accepts
/// it.
#[test]
fn an_index_with_a_manifest_of_unknown_type_comes_back() {
    let Some(peers) = Peers::find(&["registry", "olareg"]) else { return };
    let bench = bench();
    let source = single();
    for (kind, registry) in peers.registries() {
        for media_type in ["application/vnd.example.unknown.v1+json", "application/octet-stream", ""] {
            bench.ok(&["copy", "-q", &source, "oci:layout:1"]);
            let path = bench.path("layout/index.json");
            let mut roots: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let mut listed = roots["manifests"][0].clone();
            listed["mediaType"] = media_type.into();
            listed.as_object_mut().unwrap().remove("annotations");
            let index = "application/vnd.oci.image.index.v1+json";
            let text = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [listed] }).to_string();
            let digest = Digest::sha256_of(text.as_bytes());
            fs::write(bench.path("layout/blobs/sha256").join(digest.hex()), &text).unwrap();
            roots["manifests"] = json!([{ "mediaType": index, "digest": digest.to_string(), "size": text.len() }]);
            fs::write(&path, roots.to_string()).unwrap();

            let name = format!("{}/app{}:1", registry.address, media_type.len());
            let pushed = bench.ok(&["copy", "-q", "oci:layout", &name]);
            assert!(pushed.ends_with(&digest.to_string()), "{kind} {media_type}: {pushed}");
            let back = bench.ok(&["copy", "-q", &name, "oci:back"]);
            assert!(back.ends_with(&digest.to_string()), "{kind} {media_type}: {back}");
            let blobs = |layout: &str| -> BTreeSet<_> {
                let found = fs::read_dir(bench.path(layout).join("blobs/sha256")).unwrap();
                found.map(|entry| entry.unwrap().file_name()).collect()
            };
            assert_eq!(blobs("back"), blobs("layout"), "{kind} {media_type}");
            for directory in ["layout", "back"] {
                fs::remove_dir_all(bench.path(directory)).unwrap();
            }
        }
    }
}
