//! Mirrors the tags of a repository with a common prefix. Blobs that several tags share are copied once, and a tag that
//! is up to date costs two requests.
//!
//! ```text
//! cargo run --example mirror_tags -- docker.io/library/alpine localhost:5000/alpine 3.2
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use ocikit::image::Referrers;
use ocikit::{Client, ClientOptions, Location, Put, Reference, Repository, Session, SessionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [from, to, prefix] = &arguments[..] else {
        return Err("usage: mirror_tags REPOSITORY REPOSITORY PREFIX".into());
    };
    let (from, to): (Repository, Repository) = (from.parse()?, to.parse()?);

    // Signatures, attestations and SBOMs are copied too.
    let options = SessionOptions::default().referrers(Referrers::All);
    let session = Session::new(Client::new(ClientOptions::default()), options);
    for tag in session.tags(&from).await?.into_iter().filter(|tag| tag.as_str().starts_with(prefix)) {
        let here = Location::Registry(Reference::tagged(from.clone(), tag.clone()));
        let there = Location::Registry(Reference::tagged(to.clone(), tag.clone()));
        let copied = session.copy(&here, &there).await?;
        let (_, bytes) = copied.count(Put::Copied);
        println!("{tag} {} {bytes} bytes", copied.root.digest);
    }
    Ok(())
}
