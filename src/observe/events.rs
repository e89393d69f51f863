//! News from the Sentinels: a primary that moved is looked at at once, not at the next pass.
//!
//! Knows subscriptions; what follows from the news is decided by the pass that it starts, which looks at everything anew.
//! Every Sentinel of a layer is listened to: the one that is cut off together with the old primary tells nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use tokio::task::JoinHandle;

use crate::redis::Endpoint;
use crate::redis::sentinel::primary_moves;

/// Namespace and name of a layer of which there are news.
pub type News = (String, String);

/// The subscriptions of all layers, by the Sentinel pod's UID.
pub struct Listeners {
    news: UnboundedSender<News>,
    listening: Mutex<BTreeMap<String, JoinHandle<()>>>,
}

impl Listeners {
    /// No subscriptions yet, and the stream on which the news arrive. Each layer sends at most one word per move of its
    /// primary and per Sentinel, so the queue is short.
    pub fn new() -> (Self, UnboundedReceiver<News>) {
        let (news, receiver) = unbounded();
        (Self { news, listening: Mutex::default() }, receiver)
    }

    /// Listens to this Sentinel unless that is already so. A subscription that ended is made anew by the next call.
    pub fn listen(&self, pod_uid: &str, endpoint: &Endpoint, layer: News) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.get(pod_uid).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let task = tokio::spawn(relay(endpoint.clone(), layer, self.news.clone()));
        listening.insert(pod_uid.to_owned(), task);
    }

    /// Ends the subscriptions to pods that are gone.
    pub fn retain(&self, alive: &BTreeSet<String>) {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, task| {
            let keep = alive.contains(uid);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in self.listening.lock().unwrap_or_else(PoisonError::into_inner).values() {
            task.abort();
        }
    }
}

/// Passes on each move of a primary until the Sentinel is gone; that it is gone is news too.
async fn relay(endpoint: Endpoint, layer: News, news: UnboundedSender<News>) {
    match primary_moves(&endpoint).await {
        Ok(moves) => {
            let mut moves = std::pin::pin!(moves);
            while let Some(moved) = moves.next().await {
                tracing::info!(master = moved.master_name, address = %moved.address, "a Sentinel moved the primary");
                if news.unbounded_send(layer.clone()).is_err() {
                    return;
                }
            }
            let _ = news.unbounded_send(layer);
        }
        Err(error) => tracing::debug!(error = %crate::telemetry::Chain(&error), "cannot listen to a Sentinel"),
    }
}
