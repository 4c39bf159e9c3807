//! The server side of the distribution protocol, small enough to run inside a test, good enough to serve a LAN.
//!
//! A [`Server`] says what a registry is to be, [`Server::start`] makes it [`Running`]. By default it keeps what it holds
//! in memory, at a free port of the loopback address, for everybody. It speaks all of the distribution specification 1.1,
//! asks for credentials if it is told to, misbehaves if it is told to, and remembers what it was asked.
//!
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use ocikit_server::{Action, Fault, Reply, Server};
//!
//! let running = Server::default().start().await?;
//! running.faults().add(Fault::on("GET /v2/", Action::Answer(Reply::status(503))).first(1));
//!
//! let url = format!("http://{}/v2/", running.registry());
//! assert_eq!(reqwest::get(&url).await?.status(), 503);
//! assert_eq!(reqwest::get(&url).await?.status(), 200);
//! assert_eq!(running.requests().iter().filter(|request| request.is("GET /v2/")).count(), 2);
//! running.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A registry for a LAN is one with another address and a directory:
//!
//! ```no_run
//! # async fn serve() -> ocikit_server::Result<()> {
//! use ocikit_server::{Authentication, Grant, Server, Storage, User};
//!
//! let running = Server {
//!     address: ([0, 0, 0, 0], 5000).into(),
//!     storage: Storage::directory("/srv/registry"),
//!     authentication: Authentication {
//!         anonymous: vec![Grant::pull("**")],
//!         ..Authentication::basic([User::new("alice", "secret")])
//!     },
//!     remember: 0,
//!     ..Server::default()
//! }
//! .start()
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is in a directory
//!
//! | path | is |
//! |---|---|
//! | `ocikit-server` | the version of this format, `1`; locked while a server has the directory |
//! | `blobs/sha256/<hex>`, `blobs/sha512/<hex>` | the bytes of blobs and manifests, once for all repositories |
//! | `repositories/<name>/_blobs/sha256/<hex>` | an empty file: the repository has this blob |
//! | `repositories/<name>/_manifests/sha256/<hex>` | the repository has this manifest; JSON: `mediaType`, `size`, and for one that is about another `subject`, `artifactType` and `annotations`, from which the lists of referrers are made |
//! | `repositories/<name>/_tags/<tag>` | the digest that the tag points to |
//! | `unfinished/` | uploads under way; emptied when a server starts |
//!
//! A name of a repository has no part that begins with `_`, so the directories of one do not meet those of another below
//! it. The file system has to tell upper from lower case, since tags do. Every file comes by a rename and is never
//! changed, so that it is there as a whole or not at all; what points to something is written after it and removed
//! before it, so that a crash leaves nothing that points to nothing. Bytes that no repository has are removed when a
//! server starts. At rest, a directory can be copied with any tool.
//!
//! # What this crate never does
//!
//! * It never lets bytes be seen before their digest was checked, nor a name before what it stands for.
//! * It never holds a blob in memory, unless its storage is memory.
//! * It never makes a path of anything but a name, a tag or a digest that `ocikit-spec` accepted.
//! * It never logs or shows a credential.
//! * It never prints, reads the environment, or starts a runtime.
//! * It never sees `ocikit-registry`, the client: a mistake that both made would not be found.

mod answer;
mod api;
mod auth;
mod chunk;
mod clock;
mod condition;
mod connection;
mod contents;
mod deadline;
mod error;
mod fault;
mod leftover;
mod limits;
mod log;
mod name;
mod origin;
mod page;
mod pattern;
mod query;
mod random;
mod range;
mod refusal;
mod route;
mod rules;
mod server;
mod storage;

pub use auth::{Authentication, Bearer, Grant, Password, Permission, Ping, Scheme, TokenField, User};
pub use clock::Clock;
pub use contents::Contents;
pub use error::{Error, Result};
pub use fault::{Action, Active, Fault, Faults, Location, Point, Reply};
pub use limits::Limits;
pub use log::{Authorization, Exchange, Observer};
pub use pattern::Pattern;
pub use rules::{Children, Rules, Switch};
pub use server::{Running, Server};
pub use storage::{Durability, Storage};
