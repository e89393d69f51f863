//! How soon one layer is looked at again: changes of its objects come in dozens while it is made or rolled, and a look costs as much
//! after the first of them as after the last.

use std::time::Duration;

use tokio::time::Instant;

use crate::per_object::PerObject;
use crate::plan::WaitReason;

/// From the beginning of a pass to that of the next over the same layer. (Measured on two processors while a layer is made: without
/// it a pass begins every 0.1 s, and the layer becomes ready no sooner.)
const BETWEEN: Duration = Duration::from_millis(250);

/// How long a layer may wait for the same before it is looked at less often: what is waited for announces itself, or takes long.
const SAME_FOR: Duration = Duration::from_secs(30);

/// When the last pass over each layer began, and what it has waited for since when, by UID.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    begun: PerObject<Instant>,
    waits: PerObject<(Instant, Vec<WaitReason>)>,
}

impl Pace {
    /// Begins a pass over this layer. An error: how long it has to wait, unless its primary moved (`last_move`) since the last pass
    /// began, for which clients wait.
    pub(crate) fn begin(&self, uid: &str, last_move: Option<Instant>) -> Result<(), Duration> {
        let now = Instant::now();
        let mut begun = self.begun.lock();
        if let Some(last) = begun.get(uid).filter(|last| last_move.is_none_or(|moved| moved < **last)) {
            let rest = (*last + BETWEEN).saturating_duration_since(now);
            if !rest.is_zero() {
                return Err(rest);
            }
        }
        begun.insert(uid.to_owned(), now);
        Ok(())
    }

    /// When the last pass over this layer began.
    pub(crate) fn last(&self, uid: &str) -> Option<Instant> {
        self.begun.get(uid)
    }

    /// Whether the layer has waited for the same for long. `waiting`: what it waits for now.
    pub(crate) fn waits_long(&self, uid: &str, waiting: &[WaitReason]) -> bool {
        let mut waits = self.waits.lock();
        let now = Instant::now();
        let (since, known) = waits.entry(uid.to_owned()).or_insert_with(|| (now, waiting.to_vec()));
        if known.as_slice() != waiting {
            (*since, *known) = (now, waiting.to_vec());
        }
        now.duration_since(*since) >= SAME_FOR
    }

    /// Forgets layers that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.begun.retain(&lives);
        self.waits.retain(&lives);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passes_over_one_layer_keep_a_distance_and_those_over_another_do_not() {
        let pace = Pace::default();
        assert_eq!(pace.begin("a", None), Ok(()));
        tokio::time::advance(BETWEEN / 5).await;
        assert_eq!(pace.begin("a", None), Err(BETWEEN * 4 / 5));
        assert_eq!(pace.begin("b", None), Ok(()));
        tokio::time::advance(BETWEEN * 4 / 5).await;
        assert_eq!(pace.begin("a", None), Ok(()));
        assert_eq!(pace.begin("a", None), Err(BETWEEN), "counted from the pass that was made");
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_that_moved_is_looked_at_at_once_and_once() {
        let pace = Pace::default();
        let before = Instant::now();
        tokio::time::advance(BETWEEN / 5).await;
        assert_eq!(pace.begin("a", Some(before)), Ok(()));
        tokio::time::advance(BETWEEN / 5).await;
        assert_eq!(pace.begin("a", Some(before)), Err(BETWEEN * 4 / 5), "the pass that was made saw that move");
        let moved = Instant::now();
        assert_eq!(pace.begin("a", Some(moved)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_that_waits_long_for_the_same_is_known_until_it_waits_for_something_else() {
        let pace = Pace::default();
        let primary = [WaitReason::Primary];
        assert!(!pace.waits_long("a", &primary));
        tokio::time::advance(SAME_FOR).await;
        assert!(pace.waits_long("a", &primary));
        assert!(!pace.waits_long("b", &primary));
        assert!(!pace.waits_long("a", &[WaitReason::Failover, WaitReason::Primary]));
        tokio::time::advance(SAME_FOR / 2).await;
        assert!(!pace.waits_long("a", &primary));
    }
}
