//! The HTTP stack of the registry client and of the clients of signing services.
//!
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_http::{HttpClient, HttpClientOptions, Method, Origin, Request, TlsSettings};
//!
//! let client = HttpClient::new(HttpClientOptions::default());
//! let origin = Origin::User(Arc::new(TlsSettings::default()));
//! let request = Request::new(Method::GET, "https://example.com/document".parse()?, origin);
//! let document = client.fetch(&request, 1 << 20).await.map_err(|(error, _)| error)?;
//! println!("{} {:?}", document.status, document.body);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What is in it
//!
//! * TLS: CA certificates, client certificates and keys from files and from memory, or a configuration of the caller
//!   ([`TlsSettings`]).
//! * Proxies, with the semantics of Go ([`ProxyOptions`]).
//! * Redirects, followed in one loop, and one decision about what a server gets that another server named ([`Origin`]).
//! * Retries and delays, `Retry-After` included ([`RetryOptions`]), and limits on concurrency per host.
//! * Time limits on progress ([`Timeouts`]) and bounded bodies ([`Answer::read`]).
//! * URLs that hide their secrets ([`Url`]).
//! * Typed failures: [`RequestError`] and its cause, a [`NoAnswer`].
//!
//! # What this crate never does
//!
//! * It never sends credentials to a server that another server named, nor a client certificate.
//! * It never limits the duration of a transfer that makes progress, except of a small document.
//! * It never reads a body without a limit into memory.
//! * It never shows a secret: not in messages, not in `Debug`.
//! * It never prints, starts a runtime, or reads the environment, which comes in as options. One exception: the system's
//!   certificates are located as OpenSSL locates them, which honors `SSL_CERT_FILE` and `SSL_CERT_DIR`.
//! * It knows no protocol above HTTP, except that it hides the names of upload sessions.

mod address;
mod answer;
mod body;
#[cfg(feature = "tls")]
mod certificate;
mod certs;
mod client;
mod clock;
mod error;
pub mod files;
mod limit;
mod lock;
#[cfg(not(feature = "tls"))]
mod no_tls;
#[cfg(not(feature = "tls"))]
mod no_tls_config;
mod observe;
mod proxy;
mod proxy_failure;
mod redact;
mod request;
mod request_error;
pub mod retry;
mod secret;
mod settings;
mod spare;
mod speculation;
mod stall;
mod timeouts;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_config;
mod transport;
mod trust;
mod url;

#[cfg(not(feature = "tls"))]
use {no_tls as tls, no_tls_config as tls_config};

pub use address::{Reach, Resolver, SystemResolver, Zone};
pub use answer::Answer;
pub use body::{BodySource, StreamBody};
pub use client::{HttpClient, HttpClientOptions, OtherServers, Redirects};
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use lock::lock;
pub use observe::{RequestEvent, RequestObserver, RequestOutcome};
pub use ocikit_spec::NoAnswer;
pub use proxy::ProxyOptions;
pub use redact::Secrets;
pub use request::{Document, Reply, Request};
pub use request_error::{BoxError, RequestError};
pub use reqwest::{Method, header};
pub use retry::RetryOptions;
pub use secret::Secret;
pub use settings::{Identity, Pem, TlsSettings, Verify};
pub use speculation::Speculation;
pub use timeouts::{TimeLimit, Timeouts};
pub use tls_config::TlsConfig;
pub use transport::Lane;
pub use trust::{InvalidLocation, Origin, resolve};
pub use url::{InvalidUrl, Url};
