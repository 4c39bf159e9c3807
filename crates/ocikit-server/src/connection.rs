//! Accepts connections, serves HTTP on them, and closes them.

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

use crate::answer::answer;
use crate::desk::Desk;

/// How often idle uploads are removed if no new upload triggers it.
const IDLE_UPLOAD_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Delay after an error of `accept`, most likely too many open files.
const ACCEPT_ERROR_DELAY: Duration = Duration::from_millis(50);

/// How often idle connections are checked while clients wait for a free one.
const CROWDED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may be idle while clients wait for a free one.
const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of bytes that are read from a connection at once, which is also what an idle one may occupy.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// HTTP/2 flow-control windows: per request, and per connection.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// Maximum number of concurrent requests per HTTP/2 connection.
const MAX_STREAMS: u32 = 32;

/// Serves connections until shutdown. Then waits for requests in progress, at most `shutdown_timeout`.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>, shutdown_timeout: Duration) {
    let mut connections = JoinSet::new();
    let mut rounds = interval(IDLE_UPLOAD_CHECK_INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let slots = Arc::new(Semaphore::new(desk.limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut slot = None;
    loop {
        tokio::select! {
            () = desk.closing.cancelled() => break,
            free = free_slot(&slots, &desk), if slot.is_none() => slot = free,
            accepted = listener.accept(), if slot.is_some() => match accepted {
                Ok((stream, _)) => {
                    let (desk, slot) = (desk.clone(), slot.take());
                    connections.spawn(async move {
                        serve_connection(stream, desk).await;
                        drop(slot);
                    });
                }
                Err(_) => sleep(ACCEPT_ERROR_DELAY).await,
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
    if timeout(shutdown_timeout, all_over).await.is_err() {
        connections.shutdown().await;
        // Bytes of uploads that were received are still written.
        desk.tasks.wait().await;
    }
}

/// Waits for a free connection slot. Meanwhile it lets idle connections close themselves.
async fn free_slot(slots: &Arc<Semaphore>, desk: &Desk) -> Option<OwnedSemaphorePermit> {
    loop {
        match timeout(CROWDED_CHECK_INTERVAL, slots.clone().acquire_owned()).await {
            // The semaphore is never closed.
            Ok(slot) => return slot.ok(),
            Err(_) => desk.crowded.notify_waiters(),
        }
    }
}

async fn serve_connection(stream: TcpStream, desk: Arc<Desk>) {
    // Small responses should be sent immediately. If the option cannot be set, they are delayed.
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
        let in_progress = traffic.start_request();
        let answer = answer(desk.clone(), flushed.clone(), request);
        async move {
            let answer = answer.await;
            drop(in_progress);
            answer
        }
    });
    let mut connection = pin!(http.serve_connection(wire, service));
    // An error of a connection concerns no other one.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = traffic.idle_for(idle) => {}
        () = crowded_out(&desk, &traffic) => {}
        () = desk.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Waits until the connection is idle while clients wait for a free one.
async fn crowded_out(desk: &Desk, traffic: &Traffic) {
    loop {
        desk.crowded.notified().await;
        if traffic.idle_time() >= CROWDED_IDLE_TIMEOUT {
            return;
        }
    }
}

/// Tracks the last activity of a connection, and the number of its requests in progress.
#[derive(Debug)]
struct Traffic {
    start: Instant,
    /// In milliseconds since `start`.
    last_activity: AtomicU64,
    in_progress: AtomicUsize,
}

impl Traffic {
    fn new() -> Traffic {
        Traffic { start: Instant::now(), last_activity: AtomicU64::new(0), in_progress: AtomicUsize::new(0) }
    }

    fn record_activity(&self) {
        self.last_activity.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Records a write, unless the socket takes no bytes now.
    fn written<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_ready() {
            self.record_activity();
        }
        written
    }

    /// Counts a request as in progress until the result is dropped.
    fn start_request(self: &Arc<Self>) -> RequestInProgress {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        RequestInProgress(self.clone())
    }

    /// Returns how long the connection has been idle; zero while a request is in progress, which has timeouts of its
    /// own.
    fn idle_time(&self) -> Duration {
        if self.in_progress.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_activity.load(Ordering::Relaxed)))
    }

    /// Waits until the connection has been idle for this long.
    async fn idle_for(&self, idle: Duration) {
        loop {
            let left = idle.saturating_sub(self.idle_time());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// A request in progress.
#[derive(Debug)]
struct RequestInProgress(Arc<Traffic>);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        // While the request was in progress, the client had nothing to read or write.
        self.0.record_activity();
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that reports when all written bytes have been sent, so that a fault can cut the connection exactly then,
/// and that records its activity.
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
            self.traffic.record_activity();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.traffic.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.traffic.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flushed.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
