//! Publishes a WebAssembly module as an artifact, with the config that the CNCF guidance for Wasm artifacts asks for, and
//! signs it if a key is given.
//!
//! ```text
//! cargo run --features sign --example wasm_publisher -- filter.wasm localhost:5000/filter:1 release.key
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::SystemTime;

use ocikit::sign::{Format, PrivateKey, SignOptions};
use ocikit::{ArtifactBuilder, BlobFile, Client, Location, Session, SessionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [module, target, key @ ..] = &arguments[..] else { return Err("usage: MODULE REFERENCE [KEY]".into()) };
    let target: Location = target.parse()?;

    let module = BlobFile::open(module).await?.with_media_type("application/wasm");
    let config = format!(r#"{{"architecture":"wasm","os":"wasip1","layerDigests":["{}"]}}"#, module.digest());
    let artifact = ArtifactBuilder::without_type()
        .config_bytes("application/vnd.wasm.config.v0+json", config)
        .layer_from(module)
        .annotation("org.opencontainers.image.title", "filter")
        .build()?;

    let session = Session::new(Client::default(), SessionOptions::default());
    let digest = session.copy_root(&artifact, &target).await?.root.digest;
    for key in key {
        let key = PrivateKey::from_pem(&std::fs::read(key)?, None)?;
        let options = SignOptions::new(vec![Format::Cosign], SystemTime::now()).expect(Some(digest));
        session.sign(&target, &key, &options).await?;
    }
    println!("{digest}");
    Ok(())
}
