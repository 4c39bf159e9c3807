//! Starting and stopping the server, its log, and clients that do not speak HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ocikit_server::{Action, Authorization, Error, Exchange, Fault, Observer, Point, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Http, start, start_with};

#[tokio::test]
async fn every_request_is_logged() {
    let (running, http) = start().await;
    http.push("a", b"hello").await;
    http.send("GET /v2/a/tags/list?n=3", "authorization: Bearer secret\nuser-agent: test", "").await;
    http.get("/v2/x/tags/list").await;
    let requests = running.requests();
    let [push, tags, missing] = &requests[..] else { panic!("{requests:?}") };
    assert!(push.is("POST /v2/**/blobs/uploads/"));
    assert_eq!((push.status, push.request_bytes, push.response_bytes), (Some(201), 5, 0));
    assert_eq!((tags.path.as_str(), tags.query.as_deref()), ("/v2/a/tags/list", Some("n=3")));
    assert_eq!(tags.authorization, Some(Authorization::Bearer));
    assert_eq!(tags.header("user-agent"), Some("test"));
    assert_eq!(missing.status, Some(404));
    assert!(missing.response_bytes > 0);
    assert!(!format!("{requests:?}").contains("secret"));
    running.clear_requests();
    assert_eq!(running.requests(), []);

    let (running, http) = start_with(Server::default().remember(2)).await;
    for _ in 0..5 {
        http.get("/v2/").await;
    }
    assert_eq!(running.requests().len(), 2);
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<Exchange>>);

impl Observer for Seen {
    fn exchange(&self, exchange: &Exchange) {
        self.0.lock().unwrap().push(exchange.clone());
    }
}

#[tokio::test]
async fn observer_sees_every_request() {
    let seen = Arc::new(Seen::default());
    let server = Server::default().observer(Some(seen.clone())).remember(0);
    let (running, http) = start_with(server).await;
    running.faults().add(Fault::on("HEAD /v2/", Action::Cut(Point::Answer)));
    assert_eq!(http.status("GET /v2/").await, 200);
    assert!(http.try_send("HEAD /v2/", "", "").await.is_err());
    running.shutdown().await;
    let seen = seen.0.lock().unwrap();
    let summary: Vec<_> = seen.iter().map(|exchange| (exchange.method.as_str(), exchange.status)).collect();
    assert_eq!(summary, [("GET", Some(200)), ("HEAD", None)]);
    assert_eq!(seen[0].response_bytes, 2);
}

#[tokio::test]
async fn address_in_use_is_an_error() {
    let (running, _http) = start().await;
    let error = Server::default().address(running.address()).start().await.unwrap_err();
    assert!(matches!(error, Error::Listen { address, .. } if address == running.address()), "{error:?}");
}

#[tokio::test]
async fn shutdown_waits_for_requests_in_progress() {
    let (running, http) = start().await;
    http.push("a", &vec![0; 100_000]).await;
    running.faults().add(Fault::on("GET /v2/a/blobs/*", Action::Drip(1_000_000)));
    let digest = ocikit_spec::Digest::sha256_of(&vec![0; 100_000]);
    let path = format!("/v2/a/blobs/{digest}");
    let pull = http.get(&path);
    let shutdown = async {
        while !running.requests().iter().any(|request| request.is("GET /v2/a/blobs/*") && request.response_bytes > 0) {
            tokio::task::yield_now().await;
        }
        let address = running.address();
        running.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err(), "the server has stopped listening");
    };
    let (answer, ()) = tokio::join!(pull, shutdown);
    assert_eq!(answer.body.len(), 100_000);
}

#[tokio::test]
async fn shutdown_has_a_time_limit() {
    let (running, _http) = start_with(Server::default().shutdown_timeout(Duration::ZERO)).await;
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    stream
        .write_all(b"PUT /v2/a/manifests/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    while running.requests().first().is_none_or(|request| request.request_bytes == 0) {
        tokio::task::yield_now().await;
    }
    running.shutdown().await;
    assert_eq!(stream.read(&mut [0; 100]).await.unwrap_or(0), 0, "the connection is closed");
}

#[tokio::test]
async fn dropped_server_stops() {
    let (running, http) = start().await;
    assert_eq!(http.status("GET /v2/").await, 200);
    drop(running);
    while http.try_send("GET /v2/", "", "").await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// Sends bytes and returns what is received until the connection is closed.
async fn speak(running: &ocikit_server::Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await; // An error is an end, too.
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn pipelined_requests_are_answered() {
    let (running, _http) = start().await;
    let last = "GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    stream.write_all(format!("{0}{0}{last}", "GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert!(answer.contains("docker-distribution-api-version: registry/2.0"));
}

#[tokio::test]
async fn connection_survives_a_refused_body() {
    let (running, _http) = start().await;
    let body = "x".repeat(1_000_000);
    let refused = format!(
        "PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let last = "GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    stream.write_all(format!("{refused}{last}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let (running, _http) = start().await;
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let head =
        "PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404", "the request is refused before the body is sent");
}

#[tokio::test]
async fn clients_without_http_do_no_harm() {
    let (running, http) = start().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2_000_000));
    let headers = format!("GET /v2/ HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    for bytes in [
        &b""[..],
        b"\0\0\0\0",
        b"HELLO\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET /v2/",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        long.as_bytes(),
        headers.as_bytes(),
    ] {
        let answer = speak(&running, bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert_eq!(http.status("GET /v2/").await, 200);
}

#[tokio::test]
async fn http2_is_supported() {
    let (running, _http) = start().await;
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    // The HTTP/2 preface and an empty SETTINGS frame.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the server answers with a SETTINGS frame");
}

#[tokio::test]
async fn api_version_header_is_sent() {
    let (_running, http) = start().await;
    for path in ["/v2/", "/v2"] {
        let answer = http.get(path).await;
        assert_eq!((answer.status, answer.header("docker-distribution-api-version")), (200, "registry/2.0"));
    }
    let nothing = Http::get(&http, "/").await;
    assert_eq!(nothing.status, 404);
}
