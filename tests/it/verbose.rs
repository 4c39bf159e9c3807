//! `-v`: shows requests to registries, without secrets.

use ocikit_server::{Action, Authentication, Fault, Reply, Server, User};
use ocikit_tests::{Registry, single};
use serde_json::Value;

use crate::bench;

/// Returns the IDs of upload sessions. They are secret, because every client with the ID can write to the session.
fn sessions(registry: &Registry) -> Vec<String> {
    let requests = registry.requests();
    let sessions = requests.iter().filter_map(|request| request.path.split_once("/blobs/uploads/"));
    sessions.map(|(_, session)| session.to_owned()).filter(|session| !session.is_empty()).collect()
}

#[test]
fn verbose_shows_every_request_and_no_secret() {
    let server = Server::default().authentication(Authentication::bearer([User::new("alice", "s3cret")]));
    let registry = Registry::start_with(server);
    let bench = bench().with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret");
    let name = format!("{}/app:1", registry.name());
    registry.faults().add(Fault::on("PUT /v2/**/manifests/1", Action::Answer(Reply::status(503))).nth(1));
    let push = bench.ocikit(&["push", "-v", "--progress", "none", &single(), &name]);
    assert_eq!(push.code, 0, "{push}");
    let digest = bench.ok(&["digest", &name]);
    let root = format!("http://{}/v2/app", registry.name());
    for line in [
        format!("HEAD {root}/manifests/1: 401 in "),
        format!("HEAD {root}/manifests/1: 404 in "),
        format!("PUT {root}/blobs/uploads/…: 201 in "),
        format!("HEAD {root}/manifests/{digest}: 200 in "),
        format!("PUT {root}/manifests/1: 503 in "),
        format!("PUT {root}/manifests/1: failed 1 times, retrying in "),
        format!("PUT {root}/manifests/1: 201 in "),
    ] {
        assert!(push.stderr.lines().any(|found| found.starts_with(&line)), "{line}\n{push}");
    }
    // Blobs may be redirected to a URL that contains a credential.
    let elsewhere = format!("http://hidden:h1dden@{}/v2/app/blobs/sha256:0?signature=h1dden", registry.name());
    registry.faults().add(Fault::on("GET /v2/**/blobs/*", Action::Redirect(elsewhere)).nth(1));
    let pull = bench.ocikit(&["pull", "-v", &name, "-o", "a.tar"]);
    assert!(pull.stderr.contains("/blobs/sha256:0: "), "{pull}");
    let sessions = sessions(&registry);
    assert_eq!(sessions.len(), 5);
    let mut secrets: Vec<_> = sessions.iter().map(String::as_str).collect();
    // The second is user name and password in base64, as sent to the token service.
    secrets.extend(["s3cret", "YWxpY2U6czNjcmV0", "Bearer", "Basic", "hidden", "h1dden", "?"]);
    for outcome in [push, pull] {
        let all = format!("{outcome}");
        assert!(secrets.iter().all(|secret| !all.contains(secret)), "{outcome}");
    }
}

#[test]
fn json_progress_includes_requests() {
    let (bench, registry) = (bench(), Registry::start());
    let name = format!("{}/app:1", registry.name());
    let outcome = bench.ocikit(&["push", "-v", "--progress", "json", &single(), &name]);
    let events = outcome.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests: Vec<_> = events.filter(|event| event["event"] == "request").collect();
    assert_eq!(requests.len(), registry.requests().len(), "{outcome}");
    let first = &requests[0];
    assert_eq!((first["method"].as_str(), first["status"].as_u64()), (Some("HEAD"), Some(404)));
    assert!(first["milliseconds"].is_u64() && first["url"].as_str().unwrap().ends_with("/v2/app/manifests/1"));
    assert_eq!(bench.ocikit(&["digest", "-v", "-q", &name]).code, 2, "`-v` conflicts with `-q`");
    // Failed connections are shown too.
    let outcome = bench.ocikit(&["digest", "-v", "--retries", "1", "localhost:1/app:1"]);
    assert_eq!(
        outcome.stderr.lines().filter(|line| line.starts_with("GET http://localhost:1/")).count(),
        3,
        "{outcome}"
    );
}
