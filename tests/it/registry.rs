//! Commands on registries: tags, repositories, manifests, blobs, trees, referrers and probes.

use std::fs;

use ocikit_server::{Rules, Server, Switch};
use ocikit_spec::Digest;
use ocikit_tests::{Bench, Registry, attested, fixture, json, multi, single, testdata};
use serde_json::Value;

use crate::bench;

/// Starts a registry with an attested image for two platforms as `acme/app:1`. Returns it and the name of the repository.
fn with_image(bench: &Bench, rules: Rules) -> (Registry, String) {
    let registry = Registry::start_with(Server::default().rules(rules));
    let repository = format!("{}/acme/app", registry.name());
    bench.ok(&["push", "-q", &attested(), &format!("{repository}:1")]);
    registry.clear_requests();
    (registry, repository)
}

fn asked(registry: &Registry) -> Vec<String> {
    registry.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}

#[test]
fn tag_takes_two_requests_per_tag_and_one_for_the_manifest() {
    let bench = bench();
    let (registry, repository) = with_image(&bench, Rules::default());
    let digest = bench.ok(&["digest", &format!("{repository}:1")]);
    registry.clear_requests();
    let said = bench.ok(&["tag", "--dry-run", &format!("{repository}:1"), "2", "latest"]);
    assert_eq!(said, format!("{repository}:2@{digest}\n{repository}:latest@{digest}"));
    assert_eq!(asked(&registry), ["GET /v2/acme/app/manifests/1"]);
    registry.clear_requests();
    assert_eq!(bench.ok(&["tag", &format!("{repository}:1"), "2", "latest"]), said);
    let requests = ["GET 1", "PUT 2", "PUT latest", "HEAD 2", "HEAD latest"];
    let paths = requests.map(|request| request.replace(' ', " /v2/acme/app/manifests/"));
    assert_eq!(asked(&registry), paths);
    let facts = json(&bench.ok(&["tag", "--json", &format!("{repository}@{digest}"), "3"]));
    assert_eq!((&facts["digest"], &facts["tags"][0]), (&Value::from(&*digest), &Value::from("3")));
    assert_eq!(bench.ok(&["tags", &repository]), "1\n2\n3\nlatest");
    assert_eq!(bench.ocikit(&["tag", &format!("{repository}:gone"), "4"]).code, 3);
    assert_eq!(bench.ocikit(&["tag", &format!("{repository}:1"), "not/a:tag"]).code, 2);
}

#[test]
fn tags_of_archives_and_layouts_are_edited_in_place() {
    let bench = bench();
    bench.ok(&["copy", &multi(), "oci:layout:one"]);
    bench.ok(&["copy", "oci:layout:one", "a.tar#one"]);
    for place in ["oci:layout:", "a.tar#"] {
        let digest = bench.ok(&["digest", &format!("{place}one")]);
        let said = bench.ok(&["tag", &format!("{place}one"), "two"]);
        assert_eq!(said, format!("{place}two@{digest}"));
        for tag in ["one", "two"] {
            assert_eq!(bench.ok(&["digest", &format!("{place}{tag}")]), digest);
        }
        let one = format!("{place}one");
        assert_eq!(bench.ok(&["delete", "--dry-run", &one]), bench.ok(&["delete", &one]));
        assert_eq!(bench.ocikit(&["digest", &one]).code, 3);
        assert_eq!(bench.ok(&["digest", &format!("{place}two")]), digest);
    }
}

#[test]
fn lists_are_paged_and_can_be_limited() {
    let bench = bench();
    let (registry, repository) = with_image(&bench, Rules::default().page(Some(2)));
    let tags: Vec<_> = (2..=7).map(|number| number.to_string()).collect();
    let source = format!("{repository}:1");
    bench.ok(&[&["tag", &source][..], &tags.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    registry.clear_requests();
    assert_eq!(bench.ok(&["tags", &repository]), "1\n2\n3\n4\n5\n6\n7");
    assert_eq!(registry.requests().len(), 4);
    registry.clear_requests();
    assert_eq!(bench.ok(&["tags", &repository, "--limit", "3"]), "1\n2\n3");
    assert_eq!(registry.requests().len(), 2, "no unneeded page is requested");
    assert_eq!(bench.ok(&["tags", &repository, "--after", "5"]), "6\n7");
    let facts = json(&bench.ok(&["tags", "--json", &format!("docker://{repository}"), "--limit", "1"]));
    assert_eq!(facts, serde_json::json!({"repository": repository, "tags": ["1"]}));

    let name = registry.name();
    bench.ok(&["copy", "-q", &source, &format!("{name}/other:1")]);
    assert_eq!(bench.ok(&["repos", &name]), "acme/app\nother");
    assert_eq!(bench.ok(&["repos", &name, "--after", "acme/app", "--full"]), format!("{name}/other"));
    let facts = json(&bench.ok(&["repos", "--json", "--limit", "1", &name]));
    assert_eq!(facts, serde_json::json!({"registry": name, "repositories": ["acme/app"]}));

    assert_eq!(bench.ocikit(&["tags", &format!("{name}/gone")]).code, 3);
    let image = bench.ocikit(&["tags", &source]);
    assert_eq!(image.code, 2);
    assert!(image.stderr.contains(&format!("the repository is {repository}")), "{image}");
    let closed = Registry::start_with(Server::default().rules(Rules::default().catalog(Switch::Off)));
    let outcome = bench.ocikit(&["repos", &closed.name()]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("hint: many registries do not list"), "{outcome}");
}

#[test]
fn omit_digest_tags_hides_fallback_tags() {
    let bench = bench();
    let (_registry, repository) = with_image(&bench, Rules::default().referrers(Switch::Off));
    let all = bench.ok(&["tags", &repository]);
    assert_eq!(all.lines().filter(|tag| tag.starts_with("sha256-")).count(), 2, "{all}");
    assert_eq!(bench.ok(&["tags", &repository, "--omit-digest-tags"]), "1");
}

#[test]
fn deleting_a_tag_keeps_the_image() {
    let bench = bench();
    let (registry, repository) = with_image(&bench, Rules::default());
    let (one, two) = (format!("{repository}:1"), format!("{repository}:2"));
    let digest = bench.ok(&["digest", &one]);
    bench.ok(&["tag", &one, "2"]);
    registry.clear_requests();
    assert_eq!(bench.ok(&["delete", "--dry-run", &two]), two);
    assert!(asked(&registry).iter().all(|asked| !asked.starts_with("DELETE")));
    assert_eq!(bench.ok(&["delete", &two]), two);
    assert_eq!(bench.ok(&["tags", &repository]), "1");
    assert_eq!(bench.ok(&["digest", &format!("{repository}@{digest}")]), digest);
    assert_eq!(bench.ocikit(&["delete", &two]).code, 3, "the tag was deleted");

    // A tag that no longer has the pinned digest is not deleted.
    let moved = bench.ocikit(&["delete", &format!("{one}@{}", Digest::sha256_of(b"before"))]);
    assert_eq!(moved.code, 5, "{moved}");
    assert_eq!(bench.ok(&["delete", &format!("{one}@{digest}")]), one);
    assert_eq!(bench.ok(&["digest", &format!("{repository}@{digest}")]), digest);
}

#[test]
fn deleting_a_manifest_deletes_its_tags_as_the_dry_run_lists() {
    let bench = bench();
    let (_registry, repository) = with_image(&bench, Rules::default());
    let one = format!("{repository}:1");
    let digest = bench.ok(&["digest", &one]);
    bench.ok(&["copy", "-q", &single(), &format!("{repository}:other")]);
    bench.ok(&["tag", &one, "2", "3"]);
    let planned = bench.ok(&["delete", "--dry-run", &format!("{repository}@{digest}")]);
    assert_eq!(planned, format!("{repository}@{digest}\n{repository}:1\n{repository}:2\n{repository}:3"));
    let facts = json(&bench.ok(&["delete", "--digest", "--json", &one]));
    assert_eq!((&facts["digest"], &facts["manifest"]), (&Value::from(&*digest), &Value::from(true)));
    assert_eq!(bench.ok(&["tags", &repository]), "other");
    assert_eq!(bench.ocikit(&["digest", &format!("{repository}@{digest}")]).code, 3);
}

#[test]
fn registry_without_tag_deletion_requires_the_replace_flag() {
    let bench = bench();
    let (_registry, repository) = with_image(&bench, Rules::default().delete_tags(Switch::Off));
    let (one, two) = (format!("{repository}:1"), format!("{repository}:2"));
    let digest = bench.ok(&["digest", &one]);
    bench.ok(&["tag", &one, "2"]);
    let refused = bench.ocikit(&["delete", &two]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused
            .stderr
            .contains(&format!("hint: if the registry deletes manifests only, use `ocikit delete --replace {two}`")),
        "{refused}"
    );
    assert_eq!(bench.ok(&["tags", &repository]), "1\n2");
    assert_eq!(bench.ok(&["delete", "--replace", &two]), two);
    assert_eq!(bench.ok(&["tags", &repository]), "1");
    assert_eq!(bench.ok(&["digest", &one]), digest);
}

#[test]
fn failed_deletion_keeps_the_tag() {
    let bench = bench();
    let rules = Rules::default().delete(Switch::Off).delete_tags(Switch::Off);
    let (_registry, repository) = with_image(&bench, rules);
    let one = format!("{repository}:1");
    let digest = bench.ok(&["digest", &one]);
    for flags in [&[][..], &["--replace"], &["--digest"]] {
        let refused = bench.ocikit(&[&["delete", &one][..], flags].concat());
        assert_eq!(refused.code, 1, "{flags:?} {refused}");
        assert!(refused.stderr.contains("hint: "), "{refused}");
        assert_eq!(bench.ok(&["digest", &one]), digest);
    }
}

#[test]
fn manifest_get_and_put_preserve_bytes() {
    let bench = bench();
    let (registry, repository) = with_image(&bench, Rules::default());
    let one = format!("{repository}:1");
    let digest = bench.ok(&["digest", &one, "--platform", "linux/arm64"]);
    bench.ok(&["manifest", "get", &one, "--platform", "linux/arm64", "-o", "manifest.json"]);
    let bytes = fs::read(bench.path("manifest.json")).unwrap();
    assert_eq!(Digest::sha256_of(&bytes).to_string(), digest);
    assert_eq!(bench.ocikit(&["manifest", "get", &format!("{repository}@{digest}")]).stdout.as_bytes(), bytes);

    let arm = format!("{repository}:arm");
    assert_eq!(bench.ok(&["manifest", "put", "--dry-run", "manifest.json", &arm]), format!("{arm}@{digest}"));
    assert_eq!(bench.ok(&["tags", &repository]), "1");
    registry.clear_requests();
    assert_eq!(bench.ok(&["manifest", "put", "manifest.json", &arm]), format!("{arm}@{digest}"));
    let put = asked(&registry).into_iter().filter(|asked| asked.starts_with("PUT"));
    assert_eq!(put.collect::<Vec<_>>(), ["PUT /v2/acme/app/manifests/arm"]);
    let again = bench.ocikit_with_input(&["manifest", "put", "-", &format!("{repository}@{digest}")], &bytes);
    assert_eq!(again.ok(), format!("{repository}@{digest}"));

    let other = format!("{repository}@{}", Digest::sha256_of(b"other"));
    assert_eq!(bench.ocikit(&["manifest", "put", "manifest.json", &other]).code, 5);
    assert_eq!(bench.ocikit_with_input(&["manifest", "put", "-", &arm], b"{}").code, 3);
    let missing = bench.ocikit(&["manifest", "put", "manifest.json", &format!("{}/elsewhere:1", registry.name())]);
    assert_eq!(missing.code, 1, "the listed blobs are missing: {missing}");
}

#[test]
fn blob_get_and_put_preserve_bytes() {
    let bench = bench();
    let registry = Registry::start();
    let repository = format!("{}/blobs", registry.name());
    let content = vec![7; 300_000];
    let digest = Digest::sha256_of(&content).to_string();
    bench.write("blob", &content);
    assert_eq!(bench.ok(&["blob", "put", "--dry-run", "blob", &repository]), digest);
    assert!(registry.requests().is_empty());
    let facts = json(&bench.ok(&["blob", "put", "--json", "blob", &repository]));
    assert_eq!((&facts["digest"], &facts["sent"]), (&Value::from(&*digest), &Value::from(true)));
    let again = bench.ocikit_with_input(&["blob", "put", "--json", "-", &repository], &content).ok();
    assert_eq!(json(&again)["sent"], false);
    bench.ok(&["blob", "get", &format!("{repository}@{digest}"), "-o", "out"]);
    assert!(fs::read(bench.path("out")).unwrap() == content);
    let out = bench.command(&["blob", "get", &format!("{repository}@{digest}")]).output().unwrap();
    assert!(out.stdout == content);

    bench.ok(&["copy", "-q", &single(), "oci:layout"]);
    bench.ok(&["blob", "put", "blob", "oci:layout"]);
    bench.ok(&["blob", "get", &format!("oci:layout@{digest}"), "-o", "out"]);
    assert!(fs::read(bench.path("out")).unwrap() == content);

    let gone = format!("{repository}@{}", Digest::sha256_of(b"gone"));
    assert_eq!(bench.ocikit(&["blob", "get", &gone, "-o", "gone"]).code, 3);
    assert!(!bench.path("gone").exists());
    assert_eq!(bench.ocikit(&["blob", "get", &repository]).code, 2);
    assert_eq!(bench.ocikit(&["blob", "put", "blob", &gone]).code, 5);
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    assert_eq!(bench.ocikit(&["blob", "put", "blob", "a.tar"]).code, 1);
}

#[test]
fn tree_shows_referrers_below_their_subject() {
    let bench = bench();
    let (_registry, repository) = with_image(&bench, Rules::default());
    let one = format!("{repository}:1");
    let child = bench.ok(&["digest", &one, "--platform", "linux/amd64"]);
    let about = json(&bench.ok(&["manifest", "get", &format!("{repository}@{child}")]));
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let empty = serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2});
    let size = serde_json::to_string(&about).unwrap().len();
    let sbom = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.sbom", "config": empty, "layers": [empty],
        "subject": {"mediaType": about["mediaType"], "digest": child, "size": size},
    });
    bench.ocikit_with_input(&["blob", "put", "-", &repository], b"{}").ok();
    let sbom =
        bench.ocikit_with_input(&["manifest", "put", "-", &format!("{repository}:sbom")], sbom.to_string().as_bytes());
    let sbom = sbom.ok().rsplit_once('@').unwrap().1.to_owned();

    let tree = json(&bench.ok(&["tree", "--json", &one]));
    let amd64 = &tree["children"][0];
    let below: Vec<_> =
        amd64["children"].as_array().unwrap().iter().map(|child| child["relation"].as_str().unwrap()).collect();
    assert_eq!(below, ["config", "layer", "layer", "layer", "layer", "attestation", "referrer"]);
    assert_eq!(amd64["children"][6]["digest"], sbom);
    let text = bench.ok(&["tree", &one]);
    assert!(text.contains(&format!("│   └── artifact {sbom}")), "{text}");
    let local = json(&bench.ok(&["tree", "--json", &attested()]));
    assert_eq!(local["children"][1], tree["children"][1], "the archive and the registry have the same tree");

    let listed =
        bench.ok(&["referrers", &one, "--platform", "linux/amd64", "--artifact-type", "application/vnd.example.sbom"]);
    assert!(
        listed.starts_with(&format!("{sbom} application/vnd.example.sbom ")) && listed.lines().count() == 1,
        "{listed}"
    );
    let facts = json(&bench.ok(&["referrers", "--json", &format!("{repository}@{child}")]));
    assert_eq!((&facts["subject"], facts["referrers"].as_array().unwrap().len()), (&Value::from(&*child), 2));
    assert_eq!(bench.ok(&["referrers", &one]), "", "the index has no referrers");
}

#[test]
fn tree_of_an_image() {
    let outcome = bench().ocikit(&["tree", &single()]);
    insta::assert_snapshot!(outcome.redacted(&[(&fixture(""), "testdata/")]), @"
    exit 0
    --- stdout
    testdata/buildkit-single/image.tar
    image linux/amd64 sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452 4.7 KiB
    ├── config sha256:a91932639481b208c8d620ff68d770ebd43b9781e48c6881ff1cf07212c9a8f3 2.8 KiB
    ├── layer sha256:a8a91dd2dbbd034d0f96f5bc1e771fce481bd3651907fa5392723decd5f9581a 373 B
    ├── layer sha256:d513f2cf7475b97a62a5b99258e535d21ed7f19465e0225b210a1a74d7b2b015 175 B
    ├── layer sha256:8f045b0310770ae377aa55aec9c6e9e98056a599b80af329c3b3484fe23e193a 116 B
    └── layer sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1 32 B
    ");
}

#[test]
fn config_prints_exact_bytes() {
    let bench = bench();
    let (_registry, repository) = with_image(&bench, Rules::default());
    let one = format!("{repository}:1");
    let config = bench.ocikit(&["config", &one, "--platform", "linux/arm64"]);
    let tree = json(&bench.ok(&["tree", "--json", &one]));
    let expected = &tree["children"][1]["children"][0]["digest"];
    assert_eq!(*expected, Digest::sha256_of(config.stdout.as_bytes()).to_string());
    assert_eq!(bench.ok(&["config", &one]), bench.ok(&["inspect", "--config", &one]));
    assert_eq!(bench.ocikit(&["config", &one, "--platform", "linux/s390x"]).code, 3);
}

#[test]
fn probe_results_are_cached_and_used() {
    let bench = bench();
    let rules = Rules::default().referrers(Switch::Off).delete_tags(Switch::Off).min_chunk(Some(1000));
    let registry = Registry::start_with(Server::default().rules(rules));
    let scratch = format!("{}/scratch", registry.name());
    assert_eq!(bench.ocikit(&["probe", "--cached", &scratch]).code, 3);
    let found = json(&bench.ok(&["probe", "--json", &scratch]));
    let found = &found["capabilities"];
    for (capability, expected) in [
        ("referrersApi", Value::from(false)),
        ("deleteTag", Value::from(false)),
        ("deleteManifest", Value::from(true)),
        ("mountFromItself", Value::from(true)),
        ("chunkMinimum", Value::from(1000)),
        ("ranges", Value::from(true)),
    ] {
        assert_eq!(found[capability], expected, "{capability}");
    }
    assert_eq!(bench.ok(&["repos", &registry.name()]), "", "the probe removes its content");
    registry.clear_requests();
    assert_eq!(json(&bench.ok(&["probe", "--cached", "--json", &scratch]))["capabilities"], *found);
    assert!(registry.requests().is_empty());
    // With the known capability, one request checks a blob and starts its upload.
    bench.ok(&["push", "-q", &single(), &format!("{scratch}:1")]);
    let requests = asked(&registry);
    assert!(!requests.iter().any(|asked| asked.starts_with("HEAD /v2/scratch/blobs/")), "{requests:?}");
}
