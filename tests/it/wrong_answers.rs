//! Registries with wrong manifests or media types: a pinned digest binds, the bytes decide the type of a document, and a document
//! of unknown type is not copied.

use std::path::{Path, PathBuf};

use ocikit_server::{Action, Fault, Reply};
use ocikit_spec::{Digest, Index, MediaType};
use ocikit_tests::{Bench, Compression, Registry, fixture, testdata, verified_digest, write_image};
use serde_json::{Value, json};

use crate::bench;
use crate::hostile::run_measured;

const PAGE: &str = "<!DOCTYPE html><html><title>Sign in</title></html>";

fn archive(name: &str) -> String {
    fixture(&format!("{name}/image.tar"))
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Action {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Action::Answer(Reply::status(status).headers(headers).body(body.into().into()))
}

/// All commands that take a reference. `{}` stands for the reference and `HOST` for the registry.
const COMMANDS: [&[&str]; 24] = [
    &["manifest", "get", "{}"],
    &["digest", "{}"],
    &["kind", "{}"],
    &["inspect", "{}"],
    &["inspect", "--raw", "{}"],
    &["inspect", "--json", "{}"],
    &["tree", "{}"],
    &["referrers", "{}"],
    &["ls", "{}"],
    &["cat", "{}", "/etc/motd"],
    &["diff", "{}", "one.tar"],
    &["diff", "one.tar", "{}"],
    &["validate", "{}"],
    &["copy", "{}", "copied.tar"],
    &["copy", "{}", "./copied"],
    &["copy", "{}", "HOST/other:1"],
    &["pull", "{}", "-o", "pulled.tar"],
    &["tag", "{}", "tagged"],
    &["annotate", "{}", "k=v"],
    &["sign", "--key", "k.key", "{}"],
    &["verify", "--key", "k.pub", "{}"],
    &["attest", "--key", "k.key", "--type", "custom", "--predicate", "predicate.json", "{}"],
    &["attach", "--unverified", "--bundle", "predicate.json", "{}"],
    &["manifest", "put", "manifest.json", "{}"],
];

fn signing(registry: &Registry) -> Bench {
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "secret");
    std::fs::copy(archive("buildkit-single"), bench.path("one.tar")).unwrap();
    bench.write("predicate.json", "{}");
    bench.ok(&["keygen", "--unencrypted", "-o", "k"]);
    bench.ok(&["push", "-q", "one.tar", &format!("{}/a:1", registry.name())]);
    bench.ok(&["push", "-q", &archive("buildkit-zstd"), &format!("{}/a:2", registry.name())]);
    // The image of the other tag is signed, so that its verification would succeed.
    bench.ok(&["sign", "--key", "k.key", &format!("{}/a:2", registry.name())]);
    bench
}

#[test]
fn pinned_digest_binds_for_every_command_and_media_type() {
    let registry = Registry::start();
    let bench = signing(&registry);
    let (wanted, other) = (bench.ok(&["digest", "one.tar"]), format!("{}/a:2", registry.name()));
    let bytes = bench.ok(&["manifest", "get", &other]);
    bench.write("manifest.json", &bytes);
    let pinned = format!("{}/a:1@{wanted}", registry.name());
    let labels = [
        MediaType::DOCKER_SCHEMA1_SIGNED.to_string(),
        MediaType::DOCKER_SCHEMA1.to_string(),
        MediaType::OCI_MANIFEST.to_string(),
        MediaType::OCI_INDEX.to_string(),
        "text/html".to_owned(),
        String::new(),
    ];
    let before = registry.verified_digest("a", "2");
    for label in &labels {
        let active = registry.faults().add(Fault::on(
            &format!("* /v2/a/manifests/{wanted}"),
            answer(200, &[("content-type", label), ("docker-content-digest", &wanted)], bytes.clone()),
        ));
        // All commands with the media type that once disabled the check; the other types with two commands only.
        let commands = if label.contains("prettyjws") { &COMMANDS[..] } else { &COMMANDS[..1] };
        for command in commands.iter().chain(&COMMANDS[13..14]) {
            let line: Vec<_> =
                command.iter().map(|word| word.replace("{}", &pinned).replace("HOST", &registry.name())).collect();
            let outcome = bench.ocikit(&line);
            assert_ne!(outcome.code, 0, "{label} {line:?}: {outcome}");
            assert!(!outcome.stdout.contains("schemaVersion"), "{label} {line:?}: {outcome}");
            for written in ["copied.tar", "copied", "pulled.tar"] {
                assert!(!bench.path(written).exists(), "{label} {line:?}: {outcome}");
            }
        }
        assert!(active.happened() > 0);
        active.remove();
    }
    assert_eq!(registry.verified_digest("a", "2"), before);
    for tag in ["tagged", "1"] {
        assert_ne!(registry.verified_digest("a", tag), before, "{tag}");
    }
    assert_eq!(registry.verified_digest("other", "1"), None);
}

/// The index pins the digests of its children.
#[test]
fn child_manifest_with_wrong_bytes_is_not_copied() {
    let (bench, registry) = (bench(), Registry::start());
    bench.ok(&["push", "-q", &archive("buildkit-multi"), &format!("{}/a:1", registry.name())]);
    let index = Index::parse(bench.ok(&["manifest", "get", &format!("{}/a:1", registry.name())])).unwrap();
    let child = index.manifests()[0].digest;
    let other = bench.ok(&["manifest", "get", &archive("buildkit-single")]);
    registry.faults().add(Fault::on(
        &format!("GET /v2/a/manifests/{child}"),
        answer(200, &[("content-type", MediaType::DOCKER_SCHEMA1_SIGNED.as_str())], other),
    ));
    let outcome = bench.ocikit(&["copy", &format!("{}/a:1", registry.name()), "a.tar"]);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert!(!bench.path("a.tar").exists());
}

/// Checks that an image served with a wrong media type is copied completely.
fn is_copied_under(archive: &Path, label: &str) {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/a:1", registry.name());
    let archive = archive.display().to_string();
    bench.ok(&["push", "-q", &archive, &reference]);
    let digest = registry.verified_digest("a", "1").unwrap();
    let active = registry
        .faults()
        .add(Fault::on("GET /v2/a/manifests/*", Action::Header("content-type", Some(label.to_owned()))));
    registry.faults().add(Fault::on("HEAD /v2/a/manifests/*", Action::Header("content-type", Some(label.to_owned()))));
    bench.ok(&["copy", "-q", &reference, &format!("{}/b:1", registry.name())]);
    assert_eq!(registry.verified_digest("b", "1"), Some(digest), "{label}");
    bench.ok(&["pull", "-q", &format!("{reference}@{digest}"), "-o", "a.tar"]);
    assert_eq!(verified_digest(&bench.path("a.tar")), digest, "{label}");
    assert_eq!(bench.ok(&["kind", &reference]), bench.ok(&["kind", &archive]), "{label}");
    assert_eq!(bench.ok(&["ls", &reference]), bench.ok(&["ls", &archive]), "{label}");
    assert_eq!(bench.ok(&["manifest", "get", &reference]), bench.ok(&["manifest", "get", &archive]), "{label}");
    assert!(active.happened() > 0);
}

#[test]
fn harbor_15837_index_served_under_docker_list_type() {
    is_copied_under(&testdata("buildkit-multi/image.tar"), MediaType::DOCKER_MANIFEST_LIST.as_str());
}

/// Sonatype Nexus serves docker manifest lists like this: containers/buildah#2266.
#[test]
fn buildah_2266_docker_list_served_under_oci_index_type() {
    let (_bench, archive) = docker_list();
    is_copied_under(&archive, MediaType::OCI_INDEX.as_str());
}

#[test]
fn containers_image_924_schema_2_served_as_prettyjws() {
    is_copied_under(&testdata("buildkit-docker/schema2.tar"), MediaType::DOCKER_SCHEMA1_SIGNED.as_str());
}

#[test]
fn harbor_18170_manifest_served_as_plain_json() {
    is_copied_under(&testdata("buildkit-single/image.tar"), "application/json");
}

/// Writes a layout with one OCI image, and returns its path and the descriptor of the manifest.
fn layout(bench: &Bench) -> (PathBuf, Value) {
    let path = bench.path("layout");
    write_image(&path, Compression::Gzip, &[ocikit_tests::Tar::new().finish()]);
    let index: Value = serde_json::from_slice(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
    (path, index["manifests"][0].clone())
}

fn write_roots(layout: &Path, root: &Value) {
    let index = json!({"schemaVersion": 2, "manifests": [root]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

fn put_blob(layout: &Path, bytes: &str) -> Digest {
    let digest = Digest::sha256_of(bytes.as_bytes());
    std::fs::write(layout.join(digest.blob_path()), bytes).unwrap();
    digest
}

/// Writes a docker manifest list with an OCI child (goharbor/harbor#18450).
fn docker_list() -> (Bench, PathBuf) {
    let bench = bench();
    let (path, mut child) = layout(&bench);
    child.as_object_mut().unwrap().remove("annotations");
    child["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let list = json!({"schemaVersion": 2, "mediaType": MediaType::DOCKER_MANIFEST_LIST, "manifests": [child]});
    let digest = put_blob(&path, &list.to_string());
    write_roots(
        &path,
        &json!({"mediaType": MediaType::DOCKER_MANIFEST_LIST, "digest": digest, "size": list.to_string().len()}),
    );
    (bench, path)
}

#[test]
fn harbor_18450_docker_list_with_oci_children() {
    let (bench, layout) = docker_list();
    let registry = Registry::start();
    let reference = format!("{}/a:1", registry.name());
    let layout = layout.display().to_string();
    bench.ok(&["push", "-q", &layout, &reference]);
    assert_eq!(
        registry.verified_digest("a", "1").map(|digest| digest.to_string()),
        Some(bench.ok(&["digest", &layout]))
    );
    bench.ok(&["copy", "-q", &reference, "a.tar", "--platform", "linux/amd64"]);
    assert_eq!(bench.ocikit(&["validate", &layout]).code, 0);
}

/// The media type in the descriptor of a root or child is generic or wrong.
#[test]
fn manifest_with_a_wrong_media_type_is_copied_completely() {
    for label in ["application/octet-stream", "", "text/plain", "APPLICATION/vnd.oci.image.manifest.v1+JSON; x=y"] {
        for below_an_index in [false, true] {
            let (bench, registry) = (bench(), Registry::start());
            let (path, mut root) = layout(&bench);
            root["mediaType"] = json!(label);
            if below_an_index {
                root.as_object_mut().unwrap().remove("annotations");
                let index =
                    json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [root]}).to_string();
                let digest = put_blob(&path, &index);
                root = json!({"mediaType": MediaType::OCI_INDEX, "digest": digest, "size": index.len()});
            }
            write_roots(&path, &root);
            let digest = root["digest"].as_str().unwrap();
            let path = path.display().to_string();
            let reference = format!("{}/a:1", registry.name());
            bench.ok(&["push", "-q", &path, &reference]);
            assert_eq!(
                registry.verified_digest("a", "1").map(|digest| digest.to_string()).as_deref(),
                Some(digest),
                "{label}"
            );
            bench.ok(&["copy", "-q", &reference, "a.tar"]);
            assert_eq!(verified_digest(&bench.path("a.tar")).to_string(), digest, "{label}");
            // Garbage collection keeps the blobs of the root.
            bench.ok(&["gc", &path]);
            bench.ok(&["copy", "-q", &path, "b.tar"]);
            assert_eq!(verified_digest(&bench.path("b.tar")).to_string(), digest, "{label}");
            let kind = if below_an_index { "index" } else { "image" };
            assert_eq!(bench.ok(&["kind", &path]), kind, "{label}");
        }
    }
}

/// See also google/go-containerregistry#617 and #1720: the manifest is not copied without its layers.
#[test]
fn go_containerregistry_377_schema_1_is_not_copied_partially() {
    let schema1 = json!({
        "schemaVersion": 1, "name": "a", "tag": "1", "architecture": "amd64",
        "fsLayers": [{"blobSum": Digest::sha256_of(b"layer")}], "history": [{"v1Compatibility": "{}"}],
        "signatures": [{"header": {"alg": "ES256"}, "signature": "x", "protected": "y"}],
    });
    let bytes = schema1.to_string();
    let (bench, registry) = (bench(), Registry::start());
    // The media type is correct, wrong or generic.
    for label in [MediaType::DOCKER_SCHEMA1_SIGNED.as_str(), MediaType::OCI_MANIFEST.as_str(), "application/json"] {
        let active = registry
            .faults()
            .add(Fault::on("GET /v2/a/manifests/1", answer(200, &[("content-type", label)], bytes.clone())));
        let reference = format!("{}/a:1", registry.name());
        for target in [format!("{}/b:1", registry.name()), "a.tar".to_owned(), "./layout".to_owned()] {
            let outcome = bench.ocikit(&["copy", &reference, &target]);
            assert!(outcome.code != 0 && outcome.stderr.contains("schema 1"), "{label} {target}: {outcome}");
            assert!(!bench.path(&target).join("index.json").exists() && !bench.path("a.tar").exists());
        }
        assert_eq!(registry.verified_digest("b", "1"), None);
        assert_eq!(bench.ok(&["kind", &reference]), "docker-schema1", "{label}");
        assert_eq!(bench.ok(&["manifest", "get", &reference]), bytes, "{label}");
        active.remove();
    }
    // Below an index, and in a layout.
    let (path, mut root) = layout(&bench);
    let digest = put_blob(&path, &bytes);
    root["digest"] = json!(digest);
    root["size"] = json!(bytes.len());
    root["mediaType"] = json!(MediaType::DOCKER_SCHEMA1);
    write_roots(&path, &root);
    let outcome = bench.ocikit(&["copy", &path.display().to_string(), "b.tar"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("schema 1"), "{outcome}");
}

#[test]
fn document_of_unknown_type_with_descriptors_is_refused() {
    let bench = bench();
    let (path, manifest) = layout(&bench);
    let unknown = json!({"mediaType": "application/vnd.example+json", "parts": [manifest]}).to_string();
    let digest = put_blob(&path, &unknown);
    let entry = json!({"mediaType": "application/vnd.example+json", "digest": digest, "size": unknown.len()});
    let index =
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry.clone()]}).to_string();
    let index_digest = put_blob(&path, &index);
    for root in [entry, json!({"mediaType": MediaType::OCI_INDEX, "digest": index_digest, "size": index.len()})] {
        write_roots(&path, &root);
        let path = path.display().to_string();
        let outcome = bench.ocikit(&["copy", &path, "a.tar"]);
        assert!(outcome.code != 0 && !bench.path("a.tar").exists(), "{outcome}");
        assert_ne!(bench.ocikit(&["gc", &path]).code, 0);
    }
    // `manifest get` still returns the document.
    assert_eq!(bench.ok(&["manifest", "get", &format!("{}@{digest}", path.display())]), unknown);
    // From a registry too.
    let registry = Registry::start();
    let label = ("content-type", "application/vnd.example+json");
    registry.faults().add(Fault::on("GET /v2/a/manifests/*", answer(200, &[label], unknown.clone())));
    let reference = format!("{}/a@{digest}", registry.name());
    assert_eq!(bench.ok(&["manifest", "get", &reference]), unknown);
    let outcome = bench.ocikit(&["copy", &reference, "b.tar"]);
    assert!(outcome.code != 0 && !bench.path("b.tar").exists(), "{outcome}");
}

#[test]
fn root_that_is_no_manifest_is_refused() {
    let bench = bench();
    let (path, _) = layout(&bench);
    for text in ["upstream timeout", r#"{"ok":true}"#] {
        let digest = put_blob(&path, text);
        let name = json!({"org.opencontainers.image.ref.name": "v1"});
        let root = json!({"mediaType": "text/plain", "digest": digest, "size": text.len(), "annotations": name});
        write_roots(&path, &root);
        let place = format!("oci:{}:v1", path.display());
        for line in [&["copy", &place, "a.tar"][..], &["digest", &place], &["tag", &place, "v2"], &["inspect", &place]]
        {
            let outcome = bench.ocikit(line);
            let error = "not a valid manifest or index";
            assert!(outcome.code != 0 && outcome.stderr.contains(error), "{line:?} {text}: {outcome}");
        }
        assert!(!bench.path("a.tar").exists());
        assert_eq!(bench.ok(&["manifest", "get", &place]), text);
    }
}

/// A registry that is overloaded, or a proxy before it, may accept a request and drop it.
#[test]
fn tag_that_is_dropped_is_an_error() {
    let (bench, registry) = (bench(), Registry::start());
    std::fs::copy(archive("buildkit-single"), bench.path("one.tar")).unwrap();
    let name = format!("{}/a:1", registry.name());
    bench.ok(&["push", "-q", "one.tar", &name]);
    let digest = bench.ok(&["digest", &name]);
    let accepted = answer(201, &[("docker-content-digest", &digest)], "");
    registry.faults().add(Fault::on("PUT /v2/a/manifests/*", accepted));
    let outcome = bench.ocikit(&["tag", &name, "2"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("accepted the tag 2 and does not return it"), "{outcome}");
}

/// A captive portal or proxy answers every request with a web page.
#[test]
fn web_page_in_place_of_a_registry_is_an_error() {
    let (bench, registry) = (bench(), Registry::start());
    std::fs::copy(archive("buildkit-single"), bench.path("one.tar")).unwrap();
    bench.write("blob", "blob");
    bench.write("manifest.json", bench.ok(&["manifest", "get", "one.tar"]));
    let lines = [
        "push one.tar HOST/a:1",
        "copy one.tar HOST/a:1",
        "copy HOST/a:1 copied.tar",
        "pull HOST/a:1 -o pulled.tar",
        "manifest get HOST/a:1",
        "manifest put manifest.json HOST/a:1",
        "blob put blob HOST/a",
        "digest HOST/a:1",
        "tag HOST/a:1 2",
        "tags HOST/a",
        "repos HOST",
        "delete HOST/a:1",
        "kind HOST/a:1",
        "validate HOST/a:1",
    ];
    for status in [200, 201] {
        let active = registry.faults().add(Fault::on("* /**", answer(status, &[("content-type", "text/html")], PAGE)));
        for line in lines {
            let line = line.replace("HOST", &registry.name());
            let outcome = bench.ocikit(&line.split(' ').collect::<Vec<_>>());
            assert_ne!(outcome.code, 0, "{status} {line}: {outcome}");
        }
        active.remove();
    }
    assert_eq!(registry.verified_digest("a", "1"), None);
}

/// Unknown fields once took 2.2 GiB, because a parsed array of zeros is twenty times as large as its text.
#[test]
fn unknown_fields_of_lists_take_no_memory() {
    let registry = Registry::start();
    let bench = bench();
    bench.ok(&["push", "-q", &archive("buildkit-single"), &format!("{}/a:1", registry.name())]);
    let names = vec!["\"\""; 4 << 20].join(",");
    let zeros = vec!["0"; 7 << 20].join(",");
    let digest = Digest::sha256_of(b"x");
    let entry = json!({"mediaType": MediaType::OCI_MANIFEST, "digest": digest, "size": 1}).to_string();
    let entry = entry.trim_end_matches('}');
    for (kind, command, page, code) in [
        ("GET /v2/a/tags/list", "tags HOST/a", format!(r#"{{"name":"a","x":[{zeros}],"tags":["1"]}}"#), 0),
        ("GET /v2/a/tags/list", "tags HOST/a", format!(r#"{{"tags":[{names}]}}"#), 1),
        ("GET /v2/a/referrers/*", "referrers HOST/a:1", format!(r#"{{"x":[{zeros}],"manifests":[]}}"#), 0),
        ("GET /v2/a/referrers/*", "referrers HOST/a:1", format!(r#"{{"manifests":[{entry},"x":[{zeros}]}}]}}"#), 1),
        ("GET /v2/a/referrers/*", "referrers HOST/a:1", format!(r#"{{"x":[{zeros},{zeros}],"manifests":[]}}"#), 1),
    ] {
        let active = registry.faults().add(Fault::on(kind, answer(200, &[], page)));
        let command = command.replace("HOST", &registry.name());
        let (outcome, cost) = run_measured(&bench, &command.split(' ').collect::<Vec<_>>());
        assert_eq!(outcome.code, code, "{command}: {outcome}");
        assert!(cost.kibibytes < 200 << 10, "{command}: {} KiB", cost.kibibytes);
        active.remove();
    }
}
