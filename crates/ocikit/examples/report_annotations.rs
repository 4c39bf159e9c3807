//! Reports the annotations of an archive as JSON: those of the index, of its descriptors and of every manifest. A
//! program without async.
//!
//! ```text
//! cargo run --example report_annotations --features blocking -- container-image.tar
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use ocikit::blocking::Session;
use ocikit::{Client, ClientOptions, Inspection, SessionOptions};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [archive] = &arguments[..] else { return Err("usage: report_annotations ARCHIVE".into()) };
    let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default())?;
    let found = session.inspect(&archive.parse()?)?;
    println!("{:#}", report(&found));
    Ok(())
}

fn report(found: &Inspection) -> Value {
    json!({
        "digest": found.digest,
        "kind": found.kind,
        "platform": found.platform.as_ref().map(ToString::to_string),
        "annotations": found.annotations,
        "listedWith": found.descriptor_annotations,
        "manifests": found.manifests.iter().map(report).collect::<Vec<_>>(),
    })
}
