use ocikit_server::{Rules, Server, Switch};
use ocikit_spec::{Algorithm, Digest};

use crate::http::{start, start_with};

#[tokio::test]
async fn existing_and_missing_blobs() {
    let (_running, http) = start().await;
    let digest = http.push("a/b", b"hello").await;
    let absent = Digest::sha256_of(b"absent");
    for method in ["GET", "HEAD"] {
        let answer = http.send(&format!("{method} /v2/a/b/blobs/{digest}"), "", "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        assert_eq!(answer.header("content-length"), "5");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.body, if method == "GET" { &b"hello"[..] } else { b"" });
        assert_eq!(http.status(&format!("{method} /v2/a/b/blobs/{absent}")).await, 404);
        assert_eq!(http.status(&format!("{method} /v2/a/b/blobs/sha256:x")).await, 400);
        assert_eq!(
            http.status(&format!("{method} /v2/a/c/blobs/{digest}")).await,
            404,
            "the blob is in another repository"
        );
    }
    assert_eq!(http.get(&format!("/v2/a/b/blobs/{absent}")).await.code(), "BLOB_UNKNOWN");
}

#[tokio::test]
async fn empty_blob_is_served() {
    let (_running, http) = start().await;
    let digest = http.push("a", b"").await;
    let answer = http.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, "0", 0));
}

#[tokio::test]
async fn a_range_of_a_blob_is_partial_content() {
    let (_running, http) = start().await;
    let digest = http.push("a", b"0123456789").await;
    let path = format!("GET /v2/a/blobs/{digest}");
    for (headers, status, content_range, body) in [
        ("range: bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("range: bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("range: bytes=7-", 206, "bytes 7-9/10", "789"),
        ("range: bytes=-3", 206, "bytes 7-9/10", "789"),
        ("range: bytes=8-99", 206, "bytes 8-9/10", "89"),
        ("range: lines=1-2", 200, "", "0123456789"),
        ("range: bytes=x", 200, "", "0123456789"),
        (&format!("range: bytes=7-\nif-range: \"{digest}\""), 206, "bytes 7-9/10", "789"),
        ("range: bytes=7-\nif-range: \"other\"", 200, "", "0123456789"),
    ] {
        let answer = http.send(&path, headers, "").await;
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range), "{headers}");
        assert_eq!(String::from_utf8(answer.body.clone()).unwrap(), body, "{headers}");
        assert_eq!(answer.header("content-length"), body.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
    for range in ["bytes=10-", "bytes=5-2", "bytes=-0"] {
        let answer = http.send(&path, &format!("range: {range}"), "").await;
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */10"), "{range}");
    }
}

#[tokio::test]
async fn several_ranges_come_in_one_answer() {
    let (_running, http) = start().await;
    let digest = http.push("a", b"0123456789").await;
    let answer = http.send(&format!("GET /v2/a/blobs/{digest}"), "range: bytes=0-1,4-5,-1", "").await;
    assert_eq!(answer.status, 206);
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let body = String::from_utf8(answer.body.clone()).unwrap();
    let parts: Vec<_> = body.split(&format!("\r\n--{boundary}")).collect();
    assert_eq!(parts.len(), 5, "{body}");
    assert_eq!((parts[0], parts[4]), ("", "--\r\n"));
    for (part, (range, text)) in parts[1..4].iter().zip([("0-1", "01"), ("4-5", "45"), ("9-9", "9")]) {
        assert!(part.contains(&format!("content-range: bytes {range}/10\r\n")), "{part}");
        assert!(part.ends_with(&format!("\r\n\r\n{text}")), "{part}");
    }
}

#[tokio::test]
async fn conditional_get_returns_304() {
    let (_running, http) = start().await;
    let digest = http.push("a", b"hello").await;
    let path = format!("GET /v2/a/blobs/{digest}");
    for (tag, status) in [(format!("\"{digest}\""), 304), ("*".to_owned(), 304), ("\"x\"".to_owned(), 200)] {
        assert_eq!(http.send(&path, &format!("if-none-match: {tag}"), "").await.status, status, "{tag}");
    }
}

#[tokio::test]
async fn sha512_is_supported() {
    let (_running, http) = start().await;
    let bytes = vec![7; 3_000_000];
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let single = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(http.send(&single, "", bytes.clone()).await.status, 201);
    assert!(http.get(&format!("/v2/a/blobs/{digest}")).await.body == bytes);

    // With and without an announced length.
    for query in ["?digest-algorithm=sha512", ""] {
        let begun = http.send(&format!("POST /v2/b/blobs/uploads/{query}"), "", "").await;
        let location = begun.header("location");
        assert_eq!(http.send(&format!("PATCH {location}"), "", bytes.clone()).await.status, 202);
        assert_eq!(http.send(&format!("PUT {location}?digest={digest}"), "", "").await.status, 201, "{query}");
    }
    let unknown = http.send("POST /v2/b/blobs/uploads/?digest-algorithm=md5", "", "").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "DIGEST_INVALID"));
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_one_repository() {
    let (_running, http) = start().await;
    let digest = http.push("a", b"hello").await;
    http.push("b", b"hello").await;
    assert_eq!(http.status(&format!("DELETE /v2/a/blobs/{digest}")).await, 202);
    assert_eq!(http.status(&format!("DELETE /v2/a/blobs/{digest}")).await, 404);
    assert_eq!(http.status(&format!("HEAD /v2/a/blobs/{digest}")).await, 404);
    assert_eq!(http.get(&format!("/v2/b/blobs/{digest}")).await.body, b"hello");

    let rules = Rules::default().delete(Switch::Off);
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    let digest = http.push("a", b"hello").await;
    let answer = http.send(&format!("DELETE /v2/a/blobs/{digest}"), "", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"));
}

#[tokio::test]
async fn unsupported_method_lists_allowed_ones() {
    let (_running, http) = start().await;
    let digest = Digest::sha256_of(b"");
    for (line, allowed) in [
        (format!("PUT /v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("GET /v2/a/blobs/uploads/".to_owned(), "POST"),
        ("POST /v2/a/tags/list".to_owned(), "GET"),
        ("PATCH /v2/a/manifests/x".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("DELETE /v2/".to_owned(), "GET, HEAD"),
        ("DELETE /v2/_catalog".to_owned(), "GET"),
    ] {
        let answer = http.send(&line, "", "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allowed), "{line}");
        assert_eq!(answer.code(), "UNSUPPORTED");
    }
}
