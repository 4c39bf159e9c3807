//! Storage directories: what remains after a server has ended, and what is removed.

use std::fs;
use std::path::{Path, PathBuf};

use ocikit_server::{Durability, Error, Running, Server, Storage};
use ocikit_spec::{Algorithm, Descriptor, Digest, MediaType};
use tempfile::TempDir;

use crate::http::{Http, json, manifest, start_with};

async fn start(directory: &TempDir) -> (Running, Http) {
    let storage = Storage::directory_with(directory.path(), Durability::Crash);
    start_with(Server::default().storage(storage)).await
}

/// Returns all files below a directory, relative to it.
fn files(root: &Path) -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    let mut found: Vec<_> = found.into_iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect();
    found.sort();
    found
}

#[tokio::test]
async fn contents_of_a_directory_persist() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::directory(directory.path());
    let (running, http) = start_with(Server::default().storage(storage.clone())).await;
    let subject = http.push_image("a/b", "v1", "layer").await;
    let described = Descriptor::of(MediaType::OCI_MANIFEST, subject.as_bytes());
    let more = format!(r#","subject":{},"artifactType":"application/x","annotations":{{"k":"v"}}"#, json(&described));
    let about = manifest("layer", &more);
    let about_digest = Digest::of(Algorithm::Sha512, about.as_bytes());
    assert_eq!(http.put_manifest("a/b", &about_digest.to_string(), &about).await.status, 201);
    http.push_image("a", "v1", "other").await;
    http.push_image("a", "gone", "other").await;
    assert_eq!(http.status("DELETE /v2/a/manifests/gone").await, 202);
    let referrers = format!("/v2/a/b/referrers/{}", described.digest);
    let before = http.get(&referrers).await.json();
    running.shutdown().await;

    // Once with the same value, once with a new one.
    for storage in [storage, Storage::directory(directory.path())] {
        let (running, http) = start_with(Server::default().storage(storage)).await;
        let answer = http.get("/v2/a/b/manifests/v1").await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, subject.as_bytes()));
        assert_eq!(answer.header("content-type"), MediaType::OCI_MANIFEST.as_str());
        assert_eq!(http.get(&format!("/v2/a/b/manifests/{about_digest}")).await.body, about.as_bytes());
        assert_eq!(http.get(&referrers).await.json(), before);
        assert_eq!(before["manifests"][0]["annotations"]["k"], "v");
        let layer = Digest::sha256_of(b"layer");
        assert_eq!(http.get(&format!("/v2/a/b/blobs/{layer}")).await.body, b"layer");
        assert_eq!(http.status(&format!("HEAD /v2/a/blobs/{layer}")).await, 404);
        assert_eq!(http.get("/v2/a/tags/list").await.json()["tags"], serde_json::json!(["v1"]));
        assert_eq!(http.get("/v2/_catalog").await.json()["repositories"], serde_json::json!(["a", "a/b"]));
        running.shutdown().await;
    }
}

#[tokio::test]
async fn bytes_of_a_blob_are_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let (running, http) = start(&directory).await;
    let digest = http.push("a", b"hello").await;
    http.push("a", b"hello").await;
    http.push("b/c", b"hello").await;
    let mount = format!("POST /v2/d/blobs/uploads/?mount={digest}&from=a");
    assert_eq!(http.status(&mount).await, 201);
    let hex = digest.hex();
    let expected: Vec<PathBuf> = [
        format!("blobs/sha256/{hex}"),
        "ocikit-server".to_owned(),
        format!("repositories/a/_blobs/sha256/{hex}"),
        format!("repositories/b/c/_blobs/sha256/{hex}"),
        format!("repositories/d/_blobs/sha256/{hex}"),
    ]
    .map(PathBuf::from)
    .into();
    assert_eq!(files(directory.path()), expected);
    for name in ["a", "b/c", "d"] {
        assert_eq!(http.status(&format!("DELETE /v2/{name}/blobs/{digest}")).await, 202);
    }
    assert_eq!(files(directory.path()), [PathBuf::from("ocikit-server")]);
    assert_eq!(fs::read_dir(directory.path().join("repositories")).unwrap().count(), 0);
    running.shutdown().await;
}

#[tokio::test]
async fn deleting_everything_leaves_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let (_running, http) = start(&directory).await;
    let text = http.push_image("a", "v1", "layer").await;
    http.put_manifest("a", "v2", &text).await;
    for path in [
        format!("manifests/{}", Digest::sha256_of(text.as_bytes())),
        format!("blobs/{}", Digest::sha256_of(b"layer")),
        format!("blobs/{}", Digest::sha256_of(b"{}")),
    ] {
        assert_eq!(http.status(&format!("DELETE /v2/a/{path}")).await, 202);
    }
    assert_eq!(files(directory.path()), [PathBuf::from("ocikit-server")]);
}

#[tokio::test]
async fn leftovers_of_a_crash_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (running, http) = start(&directory).await;
    let text = http.push_image("a", "v1", "layer").await;
    running.shutdown().await;
    let (manifest, lost) = (Digest::sha256_of(text.as_bytes()), Digest::sha256_of(b"lost"));
    let root = directory.path();
    fs::write(root.join("unfinished/upload-x"), "half").unwrap();
    fs::write(root.join(lost.blob_path()), "unreferenced").unwrap();
    fs::write(root.join("repositories/a/_tags/dangling"), lost.to_string()).unwrap();
    fs::write(root.join("repositories/a/_tags/empty"), "").unwrap();
    // Files that are not in this format are kept and not served.
    fs::write(root.join("repositories/a/_blobs/sha256/..hidden"), "").unwrap();
    fs::write(root.join("repositories/a/_tags/-bad"), manifest.to_string()).unwrap();
    fs::create_dir_all(root.join("repositories/UPPER/_tags")).unwrap();
    fs::remove_file(root.join(Digest::sha256_of(b"layer").blob_path())).unwrap();

    let (_running, http) = start(&directory).await;
    assert!(!root.join("unfinished/upload-x").exists());
    assert!(!root.join(lost.blob_path()).exists());
    assert_eq!(http.get("/v2/a/tags/list").await.json()["tags"], serde_json::json!(["v1"]));
    assert_eq!(http.status(&format!("GET /v2/a/blobs/{}", Digest::sha256_of(b"layer"))).await, 404);
    assert_eq!(http.get("/v2/_catalog").await.json()["repositories"], serde_json::json!(["a"]));
    http.push("a", b"layer").await;
    assert_eq!(http.get(&format!("/v2/a/blobs/{}", Digest::sha256_of(b"layer"))).await.body, b"layer");
}

#[tokio::test]
async fn abandoned_uploads_leave_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let (running, http) = start(&directory).await;
    let unfinished = || fs::read_dir(directory.path().join("unfinished")).unwrap().count();
    let location = http.begin("a").await;
    assert_eq!(unfinished(), 0, "no byte was received yet");
    http.send(&format!("PATCH {location}"), "", "some").await;
    assert_eq!(unfinished(), 1);
    assert_eq!(http.status(&format!("DELETE {location}")).await, 204);
    assert_eq!(unfinished(), 0);
    http.send(&format!("PATCH {}", http.begin("a").await), "", "some").await;
    let wrong = format!("PUT {}?digest={}", http.begin("a").await, Digest::sha256_of(b"x"));
    assert_eq!(http.send(&wrong, "", "y").await.status, 400);
    running.shutdown().await;
    assert_eq!(unfinished(), 0);
}

#[tokio::test]
async fn directory_is_locked_by_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let (running, _http) = start(&directory).await;
    let second = Server::default().storage(Storage::directory(directory.path()));
    assert!(matches!(second.clone().start().await, Err(Error::InUse { .. })));
    running.shutdown().await;
    second.start().await.unwrap();
}

#[tokio::test]
async fn other_directories_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let start = async |path: &Path| Server::default().storage(Storage::directory(path)).start().await;
    fs::write(directory.path().join("diary"), "dear").unwrap();
    assert!(matches!(start(directory.path()).await, Err(Error::Foreign { .. })));
    assert_eq!(files(directory.path()), [PathBuf::from("diary")]);
    fs::write(directory.path().join("ocikit-server"), "99\n").unwrap();
    assert!(matches!(start(directory.path()).await, Err(Error::Foreign { .. })));
    assert!(matches!(start(&directory.path().join("diary")).await, Err(Error::Storage { .. })));
    start(&directory.path().join("new/one")).await.unwrap();
}

#[tokio::test]
async fn concurrent_pushes_are_complete() {
    let directory = tempfile::tempdir().unwrap();
    let (running, http) = start(&directory).await;
    let pushes = (0..20).map(async |at| {
        let text = http.push_image("a", "latest", &format!("layer {}", at % 5)).await;
        http.put_manifest("a", &format!("v{at}"), &text).await;
    });
    futures::future::join_all(pushes).await;
    let latest = http.get("/v2/a/manifests/latest").await.body;
    running.shutdown().await;
    let (_running, http) = start(&directory).await;
    assert_eq!(http.get("/v2/a/tags/list").await.json()["tags"].as_array().unwrap().len(), 21);
    assert_eq!(http.get("/v2/a/manifests/latest").await.body, latest, "memory and disk agree on the last write");
    for at in 0..20 {
        let text = manifest(&format!("layer {}", at % 5), "");
        assert_eq!(http.get(&format!("/v2/a/manifests/v{at}")).await.body, text.as_bytes());
    }
}

#[tokio::test]
async fn large_blob_round_trips() {
    let directory = tempfile::tempdir().unwrap();
    let (_running, http) = start(&directory).await;
    let bytes = ocikit_image::testing::random(1, 5_000_000);
    let digest = http.push("a", &bytes).await;
    assert!(http.get(&format!("/v2/a/blobs/{digest}")).await.body == bytes);
    let answer = http.send(&format!("GET /v2/a/blobs/{digest}"), "range: bytes=1000000-3000000,4999990-", "").await;
    assert_eq!(answer.status, 206);
    let contains = |part: &[u8]| answer.body.windows(part.len()).any(|window| window == part);
    assert!(contains(&bytes[4_999_990..]) && contains(&bytes[2_999_000..=3_000_000]));
}

#[tokio::test]
async fn deleted_blob_is_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (_running, http) = start(&directory).await;
    let bytes = ocikit_image::testing::random(1, 20_000_000);
    let digest = http.push("a", &bytes).await;
    let mut pull =
        crate::http::client().get(format!("http://{}/v2/a/blobs/{digest}", _running.registry())).send().await.unwrap();
    assert_eq!(http.status(&format!("DELETE /v2/a/blobs/{digest}")).await, 202);
    let mut length = 0;
    while let Some(chunk) = pull.chunk().await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, bytes.len());
}
