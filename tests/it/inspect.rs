//! `inspect`, `kind`, `digest`, `version` and `completion`.

use ocikit_tests::{Registry, attested, fixture, json, multi, single, testdata};
use serde_json::Value;

use crate::bench;

/// Returns the output of other programs for a fixture.
fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(testdata("expected.json")).unwrap();
    json(&text)["fixtures"][name].clone()
}

#[test]
fn digest_matches_the_output_of_other_programs() {
    for name in
        ["buildkit-single/image.tar", "buildkit-multi/image.tar", "archive-podman/image.tar", "layout-umoci/layout"]
    {
        let root = &expected(name)["oci"]["roots"][0];
        let digest = root["digest"].as_str().unwrap();
        let location = format!("{}@{digest}", fixture(name));
        assert_eq!(bench().ok(&["digest", &location]), digest);
        let facts = bench().json(&["digest", "--json", &location]);
        assert_eq!(
            (&facts["digest"], &facts["mediaType"], &facts["size"]),
            (&root["digest"], &root["media_type"], &root["size"])
        );
    }
    let multi = multi();
    let children = &expected("buildkit-multi/image.tar")["oci"]["roots"][0]["manifests"];
    for (platform, child) in [("linux/amd64", 0), ("linux/arm64", 1), ("linux/arm/v7", 2), ("linux/arm", 2)] {
        assert_eq!(bench().ok(&["digest", &multi, "--platform", platform]), children[child], "{platform}");
    }
}

#[test]
fn kind_prints_one_word() {
    for (name, kind) in [
        ("buildkit-single/image.tar", "image"),
        ("buildkit-multi/image.tar", "index"),
        ("buildkit-docker/schema2.tar", "docker-image"),
    ] {
        assert_eq!(bench().ok(&["kind", &fixture(name)]), kind);
    }
    let attested = expected("buildkit-attested/image.tar");
    let attestation = attested["oci"]["roots"][0]["manifests"][1].as_str().unwrap();
    assert_eq!(
        bench().ok(&["kind", &format!("{}@{attestation}", fixture("buildkit-attested/image.tar"))]),
        "attestation"
    );
}

#[test]
fn inspect_raw_and_config_print_exact_bytes() {
    use ocikit_spec::Digest;
    let single = single();
    let digest = bench().ok(&["digest", &single]);
    let raw = bench().ocikit(&["inspect", "--raw", &single]);
    assert_eq!(Digest::sha256_of(raw.stdout.as_bytes()).to_string(), digest);
    let facts = bench().json(&["inspect", "--json", &single]);
    let config = bench().ocikit(&["inspect", "--config", &single]);
    assert_eq!(Digest::sha256_of(config.stdout.as_bytes()).to_string(), facts["config"]["digest"].as_str().unwrap());
}

#[test]
fn inspect_shows_annotations_of_index_manifests_and_descriptors() {
    let outcome = bench().ocikit(&["inspect", &fixture("buildkit-annotated/image.tar")]);
    insta::assert_snapshot!(outcome.redacted(&[(&fixture(""), "testdata/")]), @"
    exit 0
    --- stdout
    testdata/buildkit-annotated/image.tar
      kind         index
      digest       sha256:f5d21cc84447b76c45b1cbfe308bbda881e1bb62c396ff4ba0fa8bab7127e4ba
      media type   application/vnd.oci.image.index.v1+json
      annotation   com.acme.index=the index
      descriptor   com.acme.index-descriptor=the descriptor in index.json
      descriptor   org.opencontainers.image.created=2024-01-01T00:00:00Z

        kind         image
        digest       sha256:6d0be1aa713d536b5ae8f83af202dafd11b987376f68b152b26c8705a9bfeb83
        media type   application/vnd.oci.image.manifest.v1+json
        platform     linux/amd64
        size         3.4 KiB in 4 layers
        annotation   com.acme.bare=every manifest
        annotation   com.acme.manifest=every manifest
        annotation   com.acme.manifest-amd64=the manifest for amd64
        descriptor   com.acme.manifest-descriptor=every descriptor in the index
        descriptor   com.acme.manifest-descriptor-amd64=the descriptor for amd64

        kind         image
        digest       sha256:ae921bab852f766092daa74967fd3ed7771e381036057ca34e149d809368b832
        media type   application/vnd.oci.image.manifest.v1+json
        platform     linux/arm64
        size         3.4 KiB in 4 layers
        annotation   com.acme.bare=every manifest
        annotation   com.acme.bare-arm64=the manifest for arm64
        annotation   com.acme.manifest=every manifest
        descriptor   com.acme.manifest-descriptor=every descriptor in the index
    ");
    let outcome = bench().ok(&["inspect", "--json", &fixture("buildkit-annotated/image.tar")]);
    let facts = json(&outcome);
    assert_eq!(facts["kind"], "index");
    assert!(facts["annotations"].as_object().is_some_and(|found| !found.is_empty()));
    assert!(facts["manifests"][0]["annotations"].as_object().is_some_and(|found| !found.is_empty()));
}

#[test]
fn inspect_shows_all_fields_of_an_image() {
    let outcome = bench().ocikit(&["inspect", "--sizes", &single()]);
    insta::assert_snapshot!(outcome.redacted(&[(&fixture(""), "testdata/")]), @r#"
    exit 0
    --- stdout
    testdata/buildkit-single/image.tar
      kind         image
      digest       sha256:ef8b48ccc49e0036161617d8b451b4052403a759a518b624c351db6ac79a8452
      media type   application/vnd.oci.image.manifest.v1+json
      platform     linux/amd64
      size         3.4 KiB in 4 layers, 13.0 KiB decompressed
      config       sha256:a91932639481b208c8d620ff68d770ebd43b9781e48c6881ff1cf07212c9a8f3
      created      2024-01-01T00:00:00Z
      user         1000:1000
      directory    /app
      entrypoint   /app/app
      command      --listen :8080
      ports        8080/tcp
      volumes      /data
      environment  PATH=/app:/bin
      environment  LANG=C.UTF-8
      label        com.acme.tier=back end
      label        org.opencontainers.image.title=acme app
      annotation   org.opencontainers.image.created=2024-01-01T00:00:00Z
      annotation   org.opencontainers.image.revision=0123456789abcdef0123456789abcdef01234567
      annotation   org.opencontainers.image.source=https://git.acme.example/app
      descriptor   org.opencontainers.image.created=2024-01-01T00:00:00Z
      layer        sha256:a8a91dd2dbbd034d0f96f5bc1e771fce481bd3651907fa5392723decd5f9581a 373 B, 7.0 KiB decompressed, application/vnd.oci.image.layer.v1.tar+gzip
      layer        sha256:d513f2cf7475b97a62a5b99258e535d21ed7f19465e0225b210a1a74d7b2b015 175 B, 3.0 KiB decompressed, application/vnd.oci.image.layer.v1.tar+gzip
      layer        sha256:8f045b0310770ae377aa55aec9c6e9e98056a599b80af329c3b3484fe23e193a 116 B, 2.0 KiB decompressed, application/vnd.oci.image.layer.v1.tar+gzip
      layer        sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1 32 B, 1.0 KiB decompressed, application/vnd.oci.image.layer.v1.tar+gzip
      history      ARG TARGETARCH=amd64, no layer
      history      ARG TARGETVARIANT=, no layer
      history      LABEL org.opencontainers.image.title=acme app com.acme.tier=back end, no layer
      history      ENV PATH=/app:/bin LANG=C.UTF-8, no layer
      history      COPY etc /etc # buildkit
      history      COPY --chown=1000:1000 --chmod=755 app /app # buildkit
      history      COPY platform/amd64 /platform # buildkit
      history      WORKDIR /app
      history      USER 1000:1000, no layer
      history      EXPOSE [8080/tcp], no layer
      history      VOLUME [/data], no layer
      history      STOPSIGNAL SIGINT, no layer
      history      HEALTHCHECK {Test:[CMD /app/app --health] Interval:30s Timeout:3s StartPeriod:0s StartInterval:0s Re…, no layer
      history      ENTRYPOINT ["/app/app"], no layer
      history      CMD ["--listen" ":8080"], no layer
    "#);
}

#[test]
fn inspect_sizes_match_the_output_of_gunzip() {
    let bench = bench();
    let line = ["inspect", "--sizes", "--json", &attested()];
    let facts = bench.json(&line);
    bench.ok(&["copy", &attested(), "oci:layout"]);
    let mut seen = 0;
    for manifest in facts["manifests"].as_array().unwrap() {
        let layers = manifest["layers"].as_array().unwrap();
        if manifest["kind"] != "image" {
            assert!(
                layers.iter().all(|layer| layer.get("uncompressedSize").is_none()),
                "attestation statements are not layers"
            );
            continue;
        }
        let mut sum = 0;
        for layer in layers {
            let blob = bench.path("layout/blobs").join(layer["digest"].as_str().unwrap().replace(':', "/"));
            let gunzip =
                std::process::Command::new("gzip").arg("-dc").stdin(std::fs::File::open(blob).unwrap()).output();
            let length = gunzip.unwrap().stdout.len() as u64;
            assert_eq!(layer["uncompressedSize"], length);
            (seen, sum) = (seen + 1, sum + length);
        }
        assert_eq!(manifest["totalUncompressedSize"], sum);
    }
    assert!(seen > 4);
}

#[test]
fn output_for_a_registry_matches_that_for_an_archive() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", &multi(), &reference]);
    for command in [&["digest"][..], &["kind"], &["inspect", "--raw"], &["inspect", "--config"]] {
        let here = bench.ok(&[command, &[&multi()]].concat());
        assert_eq!(bench.ok(&[command, &[&reference]].concat()), here, "{command:?}");
    }
}

#[test]
fn version_and_completion_print_their_output() {
    let facts = bench().json(&["version", "--json"]);
    assert_eq!(facts["name"], "ocikit");
    assert!(bench().ok(&["--version"]).starts_with("ocikit "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench().ok(&["completion", shell]).contains("annotate"), "{shell}");
    }
}
