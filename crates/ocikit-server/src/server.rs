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

use crate::answer::Desk;
use crate::auth::{Authentication, Guard};
use crate::clock::Clock;
use crate::connection;
use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::limits::{Limits, Memory};
use crate::log::{Exchange, Log, Observer};
use crate::rules::Rules;
use crate::storage::Storage;

/// A registry that is not running yet.
///
/// By default it is what a test wants: in memory, at a free port of this machine's loopback address, open to everybody.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it listens; port 0 is any that is free.
    pub address: SocketAddr,
    /// Where it keeps what it holds.
    pub storage: Storage,
    /// Who may do what.
    pub authentication: Authentication,
    /// Host names under which clients may address it, besides IP addresses, `localhost` and names below `localhost`.
    /// Requests that name another host are refused, because they may come from a web page that had its own name resolve
    /// to this server's address.
    pub allowed_hosts: Vec<String>,
    /// What the specification leaves to a registry.
    pub rules: Rules,
    /// What clients may take of it.
    pub limits: Limits,
    /// What goes wrong.
    pub faults: Faults,
    /// Where it has the time from.
    pub clock: Clock,
    /// Whoever wants to know of every request.
    pub observer: Option<Arc<dyn Observer>>,
    /// How many requests [`Running::requests`] remembers; the oldest are forgotten first.
    pub remember: usize,
    /// How long requests under way may take once the server is to end, before they are cut off.
    pub patience: Duration,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            storage: Storage::memory(),
            authentication: Authentication::none(),
            allowed_hosts: Vec::new(),
            rules: Rules::default(),
            limits: Limits::default(),
            faults: Faults::new(),
            clock: Clock::system(),
            observer: None,
            remember: 10_000,
            patience: Duration::from_secs(5),
        }
    }
}

impl Server {
    /// Opens the storage, listens, and serves from now on, in tasks of the runtime that this is called in.
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
            memory: Memory::new(self.limits.max_document_bytes),
            upload_memory: Memory::new(self.limits.max_upload_bytes),
            crowded: Notify::new(),
            guard: Guard::new(self.authentication, self.clock.clone()),
            faults: self.faults,
            clock: self.clock,
            log: Log::new(self.remember, self.observer),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let serving = tokio::spawn(connection::serve(listener, desk.clone(), self.patience));
        Ok(Running { registry, desk, serving })
    }
}

/// A registry that runs until it is shut down or dropped.
///
/// Dropped, it ends at once, whatever is under way; a directory is free for another server a moment later.
pub struct Running {
    registry: Registry,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.desk.address
    }

    /// Its name in references, `127.0.0.1:37123`.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What a repository holds, reached without the protocol, so without authentication, faults and counting.
    ///
    /// # Errors
    ///
    /// [`ocikit_spec::Error::Reference`] if the path is not one.
    pub fn contents(&self, path: &str) -> Result<Contents, ocikit_spec::Error> {
        let repository = Repository::new(self.registry.clone(), path)?;
        Ok(Contents::new(self.desk.store.clone(), path.parse()?, repository))
    }

    /// What goes wrong at present.
    pub fn faults(&self) -> &Faults {
        &self.desk.faults
    }

    /// Ends every token that was given out, but identity tokens.
    pub fn expire_tokens(&self) {
        self.desk.guard.expire_tokens();
    }

    /// The last requests in the order of their arrival, those under way included.
    pub fn requests(&self) -> Vec<Exchange> {
        self.desk.log.exchanges()
    }

    /// Forgets all requests.
    pub fn clear_requests(&self) {
        self.desk.log.clear();
    }

    /// Ends the server: takes no more connections, waits for the requests under way as long as it has patience, and
    /// then lets go of the storage.
    pub async fn shutdown(mut self) {
        self.desk.closing.cancel();
        // The task cannot fail but by a panic, and then it has ended too.
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

/// The name of a registry at this address, as a client on the same machine would use it.
fn registry(address: SocketAddr) -> Registry {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    // Made anew, since a scope of an IPv6 address has no place in a reference.
    let text = SocketAddr::new(host, address.port()).to_string();
    text.parse().expect("an IP address with a port is a registry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_registry() {
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
