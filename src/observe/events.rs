//! `+switch-master` messages of the Sentinels: a layer whose primary moved is looked at at once, not at the next pass.
//!
//! Knows subscriptions; what follows from a message is decided by the pass that it starts, which looks at everything again.
//! Every Sentinel of a layer is listened to: the one that is cut off together with the old primary tells nothing. A pass that
//! is under way hears of it too, and waits no longer for who is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::redis::Endpoint;
use crate::redis::sentinel::primary_moves;

/// Namespace and name of a layer whose primary moved.
pub(crate) type LayerKey = (String, String);

/// When a Sentinel last told of a move of a layer's primary; `None`: not yet.
pub(crate) type LastMove = watch::Receiver<Option<Instant>>;

/// The subscriptions of all layers, by the Sentinel pod's UID.
pub(crate) struct Listeners {
    moved_layers: UnboundedSender<LayerKey>,
    subscriptions: Mutex<BTreeMap<String, Subscription>>,
    moves: Mutex<BTreeMap<LayerKey, watch::Sender<Option<Instant>>>>,
}

/// A subscription to one Sentinel.
struct Subscription {
    layer: LayerKey,
    task: JoinHandle<()>,
}

impl Listeners {
    /// No subscriptions yet, and the stream on which the moved layers arrive. Each layer sends at most one word per move of its
    /// primary and per Sentinel, so the queue is short.
    pub(crate) fn new() -> (Self, UnboundedReceiver<LayerKey>) {
        let (moved_layers, receiver) = unbounded();
        (Self { moved_layers, subscriptions: Mutex::default(), moves: Mutex::default() }, receiver)
    }

    /// Tells of the moves of a layer's primary.
    pub(crate) fn last_move(&self, layer: &LayerKey) -> LastMove {
        self.moves_of(layer).subscribe()
    }

    /// When the layer's primary moved last, as far as a Sentinel said.
    pub(crate) fn moved_at(&self, layer: &LayerKey) -> Option<Instant> {
        let moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        moves.get(layer).and_then(|last| *last.borrow())
    }

    fn moves_of(&self, layer: &LayerKey) -> watch::Sender<Option<Instant>> {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        moves.entry(layer.clone()).or_default().clone()
    }

    /// Listens to this Sentinel unless that is already so. A subscription that ended is made again by the next call.
    pub(crate) fn listen(&self, pod_uid: &str, endpoint: &Endpoint, layer: LayerKey) {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if subscriptions.get(pod_uid).is_some_and(|known| !known.task.is_finished()) {
            return;
        }
        let relay = relay(endpoint.clone(), layer.clone(), self.moved_layers.clone(), self.moves_of(&layer));
        subscriptions.insert(pod_uid.to_owned(), Subscription { layer, task: tokio::spawn(relay) });
    }

    /// Ends the subscriptions to pods that are gone.
    pub(crate) fn retain(&self, alive: &BTreeSet<String>) {
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        subscriptions.retain(|uid, known| {
            let keep = alive.contains(uid);
            if !keep {
                known.task.abort();
            }
            keep
        });
        let layers: BTreeSet<&LayerKey> = subscriptions.values().map(|known| &known.layer).collect();
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).retain(|layer, _| layers.contains(layer));
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for known in self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).values() {
            known.task.abort();
        }
    }
}

/// Passes on each move of a primary until the Sentinel is gone; a Sentinel that is gone counts as one too.
async fn relay(
    endpoint: Endpoint,
    layer: LayerKey,
    moved_layers: UnboundedSender<LayerKey>,
    last_move: watch::Sender<Option<Instant>>,
) {
    match primary_moves(&endpoint).await {
        Ok(moves) => {
            let mut moves = std::pin::pin!(moves);
            while let Some(moved) = moves.next().await {
                let (namespace, name) = &layer;
                tracing::info!(namespace, layer = name, address = %moved.address, "a Sentinel moved the primary");
                last_move.send_replace(Some(Instant::now()));
                if moved_layers.unbounded_send(layer.clone()).is_err() {
                    return;
                }
            }
            let _ = moved_layers.unbounded_send(layer);
        }
        Err(error) => tracing::debug!(error = %crate::telemetry::Chain(&error), "cannot listen to a Sentinel"),
    }
}
