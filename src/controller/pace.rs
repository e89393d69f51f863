//! How soon one layer is looked at again: changes of its objects come in dozens while it is made or rolled, and a look costs as much
//! after the first of them as after the last.

use std::time::Duration;

use tokio::time::Instant;

use crate::per_object::PerObject;

/// From the beginning of a pass to that of the next over the same layer. (Measured on two processors while a layer is made: without
/// it a pass begins every 0.1 s, and the layer becomes ready no sooner.)
const BETWEEN: Duration = Duration::from_millis(250);

/// When the last pass over each layer began, by UID.
#[derive(Debug, Default)]
pub(crate) struct Pace(PerObject<Instant>);

impl Pace {
    /// Begins a pass over this layer. An error: how long it has to wait, unless its primary moved (`last_move`) since the last pass
    /// began, for which clients wait.
    pub(crate) fn begin(&self, uid: &str, last_move: Option<Instant>) -> Result<(), Duration> {
        let now = Instant::now();
        let mut begun = self.0.lock();
        if let Some(last) = begun.get(uid).filter(|last| last_move.is_none_or(|moved| moved < **last)) {
            let rest = (*last + BETWEEN).saturating_duration_since(now);
            if !rest.is_zero() {
                return Err(rest);
            }
        }
        begun.insert(uid.to_owned(), now);
        Ok(())
    }

    /// Forgets layers that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.0.retain(lives);
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
}
