use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use ocikit_server::{Server, Storage};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// Serve a registry, for tests and for a LAN, until interrupted
///
/// Prints its address once it answers. Everybody may read and write.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Keep images in this directory; in memory, if it is not given
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    address: SocketAddr,
}

#[derive(Serialize)]
struct Facts {
    address: String,
}

impl Serve {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let storage = self.storage.as_ref().map_or_else(Storage::memory, Storage::directory);
        let server = Server { address: self.address, storage, remember: 0, ..Server::default() };
        let running = server.start().await.map_err(|error| {
            let failure = Failure::new(Code::Other, crate::failure::chain(&error));
            failure.hint("another program may have that address, or another server that directory")
        })?;
        let facts = Facts { address: running.address().to_string() };
        context.output.facts(&facts, || facts.address.clone())?;
        // Interruption drops this future, and with it the server.
        std::future::pending().await
    }
}
