//! Connections that are opened before a request needs them.
//!
//! Over HTTP/1.1 every request beside another needs a connection of its own, and on a long line each of them waits for a
//! round trip, with TLS for two or three, before it says anything. While the first request is under way nothing else is
//! known of what there will be to ask, but that it will be much. The HTTP client opens connections for requests only, so
//! a second client makes requests that go as far as the connection, which is put on a shelf where the first client finds
//! it; nothing is ever sent for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::Connection;
use tokio::sync::{Mutex, mpsc};
use tower_layer::Layer;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A server whose first connection, or without TLS whose first answer, takes less is near enough.
pub(super) const FAR: Duration = Duration::from_millis(10);
/// Servers close what nobody uses, some of them soon.
const FRESH: Duration = Duration::from_secs(5);

/// Connections that are there or on their way.
#[derive(Debug)]
pub(super) struct Shelf<C> {
    /// How many of them nobody has claimed yet.
    unclaimed: AtomicUsize,
    sender: mpsc::UnboundedSender<Option<Spare<C>>>,
    receiver: Mutex<mpsc::UnboundedReceiver<Option<Spare<C>>>>,
    cuts: Cuts,
}

#[derive(Debug)]
struct Spare<C> {
    connection: C,
    made: Instant,
    /// How many were cut before it was made.
    cuts: usize,
}

/// How many connections to a server were cut. When one is, the spare ones may be as well, which nobody notices until they
/// are used.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuts(Arc<AtomicUsize>);

impl Cuts {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<C> Shelf<C> {
    pub(super) fn new(cuts: Cuts) -> Arc<Shelf<C>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Arc::new(Shelf { unclaimed: AtomicUsize::new(0), sender, receiver: Mutex::new(receiver), cuts })
    }

    /// One more is on its way, and tells what became of it.
    fn announce(self: &Arc<Shelf<C>>) -> Coming<C> {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
        Coming { shelf: self.clone(), cuts: self.cuts.so_far(), connection: None }
    }

    /// One that is there or on its way, if there is any that nobody else waits for.
    async fn take(&self) -> Option<C> {
        loop {
            let claim = self.unclaimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            claim.ok()?;
            let claim = Claim(Some(&self.unclaimed));
            let found = self.receiver.lock().await.recv().await.flatten();
            claim.redeem();
            if let Some(Spare { connection, made, cuts }) = found
                && made.elapsed() < FRESH
                && cuts == self.cuts.so_far()
            {
                return Some(connection);
            }
        }
    }
}

/// A connection that somebody waits for. Who stops waiting leaves it to others.
struct Claim<'a>(Option<&'a AtomicUsize>);

impl Claim<'_> {
    fn redeem(mut self) {
        self.0 = None;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(unclaimed) = self.0 {
            unclaimed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection on its way to the shelf. Whoever waits for it is told if it does not arrive.
struct Coming<C> {
    shelf: Arc<Shelf<C>>,
    cuts: usize,
    connection: Option<C>,
}

impl<C> Coming<C> {
    fn ends(mut self, connection: C) {
        self.connection = Some(connection);
    }
}

impl<C> Drop for Coming<C> {
    fn drop(&mut self) {
        let (connection, cuts) = (self.connection.take(), self.cuts);
        let spare = connection.map(|connection| Spare { connection, made: Instant::now(), cuts });
        // The shelf holds the other end.
        let _ = self.shelf.sender.send(spare);
    }
}

/// What a client does with the shelf.
#[derive(Clone)]
pub(super) enum Does {
    /// Puts connections there; whoever asked for one is told that there is none.
    Keep,
    /// Takes connections from there before it makes one, and has it filled when the first was long in coming.
    Use(Arc<dyn Fn() + Send + Sync>),
}

/// What stands between a client and its connector.
pub(super) struct Between<C> {
    pub(super) shelf: Arc<Shelf<C>>,
    pub(super) does: Does,
}

impl<C> Clone for Between<C> {
    fn clone(&self) -> Self {
        Between { shelf: self.shelf.clone(), does: self.does.clone() }
    }
}

impl<S, C> Layer<S> for Between<C> {
    type Service = Connector<S, C>;

    fn layer(&self, inner: S) -> Connector<S, C> {
        Connector { inner, between: self.clone() }
    }
}

pub(super) struct Connector<S, C> {
    inner: S,
    between: Between<C>,
}

impl<S: Clone, C> Clone for Connector<S, C> {
    fn clone(&self) -> Self {
        Connector { inner: self.inner.clone(), between: self.between.clone() }
    }
}

impl<S, R, C> Service<R> for Connector<S, C>
where
    S: Service<R, Response = C, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Send + 'static,
    C: Connection + Send + 'static,
{
    type Response = C;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let clone = self.inner.clone();
        // The one that was asked whether it is ready.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let Between { shelf, does } = self.between.clone();
        match does {
            Does::Keep => {
                let (coming, connecting) = (shelf.announce(), inner.call(request));
                async move {
                    // Without a connection it is dropped, and says so.
                    let (coming, connection) = (coming, connecting.await?);
                    coming.ends(connection);
                    Err("it is kept for others".into())
                }
                .boxed()
            }
            Does::Use(fill) => async move {
                if let Some(connection) = shelf.take().await {
                    return Ok(connection);
                }
                let begun = Instant::now();
                let connection = inner.call(request).await?;
                // Over HTTP/2 one connection does for all.
                if begun.elapsed() >= FAR && !connection.connected().is_negotiated_h2() {
                    fill();
                }
                Ok(connection)
            }
            .boxed(),
        }
    }
}
