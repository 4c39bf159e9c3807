//! A client of the distribution protocol.
//!
//! A [`RemoteRepository`] is a location like any other: code that reads and writes images uses it through
//! [`ocikit_image::Source`] and [`ocikit_image::Sink`].
//!
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{CopyOptions, Name, Naming, Root, Sink, copy};
//! use ocikit_registry::{Client, ClientOptions, DockerConfig};
//!
//! let keychain = Arc::new(DockerConfig::new("/home/me/.docker/config.json"));
//! let client = Client::new(ClientOptions::default().keychain(keychain));
//!
//! let from = client.repository("docker.io/library/alpine".parse()?)?;
//! let to: Arc<dyn Sink> = Arc::new(client.repository("ghcr.io/acme/alpine".parse()?)?);
//!
//! let root = Root::open(Arc::new(from), &Name::Tag("3.22".parse()?)).await?;
//! let names = vec![Naming::of_tag("3.22".parse()?)];
//! copy(&root, &to, &CopyOptions::default().names(names)).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Requests
//!
//! Registries count requests, and on a slow network each one costs a round trip. The table shows the requests without
//! failures and redirects. Token requests come on top: one for each repository and kind of access; a token is reused
//! until shortly before it expires.
//!
//! | operation | requests |
//! |---|---|
//! | push an existing image | one per tag |
//! | push a new image | one per tag (`HEAD`), three per blob (`HEAD`, `POST`, `PUT`), one per manifest (`PUT` by digest), one per uploaded root (`HEAD` to confirm it), one per tag (`PUT`) |
//! | push a blob that this client uploaded to, or reads from, another repository of the registry | one if the registry mounts it, two if not |
//! | push a blob to a registry whose mounts report existing blobs, according to [`Client::probe`] | two, or one if it exists |
//! | push a blob that another task of this client uploads or has uploaded | none |
//! | put a manifest that may exist | one, and one more if it does not exist |
//! | add a referrer where the registry has no referrers API | three: read, write, read again |
//! | push an existing image without a tag | one; three where the registry has no referrers API: subject and list of referrers are read |
//! | open a root by its name | one |
//! | read a blob | one; a large one over a slow connection one per [`ParallelOptions::part`] |
//! | list tags, repositories, referrers | one per page |
//!
//! The first request receives the challenge, and other requests wait for it. `/v2/` is requested only if the first
//! request was refused without a challenge and there is a credential, and then once.
//!
//! # Credentials
//!
//! A credential is sent to the registry that it is for, after that registry sent a challenge, and to the token service
//! that the challenge names. It is never sent to the target of a redirect, to an upload session on another host, or
//! over plain HTTP to a server that was first contacted over TLS. A client certificate is presented only to the
//! registries that the caller names. A loopback registry is contacted over plain HTTP unless TLS is configured for it
//! or it speaks TLS; see [`hosts::Scheme::Guess`]. A public server cannot redirect to addresses of this machine or of a
//! private network; see [`Redirects`].
//!
//! # What this crate never does
//!
//! * It never completes an upload whose bytes do not match the digest, and never returns a manifest that does not
//!   match.
//! * It never puts a tag on a manifest that does not exist, and never deletes a manifest in place of a tag.
//! * It never limits the duration of a transfer, only the time without progress.
//! * It never holds a whole blob in memory, whatever its size.
//! * It never shows a secret: not in messages, not in `Debug`, not in the arguments of a process.
//! * It never prints, starts a runtime, or reads the environment, which comes in as options. Two exceptions:
//!   `ClientOptions::from_env`, behind the feature `env`, reads it; and the system's certificates are located as OpenSSL
//!   locates them, which honors `SSL_CERT_FILE` and `SSL_CERT_DIR`.
//! * It starts no process except credential helpers.

mod auth;
mod blobs;
mod call;
mod capabilities;
mod client;
mod client_cache;
mod credentials;
mod download;
mod endpoint;
#[cfg(feature = "env")]
mod env;
mod existence;
pub mod hosts;
mod inner;
mod journal;
mod link;
mod manifests;
#[cfg(feature = "oci-client")]
pub mod oci_client;
mod options;
mod probe;
mod problem;
mod range;
mod referrers;
mod repository;
mod tags;
mod target;
mod upload;

pub use capabilities::Capabilities;
pub use client::Client;
pub use credentials::{
    Anonymous, Credential, CredentialPlaces, CredentialScope, DockerConfig, Fixed, HelperOptions, Keychain, Keychains,
    Named, Secret,
};
#[cfg(feature = "env")]
pub use env::Environment;
pub use journal::{FileJournal, Journal, JournalEntry, JournalKey, JournalOptions};
pub use ocikit_http::{
    Clock, Redirects, RequestEvent, RequestObserver, RequestOutcome, Resolver, RetryOptions, SystemClock,
    SystemResolver, Timeouts,
};
pub use ocikit_image::{Error, NoAnswer, Result};
pub use options::{ClientOptions, ParallelOptions};
pub use repository::RemoteRepository;
pub use tags::ListOptions;
