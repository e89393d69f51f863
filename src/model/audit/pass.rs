//! How far a pass over the keys of a server is, and how much of the server's time it may take.

use std::time::Duration;

use super::super::{ReplicationId, Role};
use super::tally::Tally;

/// No write of a pass should keep the server from others for longer.
pub const LONGEST_COMMAND: Duration = Duration::from_millis(5);
/// A page that takes less than this may be longer.
const SHORT_COMMAND: Duration = Duration::from_millis(1);
/// Keys that one page asks for (`COUNT` of `SCAN`), at least and at most.
const PAGE: [u16; 2] = [16, 512];

/// What a cursor of `SCAN` belongs to: one server process with one line of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorScope {
    /// `run_id` of the process: a restart ends its cursors.
    pub run_id: String,
    /// The line of data: a replica that is filled again has another dataset.
    pub replication_id: ReplicationId,
    /// Role of the process while the cursor is valid.
    pub role: Role,
}

/// Where the next page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the database, from 0.
    pub database: u32,
    /// Cursor of `SCAN`; 0: from the beginning.
    pub cursor: u64,
}

/// A pass over all keys of a server. It resumes where it was while the server is the same; nothing of it is stored.
#[derive(Clone, Debug)]
pub struct Pass {
    scope: CursorScope,
    databases: Vec<u32>,
    cursor: u64,
    /// What was counted.
    pub(crate) tally: Tally,
}

impl Pass {
    /// A pass over these databases, from the beginning.
    pub(crate) fn new(scope: CursorScope, mut databases: Vec<u32>, tally: Tally) -> Self {
        databases.sort_unstable_by(|one, other| other.cmp(one));
        databases.dedup();
        Self { scope, databases, cursor: 0, tally }
    }

    /// Whether it goes on at a server that stands so. If not, its cursor means nothing there and what it counted is of other data: a
    /// new pass begins.
    pub(crate) fn is_of(&self, scope: &CursorScope) -> bool {
        self.scope == *scope
    }

    /// The next page; `None`: the pass is whole.
    pub(crate) fn position(&self) -> Option<Position> {
        let database = *self.databases.last()?;
        Some(Position { database, cursor: self.cursor })
    }

    /// A page was counted, and the server answered this cursor with it; 0: the database is through.
    pub(crate) fn advance(&mut self, cursor: u64) {
        self.cursor = cursor;
        if cursor == 0 {
            self.databases.pop();
        }
    }
}

/// How many keys a page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSize(u16);

impl Default for PageSize {
    fn default() -> Self {
        Self(128)
    }
}

impl PageSize {
    /// `COUNT` of `SCAN`.
    pub(crate) fn keys(self) -> u16 {
        self.0
    }

    /// The size of the next page, where the server was busy for so long with one write of this one, at most.
    #[must_use]
    pub(crate) fn after(self, longest: Duration) -> Self {
        let [least, most] = PAGE;
        if longest > LONGEST_COMMAND {
            Self((self.0 / 2).max(least))
        } else if longest < SHORT_COMMAND {
            Self((self.0 * 2).min(most))
        } else {
            self
        }
    }
}

/// How long to pause after commands that took so long, so that they take at most `percent` of the time; at least 1 %.
pub(crate) fn pause_after(busy: Duration, percent: u32) -> Duration {
    let percent = percent.clamp(1, 100);
    busy.saturating_mul(100 - percent) / percent
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{Expiry, LargeKeySearch, Prefixes};
    use super::*;

    #[test]
    fn pages_shrink_while_commands_are_slow_and_grow_while_they_are_fast() {
        let ms = Duration::from_millis;
        let mut size = PageSize::default();
        for _ in 0..10 {
            size = size.after(ms(6));
        }
        assert_eq!(size.keys(), 16);
        assert_eq!(size.after(ms(3)), size);
        for _ in 0..10 {
            size = size.after(Duration::from_micros(300));
        }
        assert_eq!(size.keys(), 512);
    }

    #[test]
    fn pauses_leave_the_server_its_time() {
        assert_eq!(pause_after(Duration::from_millis(1), 5), Duration::from_millis(19));
        assert_eq!(pause_after(Duration::from_millis(1), 100), Duration::ZERO);
        assert_eq!(pause_after(Duration::from_secs(1), 0), Duration::from_secs(99));
    }

    /// A server whose keys are listed by position. Another process, or another dataset, has other positions.
    #[derive(Debug)]
    struct Server {
        scope: CursorScope,
        keys: BTreeMap<u32, BTreeMap<u64, Expiry>>,
    }

    impl Server {
        /// One page, and the cursor after it.
        fn scan(&self, position: Position, count: usize) -> (u64, Vec<(u64, Expiry)>) {
            let keys = self.keys.get(&position.database).into_iter().flatten();
            let mut page: Vec<(u64, Expiry)> =
                keys.filter(|(key, _)| **key >= position.cursor).map(|(key, expiry)| (*key, *expiry)).collect();
            let next = page.get(count).map_or(0, |(key, _)| *key);
            page.truncate(count);
            (next, page)
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// The auditor asks for a page.
        Page(usize),
        Write(u32, u64, bool),
        Delete(u32, u64),
        /// The process ends and another begins.
        Restart,
        /// The server takes another role.
        Failover,
        /// It is filled by another primary.
        Filled,
        /// The connection is cut: the auditor knows nothing until it asked again.
        Cut,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let key = || (0_u32..3, 1_u64..60);
        let event = prop_oneof![
            12 => (1_usize..9).prop_map(Event::Page),
            6 => (key(), any::<bool>()).prop_map(|((db, key), ends)| Event::Write(db, key, ends)),
            3 => key().prop_map(|(db, key)| Event::Delete(db, key)),
            1 => Just(Event::Restart),
            1 => Just(Event::Failover),
            1 => Just(Event::Filled),
            2 => Just(Event::Cut),
        ];
        prop::collection::vec(event, 1..200)
    }

    /// The keys that were there, and did not change, since the pass began.
    type Steady = BTreeSet<(u32, u64, bool)>;

    fn steady(server: &Server) -> Steady {
        let keys = server.keys.iter().flat_map(|(db, keys)| keys.iter().map(|(key, expiry)| (*db, *key, *expiry)));
        keys.map(|(db, key, expiry)| (db, key, expiry == Expiry::Never)).collect()
    }

    proptest! {
        /// Whatever happens meanwhile, a pass that is whole has counted each key that was there from its beginning to its end once,
        /// and it is of one server process, one dataset and one role.
        #[test]
        fn a_whole_pass_has_counted_every_key_that_stayed(events in events()) {
            let scope = CursorScope {
                run_id: "r0".to_owned(), replication_id: ReplicationId("d0".to_owned()), role: Role::Replica,
            };
            let keys = (0..3).map(|db| (db, (1..40).step_by(2).map(|key| (key, Expiry::Ends)).collect())).collect();
            let mut server = Server { scope, keys };
            let (mut pass, mut stayed, mut counted): (Option<Pass>, Steady, BTreeMap<(u32, u64), u32>) = Default::default();
            let mut number = 0;
            for event in events {
                number += 1;
                match event {
                    Event::Write(db, key, ends) => {
                        server.keys.entry(db).or_default().insert(key, if ends { Expiry::Ends } else { Expiry::Never });
                        stayed.retain(|it| (it.0, it.1) != (db, key));
                    }
                    Event::Delete(db, key) => {
                        server.keys.entry(db).or_default().remove(&key);
                        stayed.retain(|it| (it.0, it.1) != (db, key));
                    }
                    Event::Restart => server.scope.run_id = format!("r{number}"),
                    Event::Failover => server.scope.role = match server.scope.role {
                        Role::Primary => Role::Replica,
                        Role::Replica => Role::Primary,
                    },
                    Event::Filled => server.scope.replication_id = ReplicationId(format!("d{number}")),
                    Event::Cut => {}
                    Event::Page(count) => {
                        let begun = pass.take().filter(|pass| pass.is_of(&server.scope));
                        let current = begun.unwrap_or_else(|| {
                            (stayed, counted) = (steady(&server), BTreeMap::new());
                            let tally = Tally::new(Arc::new(Prefixes::default()), false, LargeKeySearch::default());
                            Pass::new(server.scope.clone(), server.keys.keys().copied().collect(), tally)
                        });
                        let current = pass.insert(current);
                        if let Some(position) = current.position() {
                            let (cursor, page) = server.scan(position, count);
                            for (key, expiry) in page {
                                *counted.entry((position.database, key)).or_default() += 1;
                                current.tally.count(key.to_string().as_bytes(), expiry);
                            }
                            current.advance(cursor);
                        }
                        if current.position().is_none() {
                            prop_assert!(current.is_of(&server.scope));
                            for (db, key, _) in &stayed {
                                prop_assert_eq!(counted.get(&(*db, *key)), Some(&1), "{} {}", db, key);
                            }
                            let without = stayed.iter().filter(|it| it.2).count();
                            prop_assert!(current.tally.report().without_expiry >= u64::try_from(without).unwrap());
                            pass = None;
                        }
                    }
                }
            }
        }
    }
}
