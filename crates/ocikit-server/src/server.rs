use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ocikit_spec::{Registry, Repository};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Authentication, Guard};
use crate::clock::Clock;
use crate::connection;
use crate::contents::Contents;
use crate::desk::Desk;
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::limits::{MemoryBudget, ServerLimits};
use crate::log::{Exchange, Log, Observer};
use crate::rules::Rules;
use crate::storage::Storage;

/// The configuration of a registry.
///
/// The defaults suit tests: storage in memory, a free port of the loopback address, no authentication.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Server {
    /// The address to listen on; port 0 selects a free port.
    pub address: SocketAddr,
    /// Where blobs, manifests and tags are stored.
    pub storage: Storage,
    /// Users and their permissions.
    pub authentication: Authentication,
    /// Host names by which clients may address the server, in addition to IP addresses, `localhost` and names below
    /// `localhost`. Requests with another `Host` are refused, because they may come from a web page whose own name
    /// resolves to this server's address (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// Behaviour that the specification leaves to the registry.
    pub rules: Rules,
    /// Limits on the resources that clients can use.
    pub limits: ServerLimits,
    /// The faults to inject.
    pub faults: Faults,
    /// The source of the time.
    pub clock: Clock,
    /// An observer of all requests.
    pub observer: Option<Arc<dyn Observer>>,
    /// Maximum number of requests that [`Running::requests`] returns; the oldest are dropped first.
    pub remember: usize,
    /// How long requests in progress may take after shutdown has begun, before they are aborted.
    pub shutdown_timeout: Duration,
}

ocikit_spec::setters! {
    Server {
        address: SocketAddr,
        storage: Storage,
        authentication: Authentication,
        allowed_hosts: Vec<String>,
        rules: Rules,
        limits: ServerLimits,
        faults: Faults,
        clock: Clock,
        observer: Option<Arc<dyn Observer>>,
        remember: usize,
        shutdown_timeout: Duration,
    }
}

impl Default for Server {
    fn default() -> Server {
        Server {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            storage: Storage::memory(),
            authentication: Authentication::none(),
            allowed_hosts: Vec::new(),
            rules: Rules::default(),
            limits: ServerLimits::default(),
            faults: Faults::new(),
            clock: Clock::system(),
            observer: None,
            remember: 10_000,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl Server {
    /// Opens the storage, listens, and serves requests in tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// Those of the storage, and [`Error::Listen`].
    pub async fn start(self) -> Result<Running> {
        let store = self.storage.open().await?;
        let failed = |source| Error::Listen { address: self.address, source };
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let registry = registry(address);
        let desk = Arc::new(Desk {
            address,
            store,
            allowed_hosts: self.allowed_hosts,
            rules: self.rules,
            limits: self.limits,
            memory: MemoryBudget::new(self.limits.max_document_bytes),
            upload_memory: MemoryBudget::new(self.limits.max_upload_bytes),
            crowded: Notify::new(),
            guard: Guard::new(self.authentication, self.clock.clone()),
            faults: self.faults,
            clock: self.clock,
            log: Log::new(self.remember, self.observer),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let serving = tokio::spawn(connection::serve(listener, desk.clone(), self.shutdown_timeout));
        Ok(Running { registry, desk, serving })
    }
}

/// A registry that runs until it is shut down or dropped.
///
/// Dropping it aborts all requests; another server can open the directory a moment later.
pub struct Running {
    registry: Registry,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.desk.address
    }

    /// Returns its name in references, such as `127.0.0.1:37123`.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns direct access to a repository, without the protocol: no authentication, faults or logging.
    ///
    /// # Errors
    ///
    /// [`ocikit_spec::Error::Reference`] if the path is not a valid repository name.
    pub fn contents(&self, path: &str) -> Result<Contents, ocikit_spec::Error> {
        let repository = Repository::new(self.registry.clone(), path)?;
        Ok(Contents::new(self.desk.store.clone(), path.parse()?, repository))
    }

    /// Returns the active faults.
    pub fn faults(&self) -> &Faults {
        &self.desk.faults
    }

    /// Expires all tokens except identity tokens.
    pub fn expire_tokens(&self) {
        self.desk.guard.tokens.expire_all();
    }

    /// Returns the last requests in the order of their arrival, including those in progress.
    pub fn requests(&self) -> Vec<Exchange> {
        self.desk.log.exchanges()
    }

    /// Returns the number of uploads whose received bytes are being stored. That continues after their connection is lost.
    pub fn pending_writes(&self) -> usize {
        self.desk.tasks.len()
    }

    /// Clears the log of requests.
    pub fn clear_requests(&self) {
        self.desk.log.clear();
    }

    /// Shuts the server down: accepts no further connections, waits for requests in progress until
    /// [`Server::shutdown_timeout`], and closes the storage.
    pub async fn shutdown(mut self) {
        self.desk.closing.cancel();
        // The task fails only by a panic, and then it has ended as well.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.desk.closing.cancel();
        self.serving.abort();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running ({})", self.registry)
    }
}

/// Returns the registry name of an address, for clients on the same machine.
fn registry(address: SocketAddr) -> Registry {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    // Built from the address, since a reference cannot contain the scope of an IPv6 address.
    let text = SocketAddr::new(host, address.port()).to_string();
    text.parse().expect("an IP address with a port is a registry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_valid_registry() {
        for (address, expected) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("0.0.0.0:5000", "127.0.0.1:5000"),
            ("[::]:5000", "[::1]:5000"),
            ("[fe80::1%3]:80", "[fe80::1]:80"),
            ("192.168.1.2:0", "192.168.1.2:0"),
        ] {
            assert_eq!(registry(address.parse().unwrap()).as_str(), expected);
        }
    }
}
