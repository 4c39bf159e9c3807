//! Copies between registries with credentials from a custom keychain: here a file of lines `REGISTRY USER PASSWORD`.
//!
//! ```text
//! cargo run --example own_keychain -- passwords.txt registry.internal/app:1 ghcr.io/acme/app:1
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit::registry::{Credential, Keychain};
use ocikit::{Client, ClientOptions, Error, Registry, Result, Session, SessionOptions};

/// Queried only when a registry requests credentials.
#[derive(Debug)]
struct Passwords(PathBuf);

#[async_trait]
impl Keychain for Passwords {
    async fn credential(&self, registry: &Registry, _path: &str) -> Result<Option<Credential>> {
        let text = tokio::fs::read_to_string(&self.0).await;
        let text = text.map_err(|error| Error::failed("read", self.0.display(), error))?;
        let mut lines = text.lines().map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
        Ok(lines.find_map(|words| match words[..] {
            [name, user, password] if name == registry.as_str() => Some(Credential::password(user, password)),
            _ => None,
        }))
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [passwords, from, to] = &arguments[..] else { return Err("usage: own_keychain FILE LOCATION LOCATION".into()) };
    let keychain = Arc::new(Passwords(passwords.into()));
    let client = Client::new(ClientOptions::default().keychain(keychain));
    let session = Session::new(client, SessionOptions::default());
    let copied = session.copy(&from.parse()?, &to.parse()?).await?;
    println!("{}", copied.root.digest);
    Ok(())
}
