//! Every fault, as a client sees it.

use ocikit_server::{Action, Authentication, Fault, Location, Point, Reply, Running, Server, Storage, User};
use ocikit_spec::Digest;

use crate::http::{Http, start, start_with};

const HELLO: &[u8] = b"hello";

/// Starts a server with one blob, and returns the path of the blob.
async fn start_with_blob() -> (Running, Http, String) {
    let (running, http) = start().await;
    let digest = http.push("a", HELLO).await;
    running.clear_requests();
    (running, http, format!("/v2/a/blobs/{digest}"))
}

/// Returns the received bytes of a blob, and whether the blob was complete.
async fn pull(running: &Running, path: &str) -> (Vec<u8>, bool) {
    let mut answer = crate::http::client().get(format!("http://{}{path}", running.registry())).send().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, true),
            Err(_) => return (bytes, false),
        }
    }
}

#[tokio::test]
async fn fault_replaces_the_response() {
    let (running, http, blob) = start_with_blob().await;
    let busy = Reply::status(429)
        .headers(vec![("retry-after".to_owned(), "7".to_owned()), ("bad name".to_owned(), String::new())])
        .body("busy".into());
    let fault = running.faults().add(Fault::on("GET /v2/**/blobs/*", Action::Answer(busy)).first(2));
    for status in [429, 429, 200] {
        let answer = http.get(&blob).await;
        assert_eq!(answer.status, status);
        if status == 429 {
            assert_eq!((answer.header("retry-after"), answer.body.as_slice()), ("7", &b"busy"[..]));
        }
    }
    assert_eq!(fault.happened(), 2);
    assert_eq!(http.status(&format!("HEAD {blob}")).await, 200);
    running.faults().add(Fault::on("HEAD /v2/**", Action::unsupported()));
    assert_eq!(http.status(&format!("HEAD {blob}")).await, 405);
    running.faults().clear();
    assert_eq!(http.status(&format!("HEAD {blob}")).await, 200);
    let odd = running.faults().add(Fault::on("HEAD /v2/**", Action::Answer(Reply::status(9999))));
    assert_eq!(http.status(&format!("HEAD {blob}")).await, 500);
    odd.remove();
    assert_eq!(running.requests().len(), 7, "responses of faults are logged too");
}

#[tokio::test]
async fn refused_request_has_no_effect_and_its_body_is_read() {
    let (running, http) = start().await;
    running.faults().add(Fault::on("PUT /v2/**", Action::Answer(Reply::status(503))).first(1));
    let text = crate::http::manifest("layer", "");
    assert_eq!(http.put_manifest("a", "x", &text).await.status, 503);
    while running.requests()[0].request_bytes < text.len() as u64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(http.status("GET /v2/a/manifests/x").await, 404);
}

#[tokio::test]
async fn connection_is_cut_at_the_requested_point() {
    let (running, http, blob) = start_with_blob().await;
    let fault = running.faults().add(Fault::on("GET /v2/**", Action::Cut(Point::Request)));
    assert!(http.try_send(&format!("GET {blob}"), "", "").await.is_err());
    assert_eq!(running.requests()[0].status, None);
    fault.remove();

    for after in [0, 1, 4] {
        let fault = running.faults().add(Fault::on("GET /v2/**", Action::Cut(Point::AnswerBody(after))));
        let (bytes, complete) = pull(&running, &blob).await;
        assert_eq!((bytes.as_slice(), complete), (&HELLO[..after as usize], false));
        fault.remove();
    }
    running.faults().add(Fault::on("GET /v2/**", Action::Cut(Point::AnswerBody(6))));
    assert_eq!(pull(&running, &blob).await, (HELLO.to_vec(), true), "a blob that is shorter than the cut is complete");
}

#[tokio::test]
async fn exact_number_of_bytes_arrives_before_a_cut() {
    let (running, http) = start().await;
    let bytes = ocikit_image::testing::random(1, 3_000_000);
    let digest = http.push("a", &bytes).await;
    for after in [1, 524_287, 524_289, 2_999_999] {
        let fault = running.faults().add(Fault::on("GET /v2/**", Action::Cut(Point::AnswerBody(after))));
        let (came, complete) = pull(&running, &format!("/v2/a/blobs/{digest}")).await;
        assert!(came == bytes[..after as usize] && !complete, "{} of {after}", came.len());
        fault.remove();
    }
}

#[tokio::test]
async fn interrupted_upload_continues() {
    let (running, http) = start().await;
    let digest = Digest::sha256_of(HELLO);
    let location = http.begin("a").await;
    running.faults().add(Fault::on("PATCH /v2/**", Action::Cut(Point::RequestBody(3))).first(1));
    assert!(http.try_send(&format!("PATCH {location}"), "content-range: 0-4", HELLO).await.is_err());
    let status = http.get(&location).await;
    assert_eq!(status.header("range"), "0-2");
    assert_eq!(http.send(&format!("PATCH {location}"), "content-range: 3-4", "lo").await.status, 202);

    // What was processed before the response was lost has taken effect.
    running.faults().add(Fault::on("PUT /v2/**", Action::Cut(Point::Answer)));
    assert!(http.try_send(&format!("PUT {location}?digest={digest}"), "", "").await.is_err());
    assert_eq!(http.status(&format!("HEAD /v2/a/blobs/{digest}")).await, 200);
    assert_eq!(http.status(&format!("GET {location}")).await, 404);
}

#[tokio::test]
async fn stalled_exchange_ends_at_shutdown() {
    let (running, http, blob) = start_with_blob().await;
    let location = http.begin("a").await;
    running.faults().add(Fault::on("HEAD /v2/**", Action::Stall(Point::Request)));
    running.faults().add(Fault::on("DELETE /v2/**", Action::Stall(Point::Answer)));
    running.faults().add(Fault::on("GET /v2/**", Action::Stall(Point::AnswerBody(2))));
    running.faults().add(Fault::on("PATCH /v2/**", Action::Stall(Point::RequestBody(2))));
    let head = http.try_send("HEAD /v2/", "", "");
    let patch_line = format!("PATCH {location}");
    let patch = http.try_send(&patch_line, "", HELLO);
    let delete = http.try_send("DELETE /v2/a/manifests/x", "", "");
    let address = running.registry().clone();
    let get = async {
        let mut answer = crate::http::client().get(format!("http://{address}{blob}")).send().await.unwrap();
        let first = answer.chunk().await.unwrap().unwrap();
        (first, answer.chunk().await)
    };
    let shutdown = async {
        let stalled = |running: &Running| {
            let requests = running.requests();
            let came = |kind: &str, bytes: u64| {
                requests
                    .iter()
                    .any(|request| request.is(kind) && request.request_bytes + request.response_bytes >= bytes)
            };
            came("HEAD /v2/", 0) && came("PATCH /v2/**", 2) && came("GET /v2/**", 2) && came("DELETE /v2/**", 0)
        };
        while !stalled(&running) {
            tokio::task::yield_now().await;
        }
        running.shutdown().await;
    };
    let (head, patch, delete, (first, rest), ()) = tokio::join!(head, patch, delete, get, shutdown);
    assert!(head.is_err() && patch.is_err() && delete.is_err());
    assert_eq!((first.as_ref(), rest.is_err()), (&b"he"[..], true));
}

#[tokio::test]
async fn slow_response_arrives_completely() {
    let (running, _http, blob) = start_with_blob().await;
    running.faults().add(Fault::on("GET /v2/**", Action::Drip(1000)));
    assert_eq!(pull(&running, &blob).await, (HELLO.to_vec(), true));
}

#[tokio::test]
async fn faults_change_the_response() {
    let (running, http, blob) = start_with_blob().await;
    let cases = [
        (Action::wrong_digest(), 200, "docker-content-digest", Digest::sha256_of(b"something else").to_string()),
        (Action::Header("docker-content-digest", None), 200, "docker-content-digest", String::new()),
        (Action::Header("x-new", Some("y".to_owned())), 200, "x-new", "y".to_owned()),
        (Action::Status(203), 203, "content-length", "5".to_owned()),
    ];
    for (action, status, name, value) in cases {
        let fault = running.faults().add(Fault::on("GET /v2/**", action.clone()));
        let answer = http.get(&blob).await;
        assert_eq!((answer.status, answer.header(name)), (status, &*value), "{action:?}");
        assert_eq!(answer.body, HELLO);
        fault.remove();
    }
    for (offset, body) in [(0, "Hello"), (4, "hellO"), (99, "hellO")] {
        let fault = running.faults().add(Fault::on("GET /v2/**", Action::Corrupt(offset)));
        assert_eq!(http.get(&blob).await.body, body.as_bytes());
        fault.remove();
    }
}

#[tokio::test]
async fn content_length_can_be_wrong() {
    let (running, http, blob) = start_with_blob().await;
    let fault = running.faults().add(Fault::on("* /v2/**", Action::ContentLength(-2)));
    assert_eq!(pull(&running, &blob).await, (b"hel".to_vec(), true));
    assert_eq!(http.send(&format!("HEAD {blob}"), "", "").await.header("content-length"), "3");
    fault.remove();
    running.faults().add(Fault::on("* /v2/**", Action::ContentLength(2)));
    assert_eq!(pull(&running, &blob).await, (HELLO.to_vec(), false));
    assert_eq!(http.send(&format!("HEAD {blob}"), "", "").await.header("content-length"), "7");
}

#[tokio::test]
async fn blob_is_redirected() {
    let (running, http, blob) = start_with_blob().await;
    let (other, _) = start().await;
    let to = format!("http://{}{{path}}", other.registry());
    let fault = running.faults().add(Fault::on("GET /v2/**/blobs/*", Action::Redirect(to)));
    let answer = http.get(&format!("{blob}?x=1")).await;
    assert_eq!((answer.status, answer.header("location")), (307, &*format!("http://{}{blob}?x=1", other.registry())));
    fault.remove();
    running.faults().add(Fault::on("GET /v2/**/blobs/*", Action::redirect_loop()));
    let error = crate::http::builder()
        .build()
        .unwrap()
        .get(format!("http://{}{blob}", running.registry()))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_redirect());
}

#[tokio::test]
async fn forms_of_location() {
    let storage = Storage::memory();
    let (running, http) = start_with(Server::default().storage(storage.clone())).await;
    let (other, _) = start_with(Server::default().storage(storage)).await;
    let digest = Digest::sha256_of(HELLO);
    let begin = async || http.send("POST /v2/a/blobs/uploads/", "", "").await.header("location").to_owned();
    let with = |form| running.faults().add(Fault::on("/v2/**", Action::Location(form)));

    let fault = with(Location::Absolute);
    let location = begin().await;
    assert!(location.starts_with(&format!("http://{}/v2/a/blobs/uploads/", running.registry())));
    assert_eq!(http.send(&format!("PATCH {location}"), "", HELLO).await.header("location"), location);
    fault.remove();

    let fault = with(Location::Missing);
    assert_eq!(begin().await, "");
    fault.remove();

    let fault = with(Location::Elsewhere(format!("http://{}", other.registry())));
    let location = begin().await;
    assert!(location.starts_with(&format!("http://{}/", other.registry())));
    assert_eq!(
        http.send(&format!("PUT {location}?digest={digest}"), "", HELLO).await.status,
        201,
        "it is one registry"
    );
    fault.remove();

    let fault = with(Location::WithQuery);
    let location = begin().await;
    let (path, query) = location.split_once('?').unwrap();
    assert!(query.starts_with("_state="));
    assert_eq!(http.send(&format!("PATCH {path}"), "", HELLO).await.code(), "BLOB_UPLOAD_INVALID");
    assert_eq!(http.send(&format!("PATCH {location}"), "", HELLO).await.header("location"), location);
    fault.remove();
    assert_eq!(http.status(&format!("PUT {path}?digest={digest}")).await, 400, "the query of the location is required");
    assert_eq!(http.status(&format!("PUT {location}&digest={digest}")).await, 201);
}

#[tokio::test]
async fn uploads_can_be_lost_completely_or_partly() {
    let (running, http) = start().await;
    let digest = Digest::sha256_of(HELLO);
    let location = http.begin("a").await;
    running.faults().add(Fault::on("PATCH /v2/**", Action::Status(201)).first(1));
    assert_eq!(http.send(&format!("PATCH {location}"), "", "hel").await.status, 201);

    running.faults().add(Fault::on("PATCH /v2/**", Action::LoseBytes(2)).first(1));
    let answer = http.send(&format!("PATCH {location}"), "content-range: 3-4", "lo").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-2"));
    running.faults().add(Fault::on("GET /v2/**", Action::LoseBytes(1)).first(1));
    assert_eq!(http.get(&location).await.header("range"), "0-1");
    assert_eq!(http.send(&format!("PATCH {location}"), "content-range: 3-4", "lo").await.status, 416);
    assert_eq!(http.send(&format!("PATCH {location}"), "content-range: 2-4", "llo").await.status, 202);
    assert_eq!(http.status(&format!("PUT {location}?digest={digest}")).await, 201);

    let location = http.begin("a").await;
    running.faults().add(Fault::on("PATCH /v2/**", Action::LoseUpload).first(1));
    let answer = http.send(&format!("PATCH {location}"), "", HELLO).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(http.status(&format!("GET {location}")).await, 404);
}

#[tokio::test]
async fn refused_mount_starts_an_upload() {
    let (running, http) = start().await;
    let digest = http.push("a", HELLO).await;
    let mount = format!("POST /v2/b/blobs/uploads/?mount={digest}&from=a");
    running.faults().add(Fault::on("POST /v2/**/blobs/uploads/?mount=**", Action::RefuseMount).first(1));
    let answer = http.send(&mount, "", "").await;
    assert_eq!(answer.status, 202);
    assert!(answer.header("location").contains("/uploads/"));
    assert_eq!(http.status(&mount).await, 201);
}

#[tokio::test]
async fn range_can_be_ignored() {
    let (running, http, blob) = start_with_blob().await;
    running.faults().add(Fault::on("GET /v2/**/blobs/*", Action::IgnoreRange).first(1));
    for status in [200, 206] {
        let answer = http.send(&format!("GET {blob}"), "range: bytes=3-", "").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.body, if status == 200 { HELLO } else { b"lo" });
    }
}

#[tokio::test]
async fn tokens_expire_during_a_push() {
    let authentication = Authentication::bearer([User::new("alice", "a")]);
    let (running, http) = start_with(Server::default().authentication(authentication)).await;
    let alice = "authorization: Basic YWxpY2U6YQ==";
    let token = http.send("GET /token?scope=repository:a:pull,push", alice, "").await.json();
    let bearer = format!("authorization: Bearer {}", token["token"].as_str().unwrap());
    assert_eq!(http.send("POST /v2/a/blobs/uploads/", &bearer, "").await.status, 202);
    running.faults().add(Fault::on("POST /v2/**", Action::ExpireTokens).first(1));
    for _ in 0..2 {
        let answer = http.send("POST /v2/a/blobs/uploads/", &bearer, "").await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").contains("invalid_token"));
    }
}

#[tokio::test]
async fn several_faults_affect_one_request() {
    let (running, http, blob) = start_with_blob().await;
    running.faults().add(Fault::on("GET /v2/**", Action::IgnoreRange));
    running.faults().add(Fault::on("GET /v2/**/blobs/*", Action::Corrupt(0)));
    running.faults().add(Fault::on("GET /v2/**/blobs/*", Action::Header("etag", None)));
    let answer = http.send(&format!("GET {blob}"), "range: bytes=3-", "").await;
    assert_eq!((answer.status, answer.body.as_slice(), answer.header("etag")), (200, &b"Hello"[..], ""));
}
