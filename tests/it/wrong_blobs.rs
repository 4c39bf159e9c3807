//! Archives and layouts whose blobs do not match their descriptors.

use ocikit_tests::{json, single};
use serde_json::json;

use crate::bench;

#[test]
fn digest_of_a_layout_checks_the_bytes() {
    let bench = bench();
    bench.ok(&["copy", "-q", &single(), "oci:lay:t"]);
    let digest = bench.ok(&["digest", "oci:lay:t"]).trim().to_owned();
    bench.write(&format!("lay/blobs/{}", digest.replace(':', "/")), "{}");
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
    let mut manifest = json(&manifest);
    manifest["config"]["size"] = json!(1);
    bench.write("m.json", manifest.to_string());
    for location in ["oci:lay:new", "a.tar#new"] {
        let refused = bench.ocikit(&["manifest", "put", "m.json", location]);
        assert_eq!(refused.code, 5, "{refused}");
    }
}
