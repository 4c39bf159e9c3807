//! A program that pushes and pulls with the crate `oci-client`: `push LAYOUT REFERENCE`, `pull REFERENCE DIRECTORY`.

#![allow(clippy::expect_used, clippy::panic, reason = "this is part of a benchmark")]

use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::OciImageManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use ocikit_spec::Index;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The workspace builds rustls without a default provider, so the program must select one, even for plain HTTP.
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("no provider was installed before");
    let config = ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push: true, ..ClientConfig::default() };
    let client = Client::try_from(config).expect("a client");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["push", layout, reference] => push(&client, Path::new(layout), &parse(reference)).await,
        ["pull", reference, directory] => pull(&client, &parse(reference), Path::new(directory)).await,
        _ => panic!("push LAYOUT REFERENCE, or pull REFERENCE DIRECTORY"),
    }
}

fn parse(reference: &str) -> Reference {
    reference.parse().expect("a reference")
}

/// Reads the layers into memory, because the crate requires it.
async fn push(client: &Client, layout: &Path, reference: &Reference) {
    let read = |path: &str| std::fs::read(layout.join(path)).expect("a file of the layout");
    let blob = |digest: &str| read(&format!("blobs/{}", digest.replace(':', "/")));
    let index = Index::parse(read("index.json")).expect("an index");
    let manifest = blob(&index.manifests()[0].digest.to_string());
    let manifest: OciImageManifest = serde_json::from_slice(&manifest).expect("a manifest");
    let layers =
        manifest.layers.iter().map(|layer| ImageLayer::new(blob(&layer.digest), layer.media_type.clone(), None));
    let layers: Vec<_> = layers.collect();
    let config = Config::oci_v1(blob(&manifest.config.digest), None);
    let pushed = client.push(reference, &layers, config, &RegistryAuth::Anonymous, Some(manifest)).await;
    pushed.expect("a push");
}

async fn pull(client: &Client, reference: &Reference, directory: &Path) {
    client.auth(reference, &RegistryAuth::Anonymous, RegistryOperation::Pull).await.expect("a registry");
    let (manifest, _) = client.pull_image_manifest(reference, &RegistryAuth::Anonymous).await.expect("a manifest");
    let blobs = stream::iter(manifest.layers.iter().chain([&manifest.config]));
    let pulls = blobs.map(Ok).try_for_each_concurrent(4, |blob| async move {
        let file = tokio::fs::File::create(directory.join(&blob.digest[7..])).await.expect("a file");
        client.pull_blob(reference, blob, file).await
    });
    pulls.await.expect("a pull");
}
