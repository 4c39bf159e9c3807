use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use ocikit_server::{Authentication, Error, Server, Storage, Switch};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

const EXAMPLES: &str = "\
Examples:
  ocikit serve
  ocikit serve --storage ./registry --address 0.0.0.0:5000 --allow-host registry.lan
  ocikit serve --storage ./registry --htpasswd users.txt --read-only";

/// Serve a registry for tests or a local network until interrupted
///
/// Prints the address when the registry is ready. Without `--htpasswd`, everyone can read and write, except web pages of other origins.
/// Clients address the registry by an IP address, by `localhost` or a name below it, or by a name given with
/// `--allow-host`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Store images in this directory; default: memory
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Listen on this address; port 0 chooses a free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    address: SocketAddr,
    /// Accept this host name besides IP addresses and `localhost`
    ///
    /// Repeatable.
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    allow_host: Vec<String>,
    /// Require the password of a user of this file (`htpasswd -B`)
    ///
    /// Passwords cross the network in the clear: use it on the loopback interface, or behind a proxy with TLS.
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Refuse to store and delete anything
    #[arg(long)]
    read_only: bool,
}

impl Serve {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let storage = self.storage.as_ref().map_or_else(Storage::memory, Storage::directory);
        let allowed_hosts = self.allow_host.clone();
        let mut server =
            Server::default().address(self.address).allowed_hosts(allowed_hosts).storage(storage).remember(0);
        if let Some(file) = &self.htpasswd {
            let text = crate::file::read_text(file)?;
            server.authentication = Authentication::htpasswd(&text)
                .map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", file.display())))?;
        }
        if self.read_only {
            server.rules.writes = Switch::Off;
        }
        let running = server.start().await.map_err(failure)?;
        let address = running.address().to_string();
        context.output.result(&json!({ "address": address }), || &address)?;
        // An interrupt drops this future, which stops the server.
        std::future::pending().await
    }
}

/// The lowest port that needs no privileges on Unix.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Turns an error of the server into a failure, with a hint if the cause is known.
fn failure(error: Error) -> Failure {
    let failure = Failure::new(Code::Other, ocikit::spec::with_causes(&error));
    match &error {
        Error::Listen { address, source } => match source.kind() {
            ErrorKind::AddrInUse => failure.hint("choose another port with `--address`; port 0 takes a free one"),
            ErrorKind::AddrNotAvailable => failure.hint("give `--address` an address of this machine"),
            ErrorKind::PermissionDenied if address.port() < FIRST_UNPRIVILEGED_PORT => failure.hint(format_args!(
                "ports below {FIRST_UNPRIVILEGED_PORT} need privileges; choose a higher one with `--address`"
            )),
            _ => failure,
        },
        Error::InUse { .. } => failure.hint("stop the other server, or give `--storage` another directory"),
        Error::Foreign { .. } => failure.hint("give `--storage` a new or empty directory"),
        _ => failure,
    }
}

/// Parses a host name without a port.
fn host_name(text: &str) -> Result<String, &'static str> {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    match name.split('.').all(is_name) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err("a host name has letters, digits, hyphens, underscores and dots, and no port"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errors_name_their_cause() {
        let listen =
            |address: &str, kind: ErrorKind| Error::Listen { address: address.parse().unwrap(), source: kind.into() };
        let storage = |kind: ErrorKind| Error::Storage { place: "images".into(), source: io::Error::from(kind) };
        for (error, message, hint) in [
            (listen("[::1]:5000", ErrorKind::AddrInUse), "cannot listen on [::1]:5000: address in use", "port 0"),
            (
                listen("10.9.8.7:5000", ErrorKind::AddrNotAvailable),
                "10.9.8.7:5000: address not available",
                "this machine",
            ),
            (listen("127.0.0.1:80", ErrorKind::PermissionDenied), "127.0.0.1:80: permission denied", "below 1024"),
            (listen("127.0.0.1:5000", ErrorKind::PermissionDenied), "127.0.0.1:5000: permission denied", ""),
            (storage(ErrorKind::PermissionDenied), "cannot open images: permission denied", ""),
            (storage(ErrorKind::NotADirectory), "cannot open images: not a directory", ""),
            (Error::InUse { place: "images".into() }, "images is served by another process", "--storage"),
        ] {
            let failure = failure(error);
            assert!(failure.message.contains(message), "{}", failure.message);
            let given = failure.hints.concat();
            assert!(given.contains(hint) && given.is_empty() == hint.is_empty(), "{message}: {given}");
        }
    }

    #[test]
    fn a_host_name_has_no_port() {
        assert_eq!(host_name("Registry.LAN."), Ok("registry.lan".to_owned()));
        for wrong in ["", "a:5000", "http://a", "a..b", "*.a", "a/b"] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
    }
}
