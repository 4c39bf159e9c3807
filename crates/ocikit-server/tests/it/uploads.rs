use std::time::Duration;

use futures::StreamExt;
use ocikit_server::{Clock, Rules, Server, Switch};
use ocikit_spec::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{start, start_with};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[tokio::test]
async fn blob_is_uploaded_in_one_or_two_requests() {
    let (_running, http) = start().await;
    let single = http.send(&format!("POST /v2/a/blobs/uploads/?digest={HELLO}"), "", "hello").await;
    assert_eq!(single.status, 201);
    assert_eq!(single.header("location"), format!("/v2/a/blobs/{HELLO}"));
    assert_eq!(single.header("docker-content-digest"), HELLO);

    let begun = http.send("POST /v2/b/blobs/uploads/", "", "").await;
    assert_eq!(begun.status, 202);
    let location = begun.header("location").to_owned();
    assert!(location.ends_with(begun.header("docker-upload-uuid")));
    let put = http.send(&format!("PUT {location}?digest={HELLO}"), "", "hello").await;
    assert_eq!((put.status, put.header("location")), (201, &*format!("/v2/b/blobs/{HELLO}")));
    assert_eq!(http.get(put.header("location")).await.body, b"hello");
    assert_eq!(http.status(&format!("PUT {location}?digest={HELLO}")).await, 404, "the upload session has ended");
}

#[tokio::test]
async fn blob_is_uploaded_in_chunks() {
    let (_running, http) = start().await;
    let location = http.begin("a").await;
    assert_eq!(http.get(&location).await.header("range"), "0-0");
    for (range, chunk, received) in [("0-1", "he", "0-1"), ("2-3", "ll", "0-3")] {
        let answer = http.send(&format!("PATCH {location}"), &format!("content-range: {range}"), chunk).await;
        assert_eq!((answer.status, answer.header("range"), answer.header("location")), (202, received, &*location));
        let status = http.get(&location).await;
        assert_eq!((status.status, status.header("range"), status.header("location")), (204, received, &*location));
    }
    let put = http.send(&format!("PUT {location}?digest={HELLO}"), "content-range: 4-4", "o").await;
    assert_eq!(put.status, 201);
    assert_eq!(http.get(&format!("/v2/a/blobs/{HELLO}")).await.body, b"hello");
}

#[tokio::test]
async fn a_stream_is_one_chunk_of_unknown_length() {
    let (_running, http) = start().await;
    let location = http.begin("a").await;
    let chunks = futures::stream::iter([&b"he"[..], b"llo"]).map(Ok::<_, std::io::Error>);
    let answer = http.send(&format!("PATCH {location}"), "", reqwest::Body::wrap_stream(chunks)).await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4"));
    assert_eq!(http.status(&format!("PUT {location}?digest={HELLO}")).await, 201);
}

#[tokio::test]
async fn chunk_at_a_wrong_offset_is_refused() {
    let (_running, http) = start().await;
    let location = http.begin("a").await;
    let patch = format!("PATCH {location}");
    assert_eq!(http.send(&patch, "content-range: 0-1", "he").await.status, 202);
    for (line, headers, body, status) in [
        (&patch, "content-range: 3-4", "lo", 416),
        (&patch, "content-range: 0-1", "he", 416),
        (&patch, "content-range: 2-3", "l", 400),
        (&patch, "content-range: 2-", "l", 400),
        (&patch, "content-range: x", "l", 400),
        (&format!("PUT {location}?digest={HELLO}"), "content-range: 3-4", "lo", 416),
        (&format!("PUT {location}?digest=x"), "", "llo", 400),
        (&format!("PUT {location}"), "", "llo", 400),
        (&format!("PUT {location}?digest=md5:00"), "", "llo", 400),
    ] {
        let answer = http.send(line, headers, body).await;
        assert_eq!(answer.status, status, "{line} {headers}");
        if status == 416 {
            assert_eq!((answer.header("range"), answer.header("location")), ("0-1", &*location));
        }
    }
    // Nothing was kept, so the upload continues at the same offset.
    assert_eq!(http.send(&patch, "content-range: 2-4", "llo").await.status, 202);
    assert_eq!(http.status(&format!("PUT {location}?digest={HELLO}")).await, 201);
}

#[tokio::test]
async fn wrong_digest_is_refused() {
    let (_running, http) = start().await;
    let wrong = http.send(&format!("POST /v2/a/blobs/uploads/?digest={HELLO}"), "", "jello").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    let location = http.begin("a").await;
    let wrong = http.send(&format!("PUT {location}?digest={HELLO}"), "", "jello").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(http.status(&format!("HEAD /v2/a/blobs/{HELLO}")).await, 404);
    assert_eq!(http.get(&location).await.code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(http.get("/v2/_catalog").await.json()["repositories"], serde_json::json!([]));
}

#[tokio::test]
async fn short_chunk_must_be_the_last() {
    let rules = Rules::default().min_chunk(Some(4));
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    let begun = http.send("POST /v2/a/blobs/uploads/", "", "").await;
    assert_eq!(begun.header("oci-chunk-min-length"), "4");
    let patch = format!("PATCH {}", begun.header("location"));
    assert_eq!(http.send(&patch, "content-range: 0-3", "hell").await.status, 202);
    assert_eq!(http.send(&patch, "content-range: 4-4", "o").await.status, 202);
    let late = http.send(&patch, "content-range: 5-8", "wide").await;
    assert_eq!((late.status, late.code().as_str()), (400, "SIZE_INVALID"));
    assert_eq!(http.status(&format!("PUT {}?digest={HELLO}", begun.header("location"))).await, 201);
}

#[tokio::test]
async fn an_upload_can_be_cancelled() {
    let (_running, http) = start().await;
    let location = http.begin("a").await;
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(http.status(&format!("GET {elsewhere}")).await, 404, "an upload session belongs to one repository");
    assert_eq!(http.status(&format!("DELETE {elsewhere}")).await, 404);
    assert_eq!(http.status(&format!("DELETE {location}")).await, 204);
    for method in ["DELETE", "GET", "PATCH"] {
        assert_eq!(http.status(&format!("{method} {location}")).await, 404, "{method}");
    }
    let unknown = http.send("PATCH /v2/a/blobs/uploads/..%2f..%2fx", "", "x").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_mounted_blob_is_not_uploaded() {
    let (_running, http) = start().await;
    http.push("a", b"hello").await;
    let absent = Digest::sha256_of(b"absent");
    for (query, status) in [
        (format!("mount={HELLO}&from=a"), 201),
        (format!("mount={HELLO}&from=nowhere"), 202),
        (format!("mount={HELLO}&from=../a"), 202),
        (format!("mount={absent}&from=a"), 202),
        (format!("mount={HELLO}"), 201),
        (format!("mount={absent}"), 202),
        ("mount=x&from=a".to_owned(), 400),
    ] {
        let answer = http.send(&format!("POST /v2/b/blobs/uploads/?{query}"), "", "").await;
        assert_eq!(answer.status, status, "{query}");
        match status {
            201 => assert_eq!(answer.header("location"), format!("/v2/b/blobs/{HELLO}")),
            202 => assert!(answer.header("location").starts_with("/v2/b/blobs/uploads/")),
            _ => assert_eq!(answer.code(), "DIGEST_INVALID"),
        }
    }
    assert_eq!(http.get(&format!("/v2/b/blobs/{HELLO}")).await.body, b"hello");

    let rules = Rules::default().anonymous_mount(Switch::Off);
    let (_running, http) = start_with(Server::default().rules(rules)).await;
    http.push("a", b"hello").await;
    let answer = http.send(&format!("POST /v2/b/blobs/uploads/?mount={HELLO}"), "", "").await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn idle_upload_is_removed() {
    let clock = Clock::system();
    let rules = Rules::default().idle_upload(Duration::from_secs(60));
    let (_running, http) = start_with(Server::default().clock(clock.clone()).rules(rules)).await;
    let (idle, busy) = (http.begin("a").await, http.begin("a").await);
    clock.advance(Duration::from_secs(40));
    assert_eq!(http.status(&format!("GET {busy}")).await, 204);
    clock.advance(Duration::from_secs(40));
    http.begin("a").await;
    assert_eq!(http.status(&format!("GET {busy}")).await, 204);
    assert_eq!(http.status(&format!("GET {idle}")).await, 404);
}

/// Sends the first bytes of a chunk over a separate connection.
async fn begin_chunk(
    running: &ocikit_server::Running,
    location: &str,
    range: &str,
    length: usize,
    bytes: &str,
) -> TcpStream {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\ncontent-range: {range}\r\n\r\n"
    );
    stream.write_all(format!("{head}{bytes}").as_bytes()).await.unwrap();
    stream
}

/// Waits until the server has read this many bytes of the last request.
async fn read_by_server(running: &ocikit_server::Running, bytes: u64) {
    while running.requests().last().unwrap().request_bytes < bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn received_bytes_survive_a_lost_connection() {
    let (running, http) = start().await;
    let location = http.begin("a").await;
    let stream = begin_chunk(&running, &location, "0-4", 5, "hel").await;
    read_by_server(&running, 3).await;
    drop(stream);
    let status = http.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-2"));
    assert_eq!(http.send(&format!("PATCH {location}"), "content-range: 3-4", "lo").await.status, 202);
    assert_eq!(http.status(&format!("PUT {location}?digest={HELLO}")).await, 201);
}

#[tokio::test]
async fn later_request_ends_a_stalled_one() {
    let (running, http) = start().await;
    let location = http.begin("a").await;
    let mut hanging = begin_chunk(&running, &location, "0-4", 5, "hel").await;
    read_by_server(&running, 3).await;
    let status = http.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-2"));
    let mut answer = vec![0; 12];
    hanging.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 409");
    assert_eq!(http.send(&format!("PUT {location}?digest={HELLO}"), "content-range: 3-4", "lo").await.status, 201);
}

#[tokio::test]
async fn cancelling_an_upload_ends_its_request() {
    let (running, http) = start().await;
    let location = http.begin("a").await;
    let mut hanging = begin_chunk(&running, &location, "0-4", 5, "hel").await;
    read_by_server(&running, 3).await;
    assert_eq!(http.status(&format!("DELETE {location}")).await, 204);
    let mut answer = vec![0; 12];
    hanging.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 409");
}

#[tokio::test]
async fn concurrent_pushes_of_one_blob() {
    let (_running, http) = start().await;
    let bytes = vec![1; 2_000_000];
    let digest = Digest::sha256_of(&bytes);
    let pushes = (0..16).map(async |at| {
        let name = if at % 2 == 0 { "a" } else { "b" };
        assert_eq!(http.push(name, &bytes).await, digest);
    });
    futures::future::join_all(pushes).await;
    for name in ["a", "b"] {
        assert!(http.get(&format!("/v2/{name}/blobs/{digest}")).await.body == bytes);
    }
}
