//! Pauses after loads of users' libraries that held a primary up: together they take a twentieth of its time at most, and the namespace
//! whose library was refused after such a load waits longer each time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::function_library::{LONGEST_LOAD, SLOW_LOAD};

/// The pause after a slow load, in multiples of the time that the load took.
const TIMES: u32 = 20;
/// The longest pause of one namespace: half a second of its loads in half an hour.
const LONGEST: Duration = Duration::from_mins(30);
/// How long after its pause a namespace's next pause is still twice as long.
const REMEMBERED: Duration = Duration::from_hours(1);

/// The pauses of one layer.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadPauses {
    /// Of all namespaces.
    until: Option<Instant>,
    namespaces: BTreeMap<String, NamespacePause>,
}

#[derive(Clone, Copy, Debug)]
struct NamespacePause {
    length: Duration,
    until: Instant,
}

/// Why a library is not loaded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// A library of any namespace took long.
    OfLayer,
    /// One of this namespace took long and was refused; the length of the pause.
    OfNamespace(Duration),
}

impl LoadPauses {
    /// A library of the namespace was loaded, or refused; `spent`: what the server took for it.
    pub(super) fn note(&mut self, namespace: &str, spent: Duration, is_refused: bool, now: Instant) {
        if spent < SLOW_LOAD {
            return;
        }
        let pause = spent.min(LONGEST_LOAD) * TIMES;
        self.until = self.until.max(Some(now + pause));
        self.namespaces.retain(|_, it| now < it.until + REMEMBERED);
        if is_refused {
            let last = self.namespaces.get(namespace).map_or(Duration::ZERO, |it| it.length);
            let length = (2 * last).clamp(pause, LONGEST);
            self.namespaces.insert(namespace.to_owned(), NamespacePause { length, until: now + length });
        }
    }

    /// Why a library of the namespace is not loaded now; `None`: it is. `is_proven`: this very source was loaded before, so only the
    /// pause of the whole layer counts.
    pub(super) fn of(&self, namespace: &str, is_proven: bool, now: Instant) -> Option<Pause> {
        let of_namespace = self.namespaces.get(namespace).filter(|it| !is_proven && now < it.until);
        let of_namespace = of_namespace.map(|it| Pause::OfNamespace(it.length));
        of_namespace.or_else(|| self.until.is_some_and(|until| now < until).then_some(Pause::OfLayer))
    }
}

impl Pause {
    /// What is told of the library that waits. Names no other namespace.
    pub(super) fn message(self) -> String {
        let why = match self {
            Self::OfLayer => {
                "a library of the layer held its primary up while it was loaded: no other is loaded for a pause"
                    .to_owned()
            }
            Self::OfNamespace(length) => format!(
                "a library of this namespace was refused after it held the primary up: none is loaded for {} s",
                length.as_secs()
            ),
        };
        format!("not tried yet: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = LONGEST_LOAD;

    /// What an attacker gets of a primary who always has a further library ready, until `end`.
    fn attacked(pauses: &mut LoadPauses, namespaces: &[&str], spent: Duration, is_refused: bool, end: Duration) -> u32 {
        let began = Instant::now();
        let (mut at, mut loads) = (Duration::ZERO, 0);
        while at < end {
            let free = namespaces.iter().find(|it| pauses.of(it, false, began + at).is_none());
            match free {
                Some(namespace) => {
                    at += spent;
                    loads += 1;
                    pauses.note(namespace, spent, is_refused, began + at);
                }
                None => at += Duration::from_millis(100),
            }
        }
        loads
    }

    #[test]
    fn one_namespace_gets_less_of_a_primary_each_time_and_many_a_twentieth() {
        let hour = Duration::from_hours(1);
        let loads = attacked(&mut LoadPauses::default(), &["shop"], LIMIT, true, hour);
        assert!((5..=9).contains(&loads), "{loads}");
        for (spent, is_refused) in [(LIMIT, true), (LIMIT / 2, true), (LIMIT, false), (SLOW_LOAD, false)] {
            let names: Vec<String> = (0..1_000).map(|number| format!("n{number}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let loads = attacked(&mut LoadPauses::default(), &names, spent, is_refused, hour);
            assert!(spent * loads * 20 <= hour + LIMIT * 20, "{spent:?}: {loads}");
        }
    }

    #[test]
    fn a_quick_load_pauses_nothing_and_another_namespace_waits_for_the_layer_only() {
        let (mut pauses, now) = (LoadPauses::default(), Instant::now());
        pauses.note("shop", SLOW_LOAD / 2, true, now);
        assert_eq!(pauses.of("shop", false, now), None);
        pauses.note("shop", LIMIT, true, now);
        pauses.note("shop", LIMIT, true, now);
        let pause = TIMES * LIMIT;
        assert_eq!(pauses.of("shop", false, now), Some(Pause::OfNamespace(2 * pause)));
        assert_eq!(pauses.of("shop", true, now), Some(Pause::OfLayer), "what is proven is loaded next to the others");
        assert_eq!(pauses.of("web", false, now), Some(Pause::OfLayer));
        let later = now + pause;
        assert_eq!((pauses.of("web", false, later), pauses.of("shop", true, later)), (None, None));
        assert!(pauses.of("shop", false, later).is_some());
        assert_eq!(pauses.of("shop", false, now + 2 * pause), None);
        // What is long ago does not count.
        pauses.note("shop", LIMIT, true, now + 2 * pause + REMEMBERED);
        let again = pauses.of("shop", false, now + 2 * pause + REMEMBERED);
        assert_eq!(again, Some(Pause::OfNamespace(pause)));
    }
}
