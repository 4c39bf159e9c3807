//! Archives and layouts whose blobs do not match their descriptors.

use std::fs;

use ocikit_tests::testdata;
use serde_json::json;

use crate::bench;

fn single() -> String {
    testdata("buildkit-single/image.tar").display().to_string()
}

#[test]
fn digest_of_a_layout_checks_the_bytes() {
    let bench = bench();
    bench.ok(&["copy", "-q", &single(), "oci:lay:t"]);
    let digest = bench.ok(&["digest", "oci:lay:t"]).trim().to_owned();
    fs::write(bench.path(&format!("lay/blobs/{}", digest.replace(':', "/"))), "{}").unwrap();
    for location in ["oci:lay:t".to_owned(), format!("oci:lay@{digest}")] {
        let damaged = bench.ocikit(&["digest", &location]);
        assert_eq!(damaged.code, 5, "{damaged}");
    }
}

#[test]
fn manifest_put_refuses_a_descriptor_with_another_size() {
    let bench = bench();
    bench.ok(&["copy", "-q", &single(), "oci:lay:t"]);
    bench.ok(&["copy", "-q", &single(), "a.tar"]);
    let manifest = bench.ok(&["manifest", "get", "oci:lay:t"]);
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["size"] = json!(1);
    fs::write(bench.path("m.json"), manifest.to_string()).unwrap();
    for location in ["oci:lay:new", "a.tar#new"] {
        let refused = bench.ocikit(&["manifest", "put", "m.json", location]);
        assert_eq!(refused.code, 5, "{refused}");
    }
}
