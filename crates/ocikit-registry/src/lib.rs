//! The client side of the distribution protocol.
//!
//! A [`RemoteRepository`] is a place like any other: what reads and writes images goes through
//! [`ocikit_image::Source`] and [`ocikit_image::Sink`].
//!
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{CopyOptions, Name, Naming, Root, Sink, copy};
//! use ocikit_registry::{Client, ClientOptions, DockerConfig};
//!
//! let keychain = Arc::new(DockerConfig::new("/home/me/.docker/config.json"));
//! let client = Client::new(ClientOptions { keychain, ..ClientOptions::default() });
//!
//! let from = client.repository("docker.io/library/alpine".parse()?)?;
//! let to: Arc<dyn Sink> = Arc::new(client.repository("ghcr.io/acme/alpine".parse()?)?);
//!
//! let root = Root::open(Arc::new(from), &Name::Tag("3.22".parse()?)).await?;
//! let names = vec![Naming { tag: Some("3.22".parse()?), ..Naming::default() }];
//! copy(&root, &to, &CopyOptions { names, ..CopyOptions::default() }).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod ahead;
mod auth;
mod blobs;
mod client;
mod credentials;
mod download;
mod endpoint;
pub mod hosts;
mod http;
mod manifests;
mod memory;
mod probe;
mod referrers;
mod repository;
mod tags;
mod target;
mod upload;

pub use client::{Client, ClientOptions, Redirects};
pub use credentials::{
    Anonymous, Credential, CredentialPlaces, DockerConfig, Fixed, HelperOptions, Keychain, Keychains, Secret,
};
pub use download::ParallelOptions;
pub use http::{Clock, RetryOptions, SystemClock, Timeouts};
pub use ocikit_image::{Error, Result};
pub use probe::Capabilities;
pub use repository::RemoteRepository;
pub use upload::{FileJournal, Journal, JournalEntry, JournalKey, JournalOptions};
