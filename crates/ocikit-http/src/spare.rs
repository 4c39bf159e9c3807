//! Opens connections before a request needs them.
//!
//! Over HTTP/1.1 every concurrent request needs a connection of its own, and at a long round-trip time each of them
//! waits for one round trip, or two or three with TLS, before it can be sent. `reqwest` opens connections for requests
//! only and has no pool that can be filled. So a second client makes requests that end as soon as there is a
//! connection; nothing is sent for them. A layer around its connector hands the connection to a queue, and a layer
//! around the connector of the first client takes it from there. See `docs/decisions/transport.md`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::Connection;
use tokio::sync::{Mutex, mpsc};
use tower_layer::Layer;
use tower_service::Service;

use crate::lock::lock;
use crate::request_error::BoxError;
use crate::speculation::{Latency, Speculation};

/// Spare connections older than this are discarded, since servers close idle connections.
const MAX_SPARE_AGE: Duration = Duration::from_secs(5);

/// The queue of spare connections, established or being established.
#[derive(Debug)]
pub(crate) struct SpareQueue<C> {
    /// Number of connections in the queue that no request has claimed yet.
    unclaimed: AtomicUsize,
    sender: mpsc::UnboundedSender<Option<SpareConnection<C>>>,
    receiver: Mutex<mpsc::UnboundedReceiver<Option<SpareConnection<C>>>>,
    lost: LostConnections,
}

#[derive(Debug)]
struct SpareConnection<C> {
    connection: C,
    made: Instant,
    /// The value of [`LostConnections`] when its connection was started.
    lost: usize,
}

/// Counts the connections to a server that were lost. After one loss the spare connections may be dead too, which shows
/// only when they are used.
#[derive(Debug, Clone, Default)]
pub(crate) struct LostConnections(Arc<AtomicUsize>);

impl LostConnections {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<C> SpareQueue<C> {
    pub(crate) fn new(lost: LostConnections) -> Arc<SpareQueue<C>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Arc::new(SpareQueue { unclaimed: AtomicUsize::new(0), sender, receiver: Mutex::new(receiver), lost })
    }

    /// Registers a connection that is being established.
    fn register(self: &Arc<SpareQueue<C>>) -> PendingConnection<C> {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
        PendingConnection { queue: self.clone(), lost: self.lost.so_far(), connection: None }
    }

    /// Waits for a connection of the queue, established or being established; `None` if all of them are claimed.
    async fn take(&self) -> Option<C> {
        loop {
            let claim = self.unclaimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            claim.ok()?;
            let claim = Claim(Some(&self.unclaimed));
            let found = self.receiver.lock().await.recv().await.flatten();
            claim.redeem();
            if let Some(SpareConnection { connection, made, lost }) = found
                && made.elapsed() < MAX_SPARE_AGE
                && lost == self.lost.so_far()
            {
                return Some(connection);
            }
        }
    }
}

/// A claim on one connection. Dropping it before it is redeemed returns the claim to the queue.
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

/// A connection that is being established. Dropping it without a connection tells the waiting request that there is
/// none.
struct PendingConnection<C> {
    queue: Arc<SpareQueue<C>>,
    lost: usize,
    connection: Option<C>,
}

impl<C> PendingConnection<C> {
    fn complete(mut self, connection: C) {
        self.connection = Some(connection);
    }
}

impl<C> Drop for PendingConnection<C> {
    fn drop(&mut self) {
        let (connection, lost) = (self.connection.take(), self.lost);
        let spare = connection.map(|connection| SpareConnection { connection, made: Instant::now(), lost });
        // The queue holds the receiver.
        let _ = self.queue.sender.send(spare);
    }
}

/// The role of a client.
#[derive(Clone)]
pub(crate) enum SpareRole {
    /// Opens spare connections and puts them into the queue. Its requests end with an error.
    Fill,
    /// Takes spare connections from the queue before it opens one, and reports how long opening one took.
    Use(Arc<SpareConnections>),
}

/// Opens spare connections to a server, at most once.
pub(crate) struct SpareConnections {
    /// The client that fills the queue, which is built only then.
    filler: StdMutex<Option<reqwest::ClientBuilder>>,
    url: reqwest::Url,
    /// Number of concurrent requests that the caller announced.
    announced: Arc<AtomicUsize>,
}

impl SpareConnections {
    /// `url` is any URL of the server.
    pub(crate) fn new(
        filler: Option<reqwest::ClientBuilder>,
        mut url: reqwest::Url,
        announced: Arc<AtomicUsize>,
    ) -> Arc<SpareConnections> {
        url.set_path("");
        url.set_query(None);
        Arc::new(SpareConnections { filler: StdMutex::new(filler), url, announced })
    }

    /// Opens the connections that [`Speculation`] allows, after the first connection took this long.
    pub(crate) fn measured(&self, first_connection: Duration, is_multiplexed: bool) {
        let announced = self.announced.load(Ordering::Relaxed);
        let latency = Latency { first_connection: Some(first_connection), is_multiplexed, ..Latency::default() };
        let connections = Speculation::of(&latency, announced).connections;
        if connections == 0 {
            return;
        }
        let Some(Ok(filler)) = lock(&self.filler).take().map(reqwest::ClientBuilder::build) else { return };
        for _ in 0..connections {
            // The request ends with an error as soon as there is a connection.
            tokio::spawn(filler.head(self.url.clone()).send());
        }
    }
}

/// The layer between a client and its connector.
pub(crate) struct SpareLayer<C> {
    pub(crate) queue: Arc<SpareQueue<C>>,
    pub(crate) role: SpareRole,
}

impl<C> Clone for SpareLayer<C> {
    fn clone(&self) -> Self {
        SpareLayer { queue: self.queue.clone(), role: self.role.clone() }
    }
}

impl<S, C> Layer<S> for SpareLayer<C> {
    type Service = Connector<S, C>;

    fn layer(&self, inner: S) -> Connector<S, C> {
        Connector { inner, layer_settings: self.clone() }
    }
}

pub(crate) struct Connector<S, C> {
    inner: S,
    layer_settings: SpareLayer<C>,
}

impl<S: Clone, C> Clone for Connector<S, C> {
    fn clone(&self) -> Self {
        Connector { inner: self.inner.clone(), layer_settings: self.layer_settings.clone() }
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
        // `self.inner` has been polled ready, and its clone has not.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let SpareLayer { queue, role } = self.layer_settings.clone();
        match role {
            SpareRole::Fill => {
                let (pending, connecting) = (queue.register(), inner.call(request));
                async move {
                    // If connecting fails, `pending` is dropped, which ends the wait of the request.
                    let (pending, connection) = (pending, connecting.await?);
                    pending.complete(connection);
                    Err("the connection is kept for another request".into())
                }
                .boxed()
            }
            SpareRole::Use(spare) => async move {
                if let Some(connection) = queue.take().await {
                    return Ok(connection);
                }
                let begun = Instant::now();
                let connection = inner.call(request).await?;
                spare.measured(begun.elapsed(), connection.connected().is_negotiated_h2());
                Ok(connection)
            }
            .boxed(),
        }
    }
}
