//! ServerLimits on clients, and requests that are refused because of their origin.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ocikit_server::{Durability, Exchange, Observer, Running, Server, ServerLimits, Storage};
use ocikit_spec::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{manifest, start, start_with};

const SHORT: Duration = Duration::from_millis(50);

async fn limited(limits: ServerLimits) -> (Running, crate::http::Http) {
    start_with(Server::default().limits(limits)).await
}

/// Opens a connection and sends bytes over it.
async fn send(running: &Running, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads as many bytes as a status line has.
async fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test]
async fn rebound_host_names_are_refused() {
    let (running, http) = start().await;
    let port = running.address().port();
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), format!("localhost.evil.example:{port}")] {
        for line in
            ["GET /v2/", "GET /v2/_catalog", "POST /v2/a/blobs/uploads/", "PUT /v2/a/manifests/x", "POST /token"]
        {
            let answer = http.send(line, &format!("host: {host}"), "").await;
            assert_eq!((answer.status, answer.code().as_str()), (421, "DENIED"), "{line} {host}");
        }
    }
    assert_eq!(http.send("GET /v2/", &format!("host: localhost:{port}"), "").await.status, 200);
    let allowed_hosts = vec!["registry.lan".to_owned()];
    let (_running, http) = start_with(Server::default().allowed_hosts(allowed_hosts)).await;
    assert_eq!(http.send("GET /v2/", "host: registry.lan:5000", "").await.status, 200);
    assert_eq!(http.send("GET /v2/", "host: evil.example", "").await.status, 421);
}

#[tokio::test]
async fn requests_of_another_origin_are_refused() {
    let (_running, http) = start().await;
    let blob = Digest::sha256_of(b"hello");
    // Requests that a browser sends for a form or `fetch` without a preflight request.
    let line = format!("POST /v2/a/blobs/uploads/?digest={blob}");
    for headers in [
        "origin: http://evil.example\ncontent-type: text/plain",
        "origin: null\ncontent-type: application/x-www-form-urlencoded",
        "sec-fetch-site: cross-site\ncontent-type: multipart/form-data; boundary=x",
    ] {
        let answer = http.send(&line, headers, "hello").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"), "{headers}");
    }
    assert_eq!(http.status(&format!("HEAD /v2/a/blobs/{blob}")).await, 404);
    assert_eq!(http.send(&line, "", "hello").await.status, 201);
}

#[tokio::test]
async fn stalled_manifests_share_a_memory_budget() {
    let limits = ServerLimits::default().max_document_bytes(1 << 20);
    let (running, http) = limited(limits).await;
    let body = " ".repeat(600_000);
    for head in ["content-length: 1000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\nF4240\r\n"] {
        running.clear_requests();
        let text = format!("PUT /v2/a/manifests/x HTTP/1.1\r\nhost: localhost\r\n{head}{body}");
        let first = send(&running, &text).await;
        while running.requests().first().is_none_or(|request| request.request_bytes < 600_000) {
            tokio::task::yield_now().await;
        }
        // The first one occupies more than half of the budget.
        let mut second = send(&running, &text).await;
        assert_eq!(status(&mut second).await, "HTTP/1.1 503");
        // Small ones still fit.
        assert_eq!(http.put_manifest("a", "y", "{}").await.status, 400);
        drop(first);
        let large = manifest("x", &format!(r#","x":"{body}""#));
        while http.put_manifest("a", "y", &large).await.status == 503 {}
    }
}

#[tokio::test]
async fn slow_manifest_times_out() {
    let (running, _http) = limited(ServerLimits::default().document_timeout(SHORT)).await;
    let head = "PUT /v2/a/manifests/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    let (mut answer, mut dripping) = send(&running, head).await.into_split();
    let drip = async {
        while dripping.write_all(b" ").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let answered = async {
        let mut line = [0; 12];
        answer.read_exact(&mut line).await.unwrap();
        line
    };
    tokio::select! {
        () = drip => panic!("the connection broke before the answer"),
        line = answered => assert_eq!(&line, b"HTTP/1.1 408"),
    }
}

#[tokio::test]
async fn stalled_request_ends_and_its_upload_is_kept() {
    let (running, http) = limited(ServerLimits::default().body_idle_timeout(SHORT)).await;
    let location = http.begin("a").await;
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhello");
    let mut stream = send(&running, &head).await;
    assert_eq!(status(&mut stream).await, "HTTP/1.1 400");
    assert_eq!(http.get(&location).await.header("range"), "0-4");
}

#[tokio::test]
async fn stalled_blob_occupies_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::directory_with(directory.path(), Durability::Crash);
    let (running, http) = start_with(Server::default().storage(storage)).await;
    let location = http.begin("a").await;
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhello");
    let _stalled = send(&running, &head).await;
    let written = || {
        let files = fs::read_dir(directory.path().join("unfinished")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    while written() < 5 {
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn connections_are_limited() {
    let (running, http) = limited(ServerLimits::default().max_connections(1)).await;
    assert_eq!(http.status("GET /v2/").await, 200);
    // That connection is kept open, so this one waits.
    let mut second = send(&running, "GET /v2/second/tags/list HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    for _ in 0..20 {
        assert_eq!(http.status("GET /v2/").await, 200);
    }
    assert!(!running.requests().iter().any(|request| request.path.contains("second")));
    drop(http);
    assert_eq!(status(&mut second).await, "HTTP/1.1 404");
}

/// Records completed exchanges.
#[derive(Debug, Default)]
struct Ended(Mutex<Vec<Exchange>>);

impl Observer for Ended {
    fn exchange(&self, exchange: &Exchange) {
        self.0.lock().unwrap().push(exchange.clone());
    }
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let ended = Arc::new(Ended::default());
    let limits = ServerLimits::default().connection_idle_timeout(SHORT);
    let (running, http) = start_with(Server::default().limits(limits).observer(Some(ended.clone()))).await;
    for bytes in ["", "GET /v2/ HTTP/1.1\r\nhost: loc", "GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let mut stream = send(&running, bytes).await;
        let _ = stream.read_to_end(&mut Vec::new()).await; // A reset is an end, too.
    }
    // A client that does not read its response is disconnected too.
    let large = vec![7; 32 << 20];
    let digest = http.push("a", &large).await;
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut stream = send(&running, &head).await;
    // The exchange is completed although the client has read nothing.
    let is_over = || ended.0.lock().unwrap().iter().any(|exchange| exchange.is("GET /v2/a/blobs/*"));
    while !is_over() {
        tokio::time::sleep(SHORT).await;
    }
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    assert!(read.len() < large.len());
}

#[tokio::test]
async fn upload_sessions_are_limited() {
    let (_running, http) = limited(ServerLimits::default().max_uploads(1)).await;
    let location = http.begin("a").await;
    let answer = http.send("POST /v2/a/blobs/uploads/", "", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(http.status(&format!("DELETE {location}")).await, 204);
    http.begin("a").await;
}

#[tokio::test]
async fn unfinished_uploads_in_memory_share_a_limit() {
    let (_running, http) = limited(ServerLimits::default().max_upload_bytes(1000)).await;
    let (first, second) = (http.begin("a").await, http.begin("a").await);
    let bytes = "x".repeat(600);
    assert_eq!(http.send(&format!("PATCH {first}"), "", bytes.clone()).await.status, 202);
    let answer = http.send(&format!("PATCH {second}"), "", bytes.clone()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "SIZE_INVALID"));
    assert_eq!(http.status(&format!("GET {second}")).await, 404);
    // A finished upload does not count, nor does a cancelled one.
    let digest = Digest::sha256_of(bytes.as_bytes());
    let separator = if first.contains('?') { '&' } else { '?' };
    assert_eq!(http.status(&format!("PUT {first}{separator}digest={digest}")).await, 201);
    let third = http.begin("a").await;
    assert_eq!(http.send(&format!("PATCH {third}"), "", bytes.clone()).await.status, 202);
    assert_eq!(http.status(&format!("DELETE {third}")).await, 204);
    let fourth = http.begin("a").await;
    assert_eq!(http.send(&format!("PATCH {fourth}"), "", bytes.clone()).await.status, 202);
}

#[tokio::test]
async fn unfinished_uploads_to_a_directory_are_not_limited() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ServerLimits::default().max_upload_bytes(1000);
    let storage = Storage::directory_with(directory.path(), Durability::Crash);
    let (_running, http) = start_with(Server::default().limits(limits).storage(storage)).await;
    let location = http.begin("a").await;
    assert_eq!(http.send(&format!("PATCH {location}"), "", "x".repeat(5000)).await.status, 202);
}
