//! Builds images as ko does: a directory on top of a base image, for all or some of its platforms, straight into a registry,
//! signed if the environment has a key. The layers of the base are mounted or stay where they are.
//!
//! ```text
//! SIGNING_KEY=release.key cargo run --features sign --example image_builder -- cgr.dev/base:1 ./bin localhost:5000/app:1 linux/amd64 linux/arm64
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::SystemTime;

use ocikit::files::{FileOptions, Owner, Path};
use ocikit::sign::{Depth, Format, PrivateKey, SignOptions};
use ocikit::{
    Client, Compression, Image, Location, NewLayer, Platform, Selection, Session, SessionOptions, map_images,
    select_platforms,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [base, directory, target, platforms @ ..] = &arguments[..] else {
        return Err("usage: image_builder BASE DIRECTORY REFERENCE [PLATFORM]...".into());
    };
    let (base, target): (Location, Location) = (base.parse()?, target.parse()?);
    let platforms: Vec<Platform> = platforms.iter().map(|platform| platform.parse()).collect::<Result<_, _>>()?;

    let session = Session::new(Client::default(), SessionOptions::default());
    let root = select_platforms(&session.open(&base).await?, &platforms).await?;

    // Written once, for all platforms. The same files give the same digest.
    let mut files = FileOptions::from(Owner::ROOT);
    files.destination = Path::confined(b"app");
    let layer = NewLayer::of_tree(directory, files, Compression::Gzip).await?;
    let build = async |image: Image| {
        let mut edit = image.edit();
        edit.append_layer(layer.clone()).config(|config| {
            config.entrypoint(["/app/server"]).env("PORT", "8080").label("org.opencontainers.image.title", "server")
        });
        edit.annotate("org.opencontainers.image.base.name", &base.to_string()).finish().await
    };
    let built = map_images(&root, &Selection::all(), build).await?;

    let digest = session.copy_root(&built.root, &target).await?.root.digest;
    if let Some(key) = std::env::var_os("SIGNING_KEY") {
        let key = PrivateKey::from_pem(&std::fs::read(key)?, None)?;
        let options = SignOptions::new(vec![Format::Cosign], SystemTime::now()).depth(Depth::Images);
        session.sign(&target, &key, &options.expect(Some(digest))).await?;
    }
    println!("{digest}");
    Ok(())
}
