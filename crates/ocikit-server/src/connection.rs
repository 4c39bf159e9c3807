//! Connections: accepting them, speaking HTTP on them, and ending them.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::answer::{Desk, answer};

/// How often idle uploads are looked for while nobody begins new ones.
const ROUND: Duration = Duration::from_secs(60);

/// How long to wait where no connection can be accepted: there are too many open files, most likely.
const BREATH: Duration = Duration::from_millis(50);

/// How often silent connections are looked for while clients wait for one.
const CROWDED_ROUND: Duration = Duration::from_secs(1);

/// How long nothing may move on a connection while clients wait for one.
const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read from a connection at once, and so what an idle one may hold.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// What a client of HTTP/2 may send before it is read: for a request, and for all requests of a connection.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// Requests at the same time over one connection of HTTP/2.
const MAX_STREAMS: u32 = 32;

/// Serves whoever connects, until the server is to end; then waits for what is under way, but not for ever.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>, patience: Duration) {
    let mut connections = JoinSet::new();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let places = Arc::new(Semaphore::new(desk.limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut place = None;
    loop {
        tokio::select! {
            () = desk.closing.cancelled() => break,
            free = free_place(&places, &desk), if place.is_none() => place = free,
            accepted = listener.accept(), if place.is_some() => match accepted {
                Ok((stream, _)) => {
                    let (desk, place) = (desk.clone(), place.take());
                    connections.spawn(async move {
                        converse(stream, desk).await;
                        drop(place);
                    });
                }
                Err(_) => sleep(BREATH).await,
            },
            Some(_) = connections.join_next() => {}
            _ = rounds.tick() => desk.forget_idle_uploads(),
        }
    }
    drop(listener);
    desk.tasks.close();
    let all_over = async {
        while connections.join_next().await.is_some() {}
        desk.tasks.wait().await;
    };
    if timeout(patience, all_over).await.is_err() {
        connections.shutdown().await;
        // What was received of uploads is written now that no more can come.
        desk.tasks.wait().await;
    }
}

/// Waits until there may be one more connection, and has silent ones closed for it.
async fn free_place(places: &Arc<Semaphore>, desk: &Desk) -> Option<OwnedSemaphorePermit> {
    loop {
        match timeout(CROWDED_ROUND, places.clone().acquire_owned()).await {
            // It is never closed.
            Ok(place) => return place.ok(),
            Err(_) => desk.crowded.notify_waiters(),
        }
    }
}

async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    // Small answers should not wait for more. If it cannot be set, they do.
    let _ = stream.set_nodelay(true);
    let idle = desk.limits.connection_idle_timeout;
    let flushed = Arc::new(Notify::new());
    let traffic = Arc::new(Traffic::new());
    let wire = TokioIo::new(Wire { stream, flushed: flushed.clone(), traffic: traffic.clone() });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(READ_BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS);
    let service = service_fn(|request| {
        let handled = traffic.handle();
        let answer = answer(desk.clone(), flushed.clone(), request);
        async move {
            let answer = answer.await;
            drop(handled);
            answer
        }
    });
    let mut connection = pin!(http.serve_connection(wire, service));
    // What goes wrong with a connection is over with it.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = traffic.silent_for(idle) => {}
        () = crowded_out(&desk, &traffic) => {}
        () = desk.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Waits until the connection is silent while clients wait for one.
async fn crowded_out(desk: &Desk, traffic: &Traffic) {
    loop {
        desk.crowded.notified().await;
        if traffic.silence() >= CROWDED_IDLE_TIMEOUT {
            return;
        }
    }
}

/// When something moved on a connection last, and how many of its requests are being handled.
#[derive(Debug)]
struct Traffic {
    start: Instant,
    /// Milliseconds since the start.
    moved: AtomicU64,
    handled: AtomicUsize,
}

impl Traffic {
    fn new() -> Traffic {
        Traffic { start: Instant::now(), moved: AtomicU64::new(0), handled: AtomicUsize::new(0) }
    }

    fn moves(&self) {
        self.moved.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Counts a request as handled until the result is dropped.
    fn handle(self: &Arc<Self>) -> Handled {
        self.handled.fetch_add(1, Ordering::Relaxed);
        Handled(self.clone())
    }

    /// How long nothing moved; no time while a request is being handled, which has deadlines of its own.
    fn silence(&self) -> Duration {
        if self.handled.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.start.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }

    /// Waits until nothing moved for so long.
    async fn silent_for(&self, idle: Duration) {
        loop {
            let left = idle.saturating_sub(self.silence());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// A request that is being handled.
#[derive(Debug)]
struct Handled(Arc<Traffic>);

impl Drop for Handled {
    fn drop(&mut self) {
        // The client has had nothing to read or write meanwhile.
        self.0.moves();
        self.0.handled.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that tells when everything that was written has gone out, for whoever wants to cut it just then, and when
/// something moved.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    flushed: Arc<Notify>,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.traffic.moves();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.traffic.moves();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if written.is_ready() {
            self.traffic.moves();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes once it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flushed.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
