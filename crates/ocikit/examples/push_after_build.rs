//! Pushes the archive of a build and reports what was uploaded.
//!
//! ```text
//! cargo run --example push_after_build -- container-image.tar localhost:5000/app:1
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;

use ocikit::{ArtifactKind, Client, ClientOptions, Error, Event, Location, Observer, Put, Session, SessionOptions};

/// Prints each tag at the moment when it is published.
#[derive(Debug)]
struct Announce;

impl Observer for Announce {
    fn event(&self, event: Event<'_>) {
        if let Event::Published { root, tag: Some(tag) } = event {
            println!("{tag} is {}", root.digest);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [archive, target] = &arguments[..] else { return Err("usage: push_after_build ARCHIVE REFERENCE".into()) };
    let (archive, target): (Location, Location) = (archive.parse()?, target.parse()?);

    let options = SessionOptions::default().observer(Some(Arc::new(Announce)));
    let session = Session::new(Client::new(ClientOptions::default()), options);

    // Opened once, so that the root that was inspected is the one that is pushed.
    let image = session.open(&archive).await?;
    if !matches!(
        ArtifactKind::of(&image),
        ArtifactKind::Image | ArtifactKind::Index | ArtifactKind::DockerImage | ArtifactKind::DockerIndex
    ) {
        return Err(format!("{archive} holds no image but {}", ArtifactKind::of(&image)).into());
    }
    let copied = match session.copy_root(&image, &target).await {
        // Match on the variant to react to an error; its text is for people.
        Err(Error::Denied { place, .. }) => return Err(format!("log in to {place} first").into()),
        copied => copied?,
    };
    let ((sent, bytes), (there, _)) = (copied.count(Put::Copied), copied.count(Put::Present));
    println!("{sent} blobs with {bytes} bytes were uploaded, {there} already existed");
    Ok(())
}
