//! Connections: accepting them, speaking HTTP on them, and ending them.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::answer::{Desk, answer};

/// How long a connection may lie idle, or take to bring the head of a request. Longer than the 90 seconds after which
/// the clients we know give up idle connections, so that it is not the server who hangs up on a request on its way.
const IDLE: Duration = Duration::from_secs(120);

/// How often idle uploads are looked for while nobody begins new ones.
const ROUND: Duration = Duration::from_secs(60);

/// How long to wait where no connection can be accepted: there are too many open files, most likely.
const BREATH: Duration = Duration::from_millis(50);

/// The most that is read from a connection at once.
const READ: usize = 1 << 20;

/// Serves whoever connects, until the server is to end; then waits for what is under way, but not for ever.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>, patience: Duration) {
    let mut connections = JoinSet::new();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = desk.closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, desk.clone()));
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

async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    // Small answers should not wait for more. If it cannot be set, they do.
    let _ = stream.set_nodelay(true);
    let flushed = Arc::new(Notify::new());
    let wire = TokioIo::new(Wire { stream, flushed: flushed.clone() });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(READ);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(IDLE);
    let service = service_fn(|request| answer(desk.clone(), flushed.clone(), request));
    let mut connection = pin!(http.serve_connection(wire, service));
    // What goes wrong with a connection is over with it.
    let _ = tokio::select! {
        result = connection.as_mut() => result,
        () = desk.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

/// A socket that tells when everything that was written has gone out, for whoever wants to cut it just then.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    flushed: Arc<Notify>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
