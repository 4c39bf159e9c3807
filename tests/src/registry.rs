use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocikit_image::{CopyOptions, Memory, Name, Root, Sink, Source, copy};
use ocikit_server::{Authentication, Exchange, Faults, Observer, Running, Server, User};
use ocikit_spec::{Descriptor, Digest, MediaType};
use tokio::runtime::Runtime;

/// The registry of ocikit on a free port. It is stopped when this value is dropped.
pub struct Registry {
    running: Option<Running>,
    runtime: Runtime,
    completed: Arc<Completed>,
}

/// Maximum time to wait for uploads that are being stored.
const MAX_WRITE_WAIT: Duration = Duration::from_secs(3);

/// The paths of completed requests.
#[derive(Debug, Default)]
struct Completed(Mutex<Vec<String>>);

impl Observer for Completed {
    fn exchange(&self, exchange: &Exchange) {
        self.0.lock().expect("no thread panics while it holds the lock").push(exchange.path.clone());
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({})", self.name())
    }
}

impl Registry {
    /// Starts a registry without authentication.
    pub fn start() -> Registry {
        Registry::start_with(Server::default())
    }

    /// Starts a registry that requires the password of one user.
    pub fn for_user(name: &str, password: &str) -> Registry {
        Registry::start_with(Server::default().authentication(Authentication::basic([User::new(name, password)])))
    }

    /// Starts a registry with these settings.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start_with(server: Server) -> Registry {
        let runtime = Runtime::new().expect("a runtime");
        let completed = Arc::new(Completed::default());
        let server = server.observer(Some(completed.clone()));
        let running = runtime.block_on(server.start()).expect("a registry");
        Registry { running: Some(running), runtime, completed }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs until this value is dropped")
    }

    /// Returns host and port, as written in references.
    pub fn name(&self) -> String {
        self.running().registry().to_string()
    }

    /// Returns the requests received so far.
    pub fn requests(&self) -> Vec<Exchange> {
        self.running().requests()
    }

    /// Returns the number of writing requests that were not refused.
    pub fn writes(&self) -> usize {
        let is_write = |method: &str| matches!(method, "PUT" | "POST" | "PATCH" | "DELETE");
        let is_accepted = |status: Option<u16>| status.is_none_or(|status| status < 400);
        self.requests().iter().filter(|request| is_write(&request.method) && is_accepted(request.status)).count()
    }

    /// Returns the faults to inject.
    pub fn faults(&self) -> &Faults {
        self.running().faults()
    }

    /// Returns the address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.running().address()
    }

    /// Verifies every byte of the image with a tag, in the storage and not over HTTP, and returns its digest. Returns `None` if
    /// the tag does not exist.
    ///
    /// # Panics
    ///
    /// If a manifest or blob of the image is missing or damaged.
    pub fn verified_digest(&self, repository: &str, tag: &str) -> Option<Digest> {
        let contents = Arc::new(self.running().contents(repository).expect("a repository"));
        let name = Name::Tag(tag.parse().expect("a tag"));
        self.runtime.block_on(async {
            let root = match Root::open(contents, &name).await {
                Err(error) if error.is_not_found() => return None,
                root => root.expect("the tag names a valid manifest"),
            };
            let memory: Arc<dyn Sink> = Arc::new(Memory::new());
            let copied = copy(&root, &memory, &CopyOptions::default()).await;
            Some(copied.expect("the tag names a complete image").root.digest)
        })
    }

    /// Waits until all requests to a repository are processed. The bytes that a killed client sent are then stored.
    pub fn wait_until_quiet(&self, repository: &str) {
        let prefix = format!("/v2/{repository}/");
        let is_quiet = || {
            let mut requests = self.requests();
            requests.retain(|request| request.path.starts_with(&prefix));
            let completed = self.completed.0.lock().expect("no thread panics while it holds the lock");
            requests.len() == completed.iter().filter(|path| path.starts_with(&prefix)).count()
                && requests.iter().filter_map(complete_blob).all(|blob| self.has_blob(repository, &blob))
        };
        while !is_quiet() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Uploads to other repositories are counted too, so the wait is limited.
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

    /// Clears the log of requests.
    pub fn clear_requests(&self) {
        self.running().clear_requests();
        self.completed.0.lock().expect("no thread panics while it holds the lock").clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown());
        }
    }
}

/// Returns the digest of the blob if a request uploaded all of its bytes.
fn complete_blob(request: &Exchange) -> Option<Digest> {
    let length: u64 = request.header("content-length")?.parse().ok()?;
    let is_complete = request.method == "PUT" && length > 0 && request.request_bytes == length;
    request.query.as_ref().filter(|_| is_complete)?.split_once("digest=")?.1.replace("%3A", ":").parse().ok()
}
