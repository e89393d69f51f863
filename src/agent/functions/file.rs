//! The functions that the server had last, as a file on the volume: for its next start, and for a peer's.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::config::Environment;
use super::super::disk::Disk;
use super::super::{chain, durable};
use crate::model::node_config::NodeConfig;
use crate::redis::{Connection, functions};

/// The answer of `FUNCTION DUMP`.
const FILE: &str = "functions.dump";
/// Between two polls. A poll asks each library for its digest, some 10 µs of the server's time.
const EVERY: Duration = Duration::from_secs(1);

/// How long a write may take: a task that waits for a volume that hangs keeps later ones waiting.
const WRITES_WITHIN: Duration = Duration::from_secs(30);
/// How long a read may take for a peer, which waits for a second.
const READS_WITHIN: Duration = Duration::from_millis(800);

/// What is known of the server's functions.
#[derive(Debug, Default)]
pub(crate) struct FunctionFile {
    /// The digests of the libraries that are in the file.
    digests: Mutex<Option<String>>,
    /// Whether the server is of no use before the operator has loaded its functions.
    is_waiting: AtomicBool,
    writing: tokio::sync::Mutex<Disk<bool>>,
    reading: tokio::sync::Mutex<Disk<Option<Vec<u8>>>>,
}

/// The file's content; `None`: there is none that can be read.
pub(crate) fn read(environment: &Environment) -> Option<Vec<u8>> {
    durable::read_bytes(&path(environment)).unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "others have the functions too");
        None
    })
}

fn path(environment: &Environment) -> PathBuf {
    environment.data.join(FILE)
}

impl FunctionFile {
    /// Notes whether a server that starts has to wait for its functions.
    pub(crate) fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// The file's content for a peer; `None`: also where the volume hangs.
    pub(crate) async fn read_in_time(&self, environment: &Environment) -> Option<Vec<u8>> {
        let environment = environment.clone();
        self.reading.lock().await.run(READS_WITHIN, move || Ok(read(&environment))).await?.ok()?
    }

    /// Looks at the server's functions, and writes them to the file when they are other ones. `called`: the libraries that
    /// applications call.
    async fn save_if_changed(
        &self,
        connection: &Connection,
        path: PathBuf,
        called: &BTreeSet<String>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let digests = functions::digests(connection).await?;
        if digests.keys().any(|library| called.contains(library)) {
            self.set_waiting(false);
        }
        // A server that came up without functions tells nothing of what it should have.
        if digests.is_empty() {
            return Ok(());
        }
        let digests = format!("{digests:?}");
        let known = self.digests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let file = path.clone();
        let is_there = async || {
            let mut disk = self.writing.lock().await;
            disk.run(WRITES_WITHIN, move || Ok(file.exists())).await.ok_or("the volume hangs")
        };
        if known.as_ref() == Some(&digests) && is_there().await?? {
            return Ok(());
        }
        // What was loaded since is in the dump, and the next poll finds other digests.
        let dump = functions::dump(connection).await?;
        let write = move || durable::replace(&path, &dump).map(|()| true);
        self.writing.lock().await.run(WRITES_WITHIN, write).await.ok_or("the volume hangs")??;
        *self.digests.lock().unwrap_or_else(PoisonError::into_inner) = Some(digests);
        Ok(())
    }
}

/// Looks each second, besides all else that the agent does.
#[derive(Debug, Default)]
pub(crate) struct FunctionPoll {
    began: Option<Instant>,
    task: Option<JoinHandle<()>>,
}

impl FunctionPoll {
    /// Begins a poll if one is due and none is under way.
    pub(crate) fn begin_if_due(
        &mut self,
        environment: &Environment,
        config: &NodeConfig,
        kept: &Arc<FunctionFile>,
        connection: &Connection,
    ) {
        let is_due = kept.is_waiting() || self.began.is_none_or(|began| began.elapsed() >= EVERY);
        let rests = self.task.as_ref().is_none_or(JoinHandle::is_finished);
        if config.keeps_data || !is_due || !rests {
            return;
        }
        self.began = Some(Instant::now());
        let (kept, connection, path) = (Arc::clone(kept), connection.clone(), path(environment));
        let called = config.functions.clone();
        self.task = Some(tokio::spawn(async move {
            if let Err(error) = kept.save_if_changed(&connection, path, &called).await {
                tracing::debug!(error = %crate::telemetry::Chain(error.as_ref()), "the functions are kept later");
            }
        }));
    }
}
