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

/// A proxy that delays every byte by half a round-trip time.
///
/// Connecting takes one round trip: the connection to the proxy is immediate, so the first bytes are delayed by the time of the
/// TCP handshake. Packet loss, slow start and the TLS handshake are not modelled. The bandwidth is limited only by 32 MiB in
/// flight per direction and connection, which is 1.3 GB/s at 50 ms.
#[derive(Debug)]
pub struct Delay {
    _runtime: Runtime,
    address: SocketAddr,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    bytes: AtomicU64,
}

/// The maximum of bytes per read, and the maximum number of such chunks in flight.
const CHUNK_BYTES: usize = 256 << 10;
const MAX_CHUNKS: usize = (32 << 20) / CHUNK_BYTES;

impl Delay {
    /// Starts a proxy for the server at this address.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn before(server: &str, round_trip: Duration) -> Delay {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let counters = Arc::new(Counters::default());
        let (server, shared) = (server.replace("localhost", "127.0.0.1"), counters.clone());
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connect(client, server.clone(), round_trip, shared.clone()));
            }
        });
        Delay { _runtime: runtime, address, counters }
    }

    /// Returns host and port of the proxy.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Returns the number of connections.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of forwarded bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }
}

async fn connect(client: TcpStream, server: String, round_trip: Duration, counters: Arc<Counters>) {
    let connected = Instant::now() + round_trip;
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Nagle's algorithm would delay small responses.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(forward(from_client, to_server, connected, round_trip / 2, counters.clone()));
    tokio::spawn(forward(from_server, to_client, connected, round_trip / 2, counters));
}

/// Forwards each byte after a delay. Bytes that are read before `connected` count as sent at that time.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    connected: Instant,
    delay: Duration,
    counters: Arc<Counters>,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_CHUNKS);
    let writing = tokio::spawn(async move {
        while let Some((arrival, chunk)) = chunks.recv().await {
            sleep_until(arrival).await;
            if chunk.is_empty() || to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    });
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // The end of the connection is delayed too.
        let read = from.read(&mut buffer).await.unwrap_or(0);
        counters.bytes.fetch_add(read as u64, Ordering::Relaxed);
        let sent = Instant::now().max(connected);
        if sender.send((sent + delay, buffer[..read].to_vec())).await.is_err() || read == 0 {
            break;
        }
    }
    drop(sender);
    let _ = writing.await;
}
