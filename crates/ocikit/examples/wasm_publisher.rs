//! Publishes a WebAssembly module as an artifact, with the config that the CNCF guidance for Wasm artifacts asks for.
//!
//! ```text
//! cargo run --example wasm_publisher -- filter.wasm localhost:5000/filter:1
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use ocikit::{ArtifactBuilder, BlobFile, Client, Location, Session, SessionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [module, target] = &arguments[..] else { return Err("usage: wasm_publisher MODULE REFERENCE".into()) };
    let target: Location = target.parse()?;

    let module = BlobFile::open(module).await?.with_media_type("application/wasm");
    let config = format!(r#"{{"architecture":"wasm","os":"wasip1","layerDigests":["{}"]}}"#, module.digest());
    let artifact = ArtifactBuilder::without_type()
        .config_bytes("application/vnd.wasm.config.v0+json", config)
        .layer_from(module)
        .annotation("org.opencontainers.image.title", "filter")
        .build()?;

    let session = Session::new(Client::default(), SessionOptions::default());
    let copied = session.copy_root(&artifact, &target).await?;
    println!("{}", copied.root.digest);
    Ok(())
}
