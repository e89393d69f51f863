//! Whose pass is next: first come, first served.
//!
//! kube's controller, where it bounds how many passes are made at once, takes any of the objects that wait: those of a set, in the set's
//! order. With all places taken, some were not passed over for minutes. So it makes them all at once, and they wait here.

use tokio::sync::{Semaphore, SemaphorePermit};

/// The places of passes that are made at once.
#[derive(Debug)]
pub(crate) struct Turns(Semaphore);

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'turns> {
    _place: Option<SemaphorePermit<'turns>>,
}

impl Turns {
    /// `places`: one at least.
    pub(crate) fn new(places: u16) -> Self {
        Self(Semaphore::new(usize::from(places.max(1))))
    }

    /// Waits for a place behind all that wait already. `None`: there are no more turns.
    pub(crate) async fn next(&self) -> Option<Turn<'_>> {
        self.0.acquire().await.ok().map(|place| Turn { _place: Some(place) })
    }

    /// The same, but once `urgent` ends it waits for no place. Of an `urgent` that fails nothing follows.
    pub(crate) async fn next_or_at_once<E>(&self, urgent: impl Future<Output = Result<(), E>>) -> Option<Turn<'_>> {
        tokio::select! {
            biased;
            Ok(()) = urgent => Some(Turn { _place: None }),
            turn = self.next() => turn,
        }
    }

    /// Ends all turns: who waits begins no pass any more.
    pub(crate) fn end(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, ready};

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_waits_longest_is_next_and_who_comes_again_waits_behind_all_others() {
        let turns = Turns::new(1);
        let first = turns.next().now_or_never().unwrap();
        let (mut second, mut third) = (Box::pin(turns.next()), Box::pin(turns.next()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        let mut first = Box::pin(turns.next());
        assert!((&mut first).now_or_never().is_none(), "it came last");
        assert!((&mut third).now_or_never().is_none(), "it came after the second");
        drop(second.now_or_never().unwrap());
        drop(third.now_or_never().unwrap());
        assert!(first.now_or_never().is_some());
    }

    #[test]
    fn what_is_urgent_waits_for_no_place() {
        let turns = Turns::new(1);
        let _first = turns.next().now_or_never().unwrap();
        assert!(turns.next_or_at_once(pending::<Result<(), Infallible>>()).now_or_never().is_none());
        assert!(turns.next_or_at_once(ready(Ok::<(), Infallible>(()))).now_or_never().is_some());
        assert!(turns.next_or_at_once(ready(Err(()))).now_or_never().is_none());
    }

    #[test]
    fn who_waits_when_turns_end_gets_none() {
        let turns = Turns::new(1);
        let _first = turns.next().now_or_never().unwrap();
        let second = turns.next();
        turns.end();
        assert!(second.now_or_never().is_some_and(|turn| turn.is_none()));
    }
}
