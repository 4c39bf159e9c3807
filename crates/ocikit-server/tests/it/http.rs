//! A plain HTTP client, and helpers for all tests.

use ocikit_server::{Running, Server};
use ocikit_spec::{Descriptor, Digest, MediaType};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, ClientBuilder, Method};

/// A client of one server, which follows no redirects and does not retry.
pub(crate) struct Http {
    client: Client,
    base: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the code of the first error.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

/// Creates a client without automatic behaviour.
pub(crate) fn client() -> Client {
    builder().redirect(Policy::none()).retry(reqwest::retry::never()).build().unwrap()
}

/// Creates a builder with a TLS provider. No test needs TLS, but if another crate of the workspace builds the library
/// without a default provider, one must be named.
pub(crate) fn builder() -> ClientBuilder {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy()
}

pub(crate) async fn start() -> (Running, Http) {
    start_with(Server::default()).await
}

pub(crate) async fn start_with(server: Server) -> (Running, Http) {
    let running = server.start().await.unwrap();
    let http = Http::new(running.registry().as_str());
    (running, http)
}

impl Http {
    pub(crate) fn new(registry: &str) -> Http {
        Http { client: client(), base: format!("http://{registry}") }
    }

    /// Sends a request such as `GET /v2/`, with one header per line.
    pub(crate) async fn try_send(&self, line: &str, headers: &str, body: impl Into<Body>) -> reqwest::Result<Answer> {
        let (method, path) = line.split_once(' ').unwrap();
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        for header in headers.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = header.split_once(':').unwrap();
            request = request.header(name.trim(), value.trim());
        }
        let response = request.body(body).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.into() })
    }

    pub(crate) async fn send(&self, line: &str, headers: &str, body: impl Into<Body>) -> Answer {
        self.try_send(line, headers, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", "").await
    }

    /// Returns the status of a request without a body.
    pub(crate) async fn status(&self, line: &str) -> u16 {
        self.send(line, "", "").await.status
    }

    /// Starts an upload and returns its location.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let answer = self.send(&format!("POST /v2/{name}/blobs/uploads/"), "", "").await;
        assert_eq!(answer.status, 202);
        answer.header("location").to_owned()
    }

    /// Pushes a blob in one request.
    pub(crate) async fn push(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let line = format!("POST /v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send(&line, "", bytes.to_vec()).await.status, 201);
        digest
    }

    pub(crate) async fn put_manifest(&self, name: &str, reference: &str, manifest: &str) -> Answer {
        let headers = format!("content-type: {}", media_type(manifest));
        self.send(&format!("PUT /v2/{name}/manifests/{reference}"), &headers, manifest.to_owned()).await
    }

    /// Pushes an image with one small layer under a tag, and returns its manifest.
    pub(crate) async fn push_image(&self, name: &str, tag: &str, seed: &str) -> String {
        for blob in [CONFIG, seed] {
            self.push(name, blob.as_bytes()).await;
        }
        let manifest = manifest(seed, "");
        assert_eq!(self.put_manifest(name, tag, &manifest).await.status, 201);
        manifest
    }
}

pub(crate) const CONFIG: &str = "{}";

/// Returns the manifest of an image with one layer, with additional fields.
pub(crate) fn manifest(layer: &str, more: &str) -> String {
    let config = json(&Descriptor::of(MediaType::OCI_CONFIG, CONFIG.as_bytes()));
    let layer = json(&Descriptor::of(MediaType::OCI_LAYER, layer.as_bytes()));
    let media_type = MediaType::OCI_MANIFEST;
    format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{layer}]{more}}}"#)
}

pub(crate) fn json(descriptor: &Descriptor) -> String {
    serde_json::to_string(descriptor).unwrap()
}

fn media_type(manifest: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(manifest).unwrap_or_default();
    document["mediaType"].as_str().unwrap_or(MediaType::OCI_MANIFEST.as_str()).to_owned()
}
