use std::fmt;

use ocikit_server::{Authentication, Exchange, Faults, Running, Server, User};
use tokio::runtime::Runtime;

/// Our own registry, on a free port, for as long as this lives.
pub struct Registry {
    running: Option<Running>,
    runtime: Runtime,
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
        let running = runtime.block_on(server.start()).expect("a registry");
        Registry { running: Some(running), runtime }
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

    /// Forgets what it was asked.
    pub fn forget(&self) {
        self.running().clear_requests();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown());
        }
    }
}
