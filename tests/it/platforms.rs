//! Selection of an image from an index by platform.

use ocikit_tests::fixture;

use crate::bench;

fn platform_fixture(name: &str) -> String {
    fixture(&format!("platforms/{name}"))
}

/// Returns the platform in the config of the image that `--platform` selects.
fn chosen(archive: &str, wanted: &str) -> String {
    let config = bench().json(&["config", "--platform", wanted, archive]);
    let text = |key: &str| config[key].as_str().unwrap_or_default();
    [text("os"), text("architecture"), text("variant")].join("/").trim_end_matches('/').to_owned()
}

#[test]
fn ocidir_rs_73_entries_without_platform_use_that_of_their_config() {
    let archive = platform_fixture("index-without-platforms.tar");
    assert_eq!(chosen(&archive, "linux/amd64"), "linux/amd64");
    assert_eq!(chosen(&archive, "linux/arm64"), "linux/arm64");
    let (bench, archive) = (bench(), &*archive);
    let digest = bench.ok(&["digest", "--platform", "linux/arm64", archive]);
    assert!(!bench.ok(&["ls", "--platform", "linux/arm64", archive]).is_empty());
    assert!(bench.ok(&["inspect", archive]).contains("linux/arm64"));
    assert_eq!(bench.ok(&["copy", "--platform", "linux/arm64", archive, "one.tar"]), format!("one.tar@{digest}"));
    bench.ok(&["copy", "--platform", "linux/arm64", "--platform", "linux/amd64", archive, "two.tar"]);
    assert_eq!(bench.ok(&["digest", "--platform", "linux/arm64", "two.tar"]), digest);
    bench.ok(&["annotate", "--platform", "linux/arm64", archive, "k=v", "-o", "annotated.tar"]);
    let amd64 = |archive: &str| bench.ok(&["digest", "--platform", "linux/amd64", archive]);
    assert_eq!(amd64("annotated.tar"), amd64(archive));
    assert_ne!(bench.ok(&["digest", "--platform", "linux/arm64", "annotated.tar"]), digest);
    bench.ok(&["copy", archive, "docker-archive:docker.tar:app:1"]);
}

#[test]
fn moby_34875_arm_selects_the_best_variant_for_v7() {
    let archive = platform_fixture("platform-armv5v7.tar");
    for (wanted, found) in [
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v5"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
    ] {
        assert_eq!(chosen(&archive, wanted), found, "{wanted}");
    }
}

#[test]
fn kaniko_1591_architecture_without_variant_is_preferred() {
    let archive = platform_fixture("platform-amd64v3.tar");
    for (wanted, found) in
        [("linux/amd64", "linux/amd64"), ("linux/amd64/v3", "linux/amd64/v3"), ("linux/amd64/v2", "linux/amd64")]
    {
        assert_eq!(chosen(&archive, wanted), found, "{wanted}");
    }
}

#[test]
fn missing_platform_error_lists_the_available_ones() {
    let bench = bench();
    for (name, listed) in [
        ("index-without-platforms.tar", "only for linux/amd64, linux/arm64"),
        ("platform-armv5v7.tar", "only for linux/amd64, linux/arm/v5, linux/arm/v7, linux/arm64/v8"),
    ] {
        let archive = &*platform_fixture(name);
        for line in [
            &["ls", "--platform", "linux/s390x", archive][..],
            &["inspect", "--platform", "linux/s390x", archive],
            &["copy", "--platform", "linux/s390x", archive, "x.tar"],
            &["copy", "--platform", "linux/amd64", "--platform", "linux/s390x", archive, "x.tar"],
            &["annotate", "--platform", "linux/s390x", archive, "k=v", "-o", "x.tar"],
            &["annotate", "--platform", "linux/amd64", "--platform", "linux/s390x", archive, "k=v", "-o", "x.tar"],
        ] {
            let outcome = bench.ocikit(line);
            assert_eq!(outcome.code, 3, "{outcome}");
            assert!(outcome.stderr.contains("has no image for linux/s390x, "), "{line:?}: {outcome}");
            assert!(outcome.stderr.contains(listed), "{line:?}: {outcome}");
        }
    }
}
