use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocikit_image::{CopyOptions, Memory, Name, Root, Sink, Source, copy};
use ocikit_server::{Authentication, Exchange, Faults, Observer, Running, Server, User};
use ocikit_spec::{Descriptor, Digest, MediaType};
use tokio::runtime::Runtime;

/// Our own registry, on a free port, for as long as this lives.
pub struct Registry {
    running: Option<Running>,
    runtime: Runtime,
    over: Arc<Over>,
}

/// Maximum time to wait for uploads that are being stored.
const MAX_WRITE_WAIT: Duration = Duration::from_secs(3);

/// The paths of requests that are over.
#[derive(Debug, Default)]
struct Over(Mutex<Vec<String>>);

impl Observer for Over {
    fn exchange(&self, exchange: &Exchange) {
        self.0.lock().expect("nobody fails while holding this").push(exchange.path.clone());
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({})", self.name())
    }
}

impl Registry {
    /// For everybody.
    pub fn start() -> Registry {
        Registry::of(Server::default())
    }

    /// For one user with a password.
    pub fn for_user(name: &str, password: &str) -> Registry {
        Registry::of(Server { authentication: Authentication::basic([User::new(name, password)]), ..Server::default() })
    }

    /// As the server says.
    ///
    /// # Panics
    ///
    /// If it cannot listen.
    pub fn of(server: Server) -> Registry {
        let runtime = Runtime::new().expect("a runtime");
        let over = Arc::new(Over::default());
        let server = Server { observer: Some(over.clone()), ..server };
        let running = runtime.block_on(server.start()).expect("a registry");
        Registry { running: Some(running), runtime, over }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    /// Its name in references.
    pub fn name(&self) -> String {
        self.running().registry().to_string()
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Exchange> {
        self.running().requests()
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        self.running().faults()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running().address()
    }

    /// What a tag leads to, every byte below it checked, without the protocol; `None` if there is no such tag.
    ///
    /// # Panics
    ///
    /// If something below it is missing or wrong.
    pub fn whole(&self, repository: &str, tag: &str) -> Option<Digest> {
        let contents = Arc::new(self.running().contents(repository).expect("a repository"));
        let name = Name::Tag(tag.parse().expect("a tag"));
        self.runtime.block_on(async {
            let root = match Root::open(contents, &name).await {
                Err(error) if error.is_not_found() => return None,
                root => root.expect("a tag leads to what can be understood"),
            };
            let nowhere: Arc<dyn Sink> = Arc::new(Memory::new());
            let copied = copy(&root, &nowhere, &CopyOptions::default()).await;
            Some(copied.expect("a tag leads to what is whole").root.digest)
        })
    }

    /// Waits until all requests to a repository are processed: what a client that was killed had sent is then stored.
    pub fn wait_until_quiet(&self, repository: &str) {
        let prefix = format!("/v2/{repository}/");
        let is_quiet = || {
            let asked: Vec<_> = self.requests().into_iter().filter(|asked| asked.path.starts_with(&prefix)).collect();
            let over = self.over.0.lock().expect("nobody fails while holding this");
            asked.len() == over.iter().filter(|path| path.starts_with(&prefix)).count()
                && asked.iter().filter_map(whole_blob).all(|blob| self.has_blob(repository, &blob))
        };
        while !is_quiet() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Uploads to other repositories count too, so this ends after a while.
        let deadline = Instant::now() + MAX_WRITE_WAIT;
        while self.running().pending_writes() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        let contents = self.running().contents(repository).expect("a repository");
        let blob = Descriptor::new(MediaType::OCTET_STREAM, *digest, 0);
        self.runtime.block_on(contents.has(&blob)).expect("an answer")
    }

    /// Forgets what it was asked.
    pub fn forget(&self) {
        self.running().clear_requests();
        self.over.0.lock().expect("nobody fails while holding this").clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown());
        }
    }
}

/// The blob that a request brought all bytes of.
fn whole_blob(asked: &Exchange) -> Option<Digest> {
    let length: u64 = asked.header("content-length")?.parse().ok()?;
    let is_whole = asked.method == "PUT" && length > 0 && asked.request_bytes == length;
    asked.query.as_ref().filter(|_| is_whole)?.split_once("digest=")?.1.replace("%3A", ":").parse().ok()
}
