//! Annotates an archive in place, without moving a layer, and pushes it to three registries in parallel.
//!
//! ```text
//! cargo run --example annotate_and_push -- container-image.tar 6c22711 \
//!     localhost:5000/app:1 ghcr.io/acme/app:1 quay.io/acme/app:1
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use ocikit::{AnnotateOptions, Client, ClientOptions, Location, Reference, Session, SessionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [archive, revision, targets @ ..] = &arguments[..] else {
        return Err("usage: annotate_and_push ARCHIVE REVISION REFERENCE…".into());
    };
    let archive: Location = archive.parse()?;
    let targets = targets.iter().map(|target| target.parse()).collect::<Result<Vec<Reference>, _>>()?;

    let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default());
    let set = vec![("org.opencontainers.image.revision".to_owned(), revision.clone())];
    let annotated = session.annotate(&archive, &AnnotateOptions::default().set(set)).await?;
    println!("{} became {}", annotated.before, annotated.after.digest());

    let mut failed = 0;
    for (target, outcome) in targets.iter().zip(session.push(&archive, &targets).await?) {
        match outcome {
            Ok(copied) => println!("{target}@{}", copied.root.digest),
            // The other targets have the image; a second run uploads only what is missing.
            Err(error) => {
                failed += 1;
                println!("{target}: {error}");
            }
        }
    }
    if failed > 0 { Err(format!("{failed} of {} registries failed", targets.len()).into()) } else { Ok(()) }
}
