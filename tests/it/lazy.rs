//! `convert` to lazily pulled formats, with an in-process registry.

use ocikit_archive::Compression;
use ocikit_image::testing::{Tar, hard_layer, random};
use ocikit_tests::{Registry, json, write_image};

use crate::bench;

const FORMATS: [&str; 3] = ["estargz", "zstd-chunked", "soci"];

fn image(bench: &ocikit_tests::Bench) -> String {
    let upper = Tar::new().directory("etc").file("etc/motd", b"hello").finish();
    let large = Tar::new().file("noise", &random(3, 11 << 20)).finish();
    write_image(&bench.path("app"), Compression::Gzip, &[hard_layer(), upper, large]);
    format!("oci:{}:1", bench.path("app").display())
}

fn uploads(registry: &Registry) -> usize {
    let requests = registry.requests();
    requests.iter().filter(|exchange| exchange.method == "POST" || exchange.method == "PUT").count()
}

/// FP-1 and FP-9: both tags exist, the conversion works from the registry alone, and a second one uploads nothing.
#[test]
fn fp_09_a_registry_gets_a_second_tag_with_missing_blobs_only() {
    let bench = bench();
    let registry = Registry::start();
    let source = format!("{}/app:1", registry.name());
    let before = bench.ok(&["copy", &image(&bench), &source]);
    for format in FORMATS {
        let suffix = format!("--suffix=-{format}");
        let converted = bench.ok(&["convert", "--to", format, &suffix, &source]);
        let target = format!("{source}-{format}");
        assert_eq!(bench.ok(&["digest", &target]), converted);
        assert_eq!(bench.ok(&["digest", &source]).trim(), before.trim().rsplit('@').next().unwrap());
        registry.clear_requests();
        assert_eq!(bench.ok(&["convert", "--to", format, &target]), converted, "{format}");
        assert_eq!(uploads(&registry), 0, "{format}: {:?}", registry.requests());
        bench.ok(&["validate", &target]);
        let list = |location: &str| {
            let listed = bench.ok(&["ls", location]);
            listed
                .lines()
                .filter(|line| !line.contains("stargz") && !line.contains("landmark"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(list(&target), list(&source), "{format}");
        assert_eq!(bench.ok(&["cat", &target, "/etc/motd"]), "hello");
    }
    bench.ok(&["convert", "--to", "estargz", "--suffix", &source]);
    bench.ok(&["digest", &format!("{source}-fastpull")]);
}

/// FP-2: a location without a tag cannot get a suffix.
#[test]
fn fp_02_a_suffix_needs_a_tag() {
    let bench = bench();
    image(&bench);
    let digest = bench.ok(&["digest", "oci:app:1"]);
    for location in ["oci:app".to_owned(), format!("oci:app@{}", digest.trim())] {
        let outcome = bench.ocikit(&["convert", "--to", "estargz", "--suffix", &location]);
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains("names no tag"), "{outcome}");
    }
}

/// FP-7: each platform is converted, or only the requested ones, and the result is an index.
#[test]
fn fp_07_platforms_are_selected() {
    let bench = bench();
    image(&bench);
    bench.ok(&["edit", "--architecture", "arm64", "oci:app:1", "-o", "oci:linux-arm64:1"]);
    bench.ok(&["index", "create", "oci:both:1", "oci:linux-arm64:1", "oci:app:1"]);
    bench.ok(&["convert", "--to", "zstd-chunked", "--platform", "linux/arm64", "oci:both:1", "-o", "oci:one:1"]);
    bench.ok(&["convert", "--to", "zstd-chunked", "oci:both:1", "-o", "oci:all:1"]);
    let is_chunked = |location: &str, platform: &str| {
        let manifest = bench.ok(&["manifest", "get", location, "--platform", platform]);
        manifest.contains("io.github.containers.zstd-chunked.manifest-checksum")
    };
    assert!(is_chunked("oci:one:1", "linux/arm64") && !is_chunked("oci:one:1", "linux/amd64"));
    assert!(is_chunked("oci:all:1", "linux/arm64") && is_chunked("oci:all:1", "linux/amd64"));
}

/// FP-8 and FP-11: a failed conversion exits with an error and leaves no tag.
#[test]
fn fp_08_a_failed_conversion_leaves_no_tag() {
    let bench = bench();
    write_image(&bench.path("app"), Compression::None, &[b"this is no tar".repeat(100)]);
    let registry = Registry::start();
    let source = format!("{}/app:1", registry.name());
    bench.ok(&["copy", "oci:app:1", &source]);
    for format in ["estargz", "zstd-chunked"] {
        assert_ne!(bench.ocikit(&["convert", "--to", format, "--suffix", &source]).code, 0);
        assert_ne!(bench.ocikit(&["digest", &format!("{source}-fastpull")]).code, 0);
    }
}

/// FP-12: a SOCI index is pushed and can be found: beside the image, or as a referrer.
#[test]
fn fp_12_soci_indexes_are_found() {
    let bench = bench();
    let registry = Registry::start();
    let source = format!("{}/app:1", registry.name());
    bench.ok(&["copy", &image(&bench), &source]);
    let before = bench.ok(&["digest", &source]);
    bench.ok(&["convert", "--to", "soci", "--soci-version", "v1", &source]);
    assert_eq!(bench.ok(&["digest", &source]), before);
    let referrers = bench.ok(&["referrers", &source]);
    assert!(referrers.contains("application/vnd.amazon.soci.index.v1+json"), "{referrers}");
    let target = format!("{source}-soci");
    bench.ok(&["convert", "--to", "soci", &source, "-o", &target]);
    let index = bench.json(&["manifest", "get", &target]);
    let entry = &index["manifests"][1];
    assert_eq!(entry["artifactType"], "application/vnd.amazon.soci.index.v2+json");
    let soci =
        bench.ok(&["manifest", "get", &format!("{}/app@{}", registry.name(), entry["digest"].as_str().unwrap())]);
    let soci = json(&soci);
    assert_eq!(soci["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_layer_that_stays_plain_is_named() {
    let bench = bench();
    let lower = Tar::new().file("file", b"1").finish();
    let upper = Tar::new().link("copy", "file").finish();
    write_image(&bench.path("app"), Compression::Gzip, &[lower, upper]);
    let outcome = bench.ocikit(&["convert", "--to", "estargz", "oci:app:1", "-o", "oci:lazy:1"]);
    assert_eq!(outcome.code, 0);
    let wanted = "was not converted: `copy` is a hard link to `file`, which is not before it in the layer";
    assert!(outcome.stderr.contains(wanted), "{outcome}");
}

#[test]
fn docker_images_become_oci_images() {
    let bench = bench();
    image(&bench);
    bench.ok(&["convert", "--to", "docker", "oci:app:1", "-o", "oci:docker:1"]);
    for format in FORMATS {
        let target = format!("oci:{format}:1");
        bench.ok(&["convert", "--to", format, "oci:docker:1", "-o", &target]);
        let text = bench.ok(&["manifest", "get", &target, "--platform", "linux/amd64"]);
        assert!(!text.contains("vnd.docker"), "{text}");
        bench.ok(&["validate", &target]);
        bench.ok(&["convert", "--to", "plain", &target, "-o", &format!("oci:plain-{format}:1")]);
        bench.ok(&["validate", &format!("oci:plain-{format}:1")]);
    }
}

/// FP-3 and FP-9: a Nydus image beside the plain one; a second conversion changes nothing, and the way back has the files.
#[test]
fn fp_03_a_nydus_image_has_blobs_and_a_bootstrap() {
    let bench = bench();
    let registry = Registry::start();
    let source = format!("{}/app:1", registry.name());
    bench.ok(&["copy", &image(&bench), &source]);
    let converted = bench.ok(&["convert", "--to", "nydus", "--suffix", &source]);
    let target = format!("{source}-fastpull");
    let manifest = bench.json(&["manifest", "get", &target]);
    let layers = manifest["layers"].as_array().unwrap();
    let (bootstrap, blobs) = layers.split_last().unwrap();
    assert_eq!(bootstrap["annotations"]["containerd.io/snapshot/nydus-bootstrap"], "true");
    assert!(
        blobs.iter().all(|blob| blob["mediaType"] == "application/vnd.oci.image.layer.nydus.blob.v1"),
        "{manifest}"
    );
    registry.clear_requests();
    assert_eq!(bench.ok(&["convert", "--to", "nydus", &target]), converted);
    assert_eq!(uploads(&registry), 0, "{:?}", registry.requests());
    bench.ok(&["validate", &target]);
    assert_eq!(bench.ocikit(&["convert", "--to", "estargz", &target]).code, 1);
    let plain = format!("oci:{}:1", bench.path("plain").display());
    bench.ok(&["convert", "--to", "plain", &target, "-o", &plain]);
    assert_eq!(bench.ok(&["ls", &plain]), bench.ok(&["ls", &source]));
    assert_eq!(bench.ok(&["cat", &plain, "/etc/motd"]), "hello");
}
