use ocikit_server::{Children, Rules, Server, Switch};
use ocikit_spec::{Algorithm, Descriptor, Digest, Index, MediaType};

use crate::http::{CONFIG, json, manifest, start, start_with};

#[tokio::test]
async fn a_manifest_has_tags_and_a_digest() {
    let (_running, http) = start().await;
    let text = http.push_image("a/b", "v1", "layer").await;
    let digest = Digest::sha256_of(text.as_bytes());
    for reference in ["v1", &digest.to_string()] {
        for method in ["GET", "HEAD"] {
            let answer = http.send(&format!("{method} /v2/a/b/manifests/{reference}"), "", "").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), MediaType::OCI_MANIFEST.as_str());
            assert_eq!(answer.header("content-length"), text.len().to_string());
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(answer.body, if method == "GET" { text.as_bytes() } else { b"" });
        }
    }
    let known = http.send("GET /v2/a/b/manifests/v1", &format!("if-none-match: \"{digest}\""), "").await;
    assert_eq!((known.status, known.header("docker-content-digest")), (304, &*digest.to_string()));
    for reference in ["v2", ".bad", "sha256:bad", &Digest::sha256_of(b"").to_string()] {
        let answer = http.get(&format!("/v2/a/b/manifests/{reference}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "MANIFEST_UNKNOWN"), "{reference}");
    }
    assert_eq!(http.status(&format!("HEAD /v2/a/b/blobs/{digest}")).await, 404, "a manifest is not a blob");
}

#[tokio::test]
async fn a_manifest_is_put_by_its_digest() {
    let (_running, http) = start().await;
    http.push_image("a", "v1", "layer").await;
    let text = manifest("layer", r#","x":1"#);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, text.as_bytes());
        let answer = http.put_manifest("a", &format!("{digest}?tag=x&tag=y"), &text).await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (201, &*digest.to_string()));
        assert_eq!(answer.header("location"), format!("/v2/a/manifests/{digest}"));
        assert_eq!(answer.header("oci-tag"), "x, y");
        assert_eq!(http.get("/v2/a/manifests/y").await.header("docker-content-digest"), digest.to_string());
    }
    let wrong = http.put_manifest("a", &Digest::sha256_of(b"other").to_string(), &text).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    let tags = "&tag=x".repeat(101);
    assert_eq!(http.put_manifest("a", &format!("{}?{tags}", Digest::sha256_of(b"")), &text).await.status, 414);
    let bad = http.put_manifest("a", &format!("{}?tag=.x", Digest::sha256_of(text.as_bytes())), &text).await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "MANIFEST_INVALID"));
}

#[tokio::test]
async fn tag_is_moved() {
    let (_running, http) = start().await;
    let one = http.push_image("a", "v1", "one").await;
    let two = http.push_image("a", "v1", "two").await;
    assert_eq!(http.get("/v2/a/manifests/v1").await.body, two.as_bytes());
    let path = format!("/v2/a/manifests/{}", Digest::sha256_of(one.as_bytes()));
    assert_eq!(http.get(&path).await.body, one.as_bytes(), "the previous manifest still exists");
}

#[tokio::test]
async fn if_match_protects_a_tag() {
    let (_running, http) = start().await;
    let one = http.push_image("a", "v1", "layer").await;
    let two = manifest("layer", r#","x":1"#);
    let tag = |text: &str| format!("\"{}\"", Digest::sha256_of(text.as_bytes()));
    let put = async |tag: &str, condition: &str| {
        let headers = format!("content-type: {}\n{condition}", MediaType::OCI_MANIFEST);
        http.send(&format!("PUT /v2/a/manifests/{tag}"), &headers, two.clone()).await.status
    };
    assert_eq!(put("v1", &format!("if-match: {}", tag(&two))).await, 412);
    assert_eq!(put("v1", "if-none-match: *").await, 412);
    assert_eq!(put("v2", "if-match: *").await, 412);
    assert_eq!(http.get("/v2/a/manifests/v1").await.body, one.as_bytes());
    assert_eq!(put("v2", "if-none-match: *").await, 201);
    assert_eq!(put("v1", &format!("if-match: {}", tag(&one))).await, 201);
    assert_eq!(http.get("/v2/a/manifests/v1").await.body, two.as_bytes());
}

#[tokio::test]
async fn hostile_manifests_are_refused() {
    let (_running, http) = start().await;
    http.push_image("a", "v1", "layer").await;
    let duplicate = manifest("layer", r#","layers":[]"#);
    let disguised = manifest("layer", r#","manifests":[]"#);
    let shouting = manifest("layer", r#","Layers":[]"#);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "{", "null", "[]", "{}", "\u{0}", &duplicate, &disguised, &shouting, &deep] {
        let answer = http.put_manifest("a", "bad", text).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "MANIFEST_INVALID"), "{text:.40}");
    }
    let binary = http.send("PUT /v2/a/manifests/bad", "", vec![0xff; 100]).await;
    assert_eq!(binary.status, 400);
    let index = format!("content-type: {}", MediaType::OCI_INDEX);
    let mislabelled = http.send("PUT /v2/a/manifests/bad", &index, manifest("layer", "")).await;
    assert_eq!((mislabelled.status, mislabelled.code().as_str()), (400, "MANIFEST_INVALID"));
    for reference in [".x", "x%20y", "sha256:00"] {
        assert_eq!(http.put_manifest("a", reference, &manifest("layer", "")).await.status, 400, "{reference}");
    }
    assert_eq!(http.status("GET /v2/a/manifests/bad").await, 404);
}

#[tokio::test]
async fn size_of_a_manifest_is_limited() {
    let (_running, http) = start().await;
    http.push_image("a", "v1", "layer").await;
    let padded = |length: usize| {
        let more = format!(r#","annotations":{{"x":"{}"}}"#, "x".repeat(length));
        manifest("layer", &more)
    };
    let around = padded(0).len();
    assert_eq!(http.put_manifest("a", "large", &padded((4 << 20) - around)).await.status, 201);
    let large = http.put_manifest("a", "larger", &padded((4 << 20) - around + 1)).await;
    assert_eq!((large.status, large.code().as_str()), (413, "SIZE_INVALID"));
    // The same without an announced length.
    let chunks = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100_000])));
    let large = http.try_send("PUT /v2/a/manifests/larger", "", reqwest::Body::wrap_stream(chunks)).await;
    // The server closes the connection of a client that continues to send, and not every client then reads the
    // response.
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status == 413));
    assert_eq!(http.status("GET /v2/a/manifests/larger").await, 404);
}

#[tokio::test]
async fn children_of_a_manifest_must_exist() {
    let text = manifest("layer", "");
    let listed = Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes());
    let index = String::from_utf8(Index::of(&[listed]).bytes().to_vec()).unwrap();
    for (children, of_manifest, of_index) in
        [(Children::Required, 404, 404), (Children::SparseIndexes, 404, 201), (Children::Any, 201, 201)]
    {
        let rules = Rules::default().children(children);
        let (_running, http) = start_with(Server::default().rules(rules)).await;
        let answer = http.put_manifest("a", "x", &text).await;
        assert_eq!(answer.status, of_manifest, "{children:?}");
        if of_manifest == 404 {
            let errors = answer.json()["errors"].as_array().unwrap().clone();
            assert_eq!(errors.len(), 2);
            assert!(errors.iter().all(|error| error["code"] == "MANIFEST_BLOB_UNKNOWN"));
            assert_eq!(errors[0]["detail"]["digest"], Digest::sha256_of(CONFIG.as_bytes()).to_string());
        }
        assert_eq!(http.put_manifest("a", "y", &index).await.status, of_index, "{children:?}");
    }
    // Blobs of another repository do not count, and foreign layers need not exist.
    let (_running, http) = start().await;
    http.push_image("a", "v1", "layer").await;
    assert_eq!(http.put_manifest("b", "v1", &text).await.status, 404);
    let foreign = MediaType::from("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    let foreign = json(&Descriptor::of(foreign, b"foreign"));
    let with_foreign = text.replace(r#""layers":["#, &format!(r#""layers":[{foreign},"#));
    assert_eq!(http.put_manifest("a", "foreign", &with_foreign).await.status, 201);
}

#[tokio::test]
async fn unknown_manifests_are_stored_if_allowed() {
    let schema1 = "content-type: application/vnd.docker.distribution.manifest.v1+prettyjws";
    let (_running, http) = start().await;
    let answer = http.send("PUT /v2/a/manifests/old", schema1, r#"{"schemaVersion":1}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "MANIFEST_INVALID"));

    let rules = Rules::default().unknown_manifests(Switch::On);
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    assert_eq!(http.send("PUT /v2/a/manifests/old", schema1, r#"{"schemaVersion":1}"#).await.status, 201);
    let answer = http.get("/v2/a/manifests/old").await;
    assert_eq!(format!("content-type: {}", answer.header("content-type")), schema1);
    assert_eq!(answer.body, br#"{"schemaVersion":1}"#);
}

#[tokio::test]
async fn tags_and_manifests_are_deleted_separately() {
    let (_running, http) = start().await;
    let text = http.push_image("a", "v1", "layer").await;
    let digest = Digest::sha256_of(text.as_bytes());
    http.put_manifest("a", "v2", &text).await;
    http.put_manifest("a", "v3", &text).await;
    assert_eq!(http.status("DELETE /v2/a/manifests/v1").await, 202);
    assert_eq!(http.status("DELETE /v2/a/manifests/v1").await, 404);
    assert_eq!(http.status(&format!("HEAD /v2/a/manifests/{digest}")).await, 200);
    assert_eq!(http.status(&format!("DELETE /v2/a/manifests/{digest}")).await, 202);
    assert_eq!(http.status(&format!("DELETE /v2/a/manifests/{digest}")).await, 404);
    for reference in ["v2", "v3", &digest.to_string()] {
        assert_eq!(http.status(&format!("HEAD /v2/a/manifests/{reference}")).await, 404, "{reference}");
    }
    assert_eq!(http.status("DELETE /v2/nowhere/manifests/v1").await, 404);

    let rules = Rules::default().delete(Switch::Off).delete_tags(Switch::Off);
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    http.push_image("a", "v1", "layer").await;
    for reference in ["v1", &digest.to_string()] {
        assert_eq!(http.status(&format!("DELETE /v2/a/manifests/{reference}")).await, 405, "{reference}");
    }
}

#[tokio::test]
async fn a_subject_is_acknowledged() {
    let subject = Descriptor::of(MediaType::OCI_MANIFEST, b"not there yet");
    let text = manifest("layer", &format!(r#","subject":{}"#, json(&subject)));
    for (referrers, header) in [(Switch::On, subject.digest.to_string()), (Switch::Off, String::new())] {
        let rules = Rules::default().referrers(referrers);
        let (_running, http) = start_with(Server::default().rules(rules)).await;
        assert_eq!(http.push_image("a", "v1", "layer").await, manifest("layer", ""));
        let answer = http.put_manifest("a", "about", &text).await;
        assert_eq!((answer.status, answer.header("oci-subject")), (201, &*header));
    }
}
