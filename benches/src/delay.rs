use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A long line to a server: every byte takes half a round trip, however many there are.
///
/// To be connected takes a round trip as well. The system connects at once, so the first bytes are held back for as long
/// as the handshake would have taken. Nothing else is modelled: no loss, no slow start, no handshake of TLS, no limit on
/// bandwidth other than 32 MiB on its way in each direction of a connection, which at 50 ms is 1.3 GB/s.
#[derive(Debug)]
pub struct Delay {
    _runtime: Runtime,
    address: SocketAddr,
    passed: Arc<Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    connections: AtomicU64,
    bytes: AtomicU64,
}

/// Bytes read at once, and how many such pieces may be on their way.
const PIECE: usize = 256 << 10;
const WINDOW: usize = (32 << 20) / PIECE;

impl Delay {
    /// A line to the server at this address.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn before(server: &str, round_trip: Duration) -> Delay {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let passed = Arc::new(Passed::default());
        let (server, counts) = (server.replace("localhost", "127.0.0.1"), passed.clone());
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counts.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connect(client, server.clone(), round_trip, counts.clone()));
            }
        });
        Delay { _runtime: runtime, address, passed }
    }

    /// The name of the server at this end of the line.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.passed.connections.load(Ordering::Relaxed)
    }

    /// How many bytes passed, both ways.
    pub fn bytes(&self) -> u64 {
        self.passed.bytes.load(Ordering::Relaxed)
    }
}

async fn connect(client: TcpStream, server: String, round_trip: Duration, passed: Arc<Passed>) {
    let connected = Instant::now() + round_trip;
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Small answers would wait for each other otherwise.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(carry(from_client, to_server, connected, round_trip / 2, passed.clone()));
    tokio::spawn(carry(from_server, to_client, connected, round_trip / 2, passed));
}

/// Moves bytes, each so long after it was sent; none counts as sent before the connection would have been there.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    connected: Instant,
    delay: Duration,
    passed: Arc<Passed>,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(WINDOW);
    let writing = tokio::spawn(async move {
        while let Some((arrives, piece)) = pieces.recv().await {
            sleep_until(arrives).await;
            if piece.is_empty() || to.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    });
    let mut buffer = vec![0; PIECE];
    loop {
        // An end arrives as late as anything else.
        let read = from.read(&mut buffer).await.unwrap_or(0);
        passed.bytes.fetch_add(read as u64, Ordering::Relaxed);
        let sent = Instant::now().max(connected);
        if sender.send((sent + delay, buffer[..read].to_vec())).await.is_err() || read == 0 {
            break;
        }
    }
    drop(sender);
    let _ = writing.await;
}
