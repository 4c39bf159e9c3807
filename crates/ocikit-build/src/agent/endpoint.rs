//! Where an agent listens and a host connects: vsock, or a Unix socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, Result};

/// Where an agent listens, or where a host finds it.
///
/// ```
/// use ocikit_build::agent::Endpoint;
///
/// for text in ["vsock:5001", "vsock:3:5001", "unix:/run/agent.sock", "vmm:/run/vm.sock:5001"] {
///     assert_eq!(text.parse::<Endpoint>()?.to_string(), text);
/// }
/// # Ok::<(), ocikit_build::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A vsock port, which only the host of the virtual machine may connect to. To connect, `cid` is the number of the
    /// machine.
    Vsock {
        /// The context identifier of the machine; that of this machine if `None`.
        cid: Option<u32>,
        /// The port.
        port: u32,
    },
    /// The Unix socket of a virtual machine monitor that forwards to a vsock port after a line `CONNECT PORT`: that of Cloud
    /// Hypervisor and Firecracker. Only to connect.
    Monitor {
        /// The path of the socket.
        path: PathBuf,
        /// The port in the machine.
        port: u32,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// The context identifier of the host of a virtual machine (vsock(7)).
#[cfg(target_os = "linux")]
const CID_HOST: u32 = 2;

/// The context identifier of this machine.
#[cfg(target_os = "linux")]
const CID_LOCAL: u32 = 1;

/// Any context identifier: connections from everywhere.
#[cfg(target_os = "linux")]
const CID_ANY: u32 = u32::MAX;

/// The longest answer of a monitor in bytes.
const MAX_ANSWER_BYTES: u64 = 256;

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads `vsock:PORT`, `vsock:CID:PORT`, `unix:PATH` or `vmm:PATH:PORT`.
    fn from_str(text: &str) -> Result<Endpoint> {
        let refuse = || {
            Error::option("endpoint", text)(
                "it is not of the form vsock:PORT, vsock:CID:PORT, unix:PATH or vmm:PATH:PORT",
            )
        };
        let (kind, rest) = text.split_once(':').ok_or_else(refuse)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| refuse());
        match (kind, rest.rsplit_once(':')) {
            (_, _) if rest.is_empty() => Err(refuse()),
            ("vsock", Some((cid, port))) => Ok(Endpoint::Vsock { cid: Some(number(cid)?), port: number(port)? }),
            ("vsock", None) => Ok(Endpoint::Vsock { cid: None, port: number(rest)? }),
            ("vmm", Some((path, port))) if !path.is_empty() => {
                Ok(Endpoint::Monitor { path: path.into(), port: number(port)? })
            }
            ("unix", _) => Ok(Endpoint::Unix(rest.into())),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Vsock { cid: Some(cid), port } => write!(f, "vsock:{cid}:{port}"),
            Endpoint::Vsock { cid: None, port } => write!(f, "vsock:{port}"),
            Endpoint::Monitor { path, port } => write!(f, "vmm:{}:{port}", path.display()),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Connects within a time limit.
    pub(super) async fn connect(&self, limit: Duration) -> io::Result<UnixStream> {
        let connected = async {
            match self {
                Endpoint::Unix(path) => UnixStream::connect(path).await,
                Endpoint::Monitor { path, port } => forwarded(path, *port).await,
                Endpoint::Vsock { cid, port } => vsock::connect(*cid, *port, limit).await,
            }
        };
        tokio::time::timeout(limit, connected).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Connects through a virtual machine monitor.
async fn forwarded(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    // Byte by byte: what follows the line belongs to the agent.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") && (answer.len() as u64) < MAX_ANSWER_BYTES {
        answer.push(stream.read_u8().await?);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the monitor does not answer with `OK`")),
    }
}

/// A place that hosts connect to.
#[derive(Debug)]
pub(super) enum Listener {
    #[cfg(target_os = "linux")]
    Vsock(tokio::sync::Mutex<tokio::sync::mpsc::Receiver<io::Result<socket2::Socket>>>),
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
}

impl Listener {
    /// Begins to listen.
    pub(super) fn bind(endpoint: &Endpoint) -> io::Result<Listener> {
        match endpoint {
            Endpoint::Unix(path) => {
                let listener = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)?
                    }
                    listener => listener?,
                };
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
                Ok(Listener::Unix { listener, path: path.clone() })
            }
            Endpoint::Vsock { cid, port } => vsock::listen(*cid, *port),
            Endpoint::Monitor { .. } => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the socket of a monitor belongs to the host; an agent listens on vsock:PORT",
            )),
        }
    }

    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        match self {
            #[cfg(target_os = "linux")]
            Listener::Vsock(accepted) => vsock::accept(accepted).await,
            Listener::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| stream),
        }
    }
}

/// Returns whether a path is a socket that no process listens on: an agent was killed.
fn is_abandoned(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let connected = std::os::unix::net::UnixStream::connect(path);
    is_socket && connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Drop for Listener {
    fn drop(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Listener::Vsock(_) => {}
            // A socket that is left behind would only prevent the next agent from listening.
            Listener::Unix { path, .. } => drop(std::fs::remove_file(path)),
        }
    }
}

#[cfg(target_os = "linux")]
mod vsock {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::net::UnixStream;
    use tokio::sync::{Mutex, mpsc};

    use super::{CID_ANY, CID_HOST, CID_LOCAL, Listener};

    /// How often the thread that accepts connections looks whether the agent has ended.
    const ACCEPT_TIMEOUT: Duration = Duration::from_millis(200);

    pub(super) async fn connect(cid: Option<u32>, port: u32, limit: Duration) -> io::Result<UnixStream> {
        let connected = tokio::task::spawn_blocking(move || {
            let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::vsock(cid.unwrap_or(CID_LOCAL), port), limit)?;
            Ok::<_, io::Error>(socket)
        });
        stream(connected.await.map_err(io::Error::other)??)
    }

    /// Listens for the host. With a context identifier, this machine may connect too.
    ///
    /// A thread accepts: tokio can wait for a socket of this family only by unsafe code.
    pub(super) fn listen(cid: Option<u32>, port: u32) -> io::Result<Listener> {
        const BACKLOG: i32 = 16;
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        socket.bind(&SockAddr::vsock(cid.unwrap_or(CID_ANY), port))?;
        socket.listen(BACKLOG)?;
        socket.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
        let (sender, receiver) = mpsc::channel(1);
        let is_local = cid.is_some();
        drop(tokio::task::spawn_blocking(move || {
            while !sender.is_closed() {
                let accepted = match socket.accept() {
                    // The steps of a build share the vsock of the machine: it has no namespaces.
                    Ok((accepted, from)) => match from.as_vsock_address() {
                        Some((CID_HOST, _)) => Ok(accepted),
                        Some((CID_LOCAL, _)) if is_local => Ok(accepted),
                        Some(_) | None => continue,
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => Err(error),
                };
                if sender.blocking_send(accepted).is_err() {
                    return;
                }
            }
        }));
        Ok(Listener::Vsock(Mutex::new(receiver)))
    }

    pub(super) async fn accept(accepted: &Mutex<mpsc::Receiver<io::Result<Socket>>>) -> io::Result<UnixStream> {
        match accepted.lock().await.recv().await {
            Some(socket) => stream(socket?),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Returns a connected socket as a stream. The type for Unix sockets reads and writes any stream socket.
    fn stream(socket: Socket) -> io::Result<UnixStream> {
        socket.set_nonblocking(true)?;
        UnixStream::from_std(std::os::unix::net::UnixStream::from(OwnedFd::from(socket)))
    }
}

#[cfg(not(target_os = "linux"))]
mod vsock {
    use std::io;
    use std::time::Duration;

    use tokio::net::UnixStream;

    use super::Listener;

    pub(super) async fn connect(_: Option<u32>, _: u32, _: Duration) -> io::Result<UnixStream> {
        Err(unsupported())
    }

    pub(super) fn listen(_: Option<u32>, _: u32) -> io::Result<Listener> {
        Err(unsupported())
    }

    fn unsupported() -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, "this system has no vsock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_texts() {
        assert_eq!("vsock:7".parse::<Endpoint>().unwrap(), Endpoint::Vsock { cid: None, port: 7 });
        let monitor = Endpoint::Monitor { path: "/a:b".into(), port: 7 };
        assert_eq!("vmm:/a:b:7".parse::<Endpoint>().unwrap(), monitor);
        assert_eq!("unix:a:b".parse::<Endpoint>().unwrap(), Endpoint::Unix("a:b".into()));
        for text in ["", "vsock", "vsock:", "vsock:x", "vsock:1:x", "unix:", "vmm:/a", "vmm::7", "tcp:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_abandoned_socket_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(place.path().join("agent.sock"));
        drop(std::os::unix::net::UnixListener::bind(place.path().join("agent.sock")).unwrap());
        let listener = Listener::bind(&endpoint).unwrap();
        assert!(Listener::bind(&endpoint).is_err());
        drop(listener);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        std::fs::write(place.path().join("agent.sock"), "a file").unwrap();
        assert!(Listener::bind(&endpoint).is_err());
    }

    #[tokio::test]
    async fn a_monitor_forwards_after_its_answer() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("vm.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let monitor = tokio::spawn(async move {
            for (answer, is_forwarded) in [("OK 1073741824\nhello", true), ("no such port\n", false)] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                assert_eq!(&line, b"CONNECT 5001\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                assert!(is_forwarded || stream.read_u8().await.is_err());
            }
        });
        let endpoint = Endpoint::Monitor { path, port: 5001 };
        let mut stream = endpoint.connect(Duration::from_secs(30)).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        assert!(endpoint.connect(Duration::from_secs(30)).await.is_err());
        monitor.await.unwrap();
        assert!(Listener::bind(&endpoint).is_err());
    }
}
