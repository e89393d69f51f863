//! Work on the volume that must not keep the agent waiting: a disk may hang for minutes, and the agent has to answer probes, hand over
//! and see the end of its engine meanwhile.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, timeout};

use super::Result;

/// A piece of work that takes longer hangs: an `fsync` takes some 10 ms, on a slow network volume a second.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(5);

/// At most one piece of work at a time, on a thread of its own. Not on the runtime's threads: those are waited for at the end of the
/// process, and one that hangs in the kernel never ends.
#[derive(Debug)]
pub(super) struct Disk<T = ()> {
    running: Option<(Instant, oneshot::Receiver<Result<T>>)>,
}

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Self { running: None }
    }
}

impl<T: Send + 'static> Disk<T> {
    /// Whether nothing is running.
    pub(super) const fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Begins. Only while nothing is running.
    pub(super) fn begin(&mut self, work: impl FnOnce() -> Result<T> + Send + 'static) {
        let (sender, receiver) = oneshot::channel();
        let spawned = thread::Builder::new().name("disk".to_owned()).spawn(move || {
            // The receiver is dropped: the process ends.
            let _ = sender.send(work());
        });
        match spawned {
            Ok(_) => self.running = Some((Instant::now(), receiver)),
            Err(error) => tracing::warn!(%error, "no thread for the volume, tried again with the next poll"),
        }
    }

    /// The outcome of what has ended since the last question.
    pub(super) fn ended(&mut self) -> Option<Result<T>> {
        let (_, receiver) = self.running.as_mut()?;
        match receiver.try_recv() {
            Ok(outcome) => {
                self.running = None;
                Some(outcome)
            }
            Err(TryRecvError::Empty) => None,
            // It panicked.
            Err(TryRecvError::Closed) => {
                self.running = None;
                None
            }
        }
    }

    /// For how long it hangs, where it does.
    pub(super) fn hangs(&self) -> Option<Duration> {
        let lasts = self.running.as_ref()?.0.elapsed();
        (lasts >= HANGS_AFTER).then_some(lasts)
    }

    /// Waits for the end of what is running, for as long as `limit`. `false`: it hangs.
    pub(super) async fn wait_until_free(&mut self, limit: Duration) -> bool {
        self.outcome_within(limit).await;
        self.is_idle()
    }

    /// Does a piece of work once what is running has ended, and waits for its outcome: for each of both as long as `limit`. `None`: it hangs.
    pub(super) async fn run(
        &mut self,
        limit: Duration,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Option<Result<T>> {
        if !self.wait_until_free(limit).await {
            return None;
        }
        self.begin(work);
        self.outcome_within(limit).await
    }

    /// The outcome of what is running, which is waited for for as long as `limit`. `None`: nothing ran, it panicked, or it hangs.
    pub(super) async fn outcome_within(&mut self, limit: Duration) -> Option<Result<T>> {
        let (_, receiver) = self.running.as_mut()?;
        let outcome = timeout(limit, receiver).await.ok()?;
        self.running = None;
        outcome.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_is_seen_and_keeps_no_task_waiting() {
        let mut disk = Disk::default();
        let (free, blocked) = std::sync::mpsc::channel::<()>();
        disk.begin(move || {
            let _ = blocked.recv();
            Ok(())
        });
        tokio::time::pause();
        assert!(!disk.is_idle() && disk.ended().is_none() && disk.hangs().is_none());
        tokio::time::advance(HANGS_AFTER).await;
        assert!(disk.hangs().is_some());
        assert!(!disk.wait_until_free(Duration::from_millis(1)).await);
        tokio::time::resume();
        free.send(()).unwrap();
        assert!(disk.wait_until_free(Duration::from_secs(10)).await);
        assert!(disk.is_idle() && disk.hangs().is_none());
        let mut disk = Disk::default();
        let limit = Duration::from_secs(10);
        assert!(matches!(disk.run(limit, || Ok(7)).await, Some(Ok(7))));
        let (_held, blocked) = std::sync::mpsc::channel::<i32>();
        let brief = Duration::from_millis(1);
        assert!(disk.run(brief, move || Ok(blocked.recv().unwrap_or(0))).await.is_none());
        assert!(disk.run(brief, || Ok(1)).await.is_none(), "at most one thread hangs");
    }
}
