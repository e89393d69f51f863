//! Planned moves of primaries that are under way. A move waits some seconds for servers, so it is a task of its own: a pass that waited
//! for it would keep one of few places from other layers, whose Services have to follow their primaries.

use futures::FutureExt as _;
use tokio::task::JoinHandle;

use crate::act::StepOutcome;
use crate::failure::Class;
use crate::per_object::PerObject;
use crate::plan::Step;

/// The move of each layer's primary, by the layer's UID: under way, or ended and not told of yet.
#[derive(Debug, Default)]
pub(crate) struct Handovers(PerObject<(Step, JoinHandle<StepOutcome>)>);

impl Handovers {
    /// Begins a move. Not while one of the same layer is under way: no plan has one then.
    pub(crate) fn begin(&self, uid: &str, step: Step, doing: impl Future<Output = StepOutcome> + Send + 'static) {
        self.0.lock().insert(uid.to_owned(), (step, tokio::spawn(doing)));
    }

    /// Whether the primary of a layer is being moved.
    pub(crate) fn is_under_way(&self, uid: &str) -> bool {
        self.0.lock().get(uid).is_some_and(|(_, task)| !task.is_finished())
    }

    /// The move that ended since this was asked last, and how.
    pub(crate) fn take_ended(&self, uid: &str) -> Option<(Step, StepOutcome)> {
        if self.is_under_way(uid) {
            return None;
        }
        let (step, task) = self.0.lock().remove(uid)?;
        let failed = || StepOutcome::Failed { class: Class::Bug, why: "the move of the primary broke off".to_owned() };
        Some((step, task.now_or_never().and_then(Result::ok).unwrap_or_else(failed)))
    }

    /// Waits for all that are under way: one that is dropped leaves writers paused for some seconds.
    pub(crate) async fn finish(&self) {
        let tasks: Vec<_> = std::mem::take(&mut *self.0.lock()).into_values().map(|(_, task)| task).collect();
        futures::future::join_all(tasks).await;
    }

    /// Forgets layers that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.0.lock().retain(|uid, (_, task)| lives(uid) || !task.is_finished());
    }
}

impl Drop for Handovers {
    /// Who does not lead any more changes nothing.
    fn drop(&mut self) {
        for (_, task) in self.0.lock().values() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::model::NodeId;
    use crate::plan::reason::RestartReason;

    fn step() -> Step {
        Step::Switchover {
            from: NodeId::data(0),
            from_run_id: "run".to_owned(),
            config_epoch: 1,
            candidates: vec![NodeId::data(1)],
            to: None,
            reason: RestartReason::PrimaryMovesFirst,
        }
    }

    #[tokio::test]
    async fn a_move_goes_on_by_itself_and_is_told_of_once() {
        let handovers = Handovers::default();
        let (end, ended) = oneshot::channel();
        handovers.begin("a", step(), async move { ended.await.unwrap_or(StepOutcome::Done) });
        assert!(handovers.is_under_way("a") && !handovers.is_under_way("b"));
        assert_eq!(handovers.take_ended("a"), None);
        end.send(StepOutcome::Dropped("late".to_owned())).unwrap();
        while handovers.is_under_way("a") {
            tokio::task::yield_now().await;
        }
        assert_eq!(handovers.take_ended("a"), Some((step(), StepOutcome::Dropped("late".to_owned()))));
        assert_eq!(handovers.take_ended("a"), None);
    }

    #[tokio::test]
    async fn moves_are_waited_for_in_the_end_and_none_outlives_the_leadership() {
        let handovers = Handovers::default();
        let (done, is_done) = oneshot::channel();
        handovers.begin("a", step(), async move {
            tokio::task::yield_now().await;
            let _ = done.send(());
            StepOutcome::Done
        });
        handovers.finish().await;
        assert_eq!(is_done.await, Ok(()));
        let (dropped, is_dropped) = oneshot::channel::<()>();
        handovers.begin("b", step(), async move {
            std::future::pending::<()>().await;
            drop(dropped);
            StepOutcome::Done
        });
        drop(handovers);
        assert!(is_dropped.await.is_err());
    }
}
