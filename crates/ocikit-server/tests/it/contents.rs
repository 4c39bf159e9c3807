use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::testing::{self, Place, conformance};
use ocikit_image::{CopyOptions, Memory, Naming, Result, Root, Sink, Source, copy};
use ocikit_server::{Durability, Running, Server, Storage};

use crate::http::{Http, start};

struct InServer {
    running: Running,
    _directory: Option<tempfile::TempDir>,
}

#[async_trait]
impl Place for InServer {
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.running.contents("a/b").unwrap())
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(self.running.contents("a/b").unwrap()))
    }

    fn lists_untagged(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn contents_in_memory_conform() {
    conformance(async || InServer { running: Server::default().start().await.unwrap(), _directory: None }).await;
}

#[tokio::test]
async fn contents_in_a_directory_conform() {
    conformance(async || {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::directory_with(directory.path(), Durability::Crash);
        let running = Server::default().storage(storage).start().await.unwrap();
        InServer { running, _directory: Some(directory) }
    })
    .await;
}

#[tokio::test]
async fn directly_stored_content_is_served() {
    let (running, http) = start().await;
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[1000]);
    let root = Root::at(memory, image).await.unwrap();
    let sink: Arc<dyn Sink> = Arc::new(running.contents("a").unwrap());
    let naming = Naming::of_tag("v1".parse().unwrap());
    copy(&root, &sink, &CopyOptions::default().names(vec![naming])).await.unwrap();
    assert_eq!(running.requests(), [], "no request was needed");
    let answer = http.get("/v2/a/manifests/v1").await;
    assert_eq!(answer.header("docker-content-digest"), root.digest().to_string());
    assert!(running.contents("../a").is_err());
}

#[tokio::test]
async fn two_servers_can_share_one_storage() {
    let storage = Storage::memory();
    let one = Server::default().storage(storage.clone()).start().await.unwrap();
    let two = Server::default().storage(storage).start().await.unwrap();
    let digest = Http::new(one.registry().as_str()).push("a", b"hello").await;
    assert_eq!(Http::new(two.registry().as_str()).get(&format!("/v2/a/blobs/{digest}")).await.body, b"hello");
}
