//! What the build and the connections of an agent share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocikit::registry::Secret;
use tokio::sync::watch;

use super::log::Log;
use super::outcome::{BuildResult, Provenance};
use crate::progress::Observer;

/// The state of a build, which every connection sees.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<Log>,
    /// The names of the secrets that the host must send.
    pub(super) secret_ids: Vec<String>,
    /// What the host sent.
    secrets: watch::Sender<Option<BTreeMap<String, Secret>>>,
    is_cancelled: watch::Sender<bool>,
    result: watch::Sender<Option<Arc<BuildResult>>>,
    delivery: watch::Sender<Delivery>,
    provenance: Mutex<Provenance>,
}

/// How far the result is on its way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Delivery {
    /// No host has it.
    Waiting,
    /// It was written to a connection.
    Sent,
    /// That connection was closed.
    Closed,
}

impl Shared {
    pub(super) fn new(secret_ids: Vec<String>, observer: Option<Arc<dyn Observer>>) -> Shared {
        Shared {
            log: Arc::new(Log::new(observer)),
            secret_ids,
            secrets: watch::Sender::new(None),
            is_cancelled: watch::Sender::new(false),
            result: watch::Sender::new(None),
            delivery: watch::Sender::new(Delivery::Waiting),
            provenance: Mutex::default(),
        }
    }

    /// Returns whether the host still has to send secrets.
    pub(super) fn needs_secrets(&self) -> bool {
        !self.secret_ids.is_empty() && self.secrets.borrow().is_none()
    }

    /// Takes the secrets of a host; the first answer counts. Names that were not requested are left out.
    pub(super) fn offer_secrets(&self, mut secrets: BTreeMap<String, Secret>) {
        secrets.retain(|id, _| self.secret_ids.contains(id));
        secrets.values().for_each(|secret| self.log.hide(secret.reveal()));
        self.secrets.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(secrets);
            }
            is_first
        });
    }

    /// Waits for the secrets; nothing if none are needed.
    pub(super) async fn secrets(&self) -> BTreeMap<String, Secret> {
        if self.secret_ids.is_empty() {
            return BTreeMap::new();
        }
        let mut secrets = self.secrets.subscribe();
        let known = secrets.wait_for(Option::is_some).await;
        known.ok().and_then(|known| known.clone()).unwrap_or_default()
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.send_replace(true);
    }

    /// Waits until the build is cancelled.
    pub(super) async fn cancelled(&self) {
        // The sender lives as long as this.
        let _ = self.is_cancelled.subscribe().wait_for(|cancelled| *cancelled).await;
    }

    /// Ends the log and makes the result known.
    pub(super) fn finish(&self, result: BuildResult) {
        self.log.close();
        self.result.send_replace(Some(Arc::new(result)));
    }

    pub(super) fn result(&self) -> Option<Arc<BuildResult>> {
        self.result.borrow().clone()
    }

    /// Waits for the result.
    pub(super) async fn wait_for_result(&self) -> Option<Arc<BuildResult>> {
        let mut result = self.result.subscribe();
        result.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
    }

    pub(super) fn delivered(&self, delivery: Delivery) {
        self.delivery.send_if_modified(|known| {
            let is_newer = delivery > *known;
            *known = (*known).max(delivery);
            is_newer
        });
    }

    /// Notes that a connection was closed. If the result was sent before, it counts as received.
    pub(super) fn connection_closed(&self) {
        if *self.delivery.borrow() == Delivery::Sent {
            self.delivered(Delivery::Closed);
        }
    }

    pub(super) async fn wait_for_delivery(&self, delivery: Delivery) {
        let _ = self.delivery.subscribe().wait_for(|known| *known >= delivery).await;
    }

    pub(super) fn provenance(&self) -> MutexGuard<'_, Provenance> {
        self.provenance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
