//! Random calls, clocks and expiries against a model: the index of a user is the set of live sessions.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use redis::{Value, cmd};
use redoubt::model::session_policy::{OnExceed, SessionPolicy};
use redoubt::redis::Connection;

use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::session_calls::{call, list, number, policy, server_time, server_with};

const IDLE: i64 = 60;
const ABSOLUTE: i64 = 150;
const TOUCH: i64 = 15;
const CAP: usize = 3;
/// Milliseconds by which the clock of a key's expiry may differ from `TIME` (Redis 7.0 caches the former at a call's start).
const SKEW: i64 = 2;
const USERS: [&str; 2] = ["ann", "bob"];
const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum Move {
    Create {
        id: usize,
        user: usize,
    },
    Get(usize),
    Save(usize),
    Revoke(usize),
    RevokeAll(usize),
    Rotate {
        from: usize,
        to: usize,
        grace: i64,
    },
    /// A plain `DEL`, as a stock library would: the functions are not told.
    Delete(usize),
    Wait(i64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let (id, user) = (0..6_usize, 0..2_usize);
    let one = prop_oneof![
        4 => (id.clone(), user.clone()).prop_map(|(id, user)| Move::Create { id, user }),
        4 => id.clone().prop_map(Move::Get),
        2 => id.clone().prop_map(Move::Save),
        1 => id.clone().prop_map(Move::Revoke),
        1 => user.prop_map(Move::RevokeAll),
        2 => (id.clone(), id.clone(), 0..IDLE).prop_map(|(from, to, grace)| Move::Rotate { from, to, grace }),
        1 => id.prop_map(Move::Delete),
        3 => (1..IDLE).prop_map(Move::Wait),
    ];
    prop::collection::vec(one, 1..25)
}

#[derive(Clone, Debug)]
struct Session {
    user: usize,
    created: i64,
    expires: i64,
}

/// What ought to be on the server. An old id leads to the new one until its grace is over.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<usize, Session>,
    rotated: BTreeMap<usize, (usize, i64)>,
}

impl Model {
    /// Drops what is over at `now`.
    fn expire(&mut self, now: i64) {
        self.sessions.retain(|_, session| session.expires > now);
        self.rotated.retain(|_, (_, until)| *until > now);
    }

    /// Whether something ends so near to the time between these that nobody can say on which side.
    fn is_unsure(&self, from: i64, to: i64) -> bool {
        let near = |moment: i64| moment >= from - SKEW && moment <= to + SKEW;
        self.sessions.values().any(|session| near(session.expires))
            || self.rotated.values().any(|(_, until)| near(*until))
    }

    fn resolve(&self, id: usize) -> Option<usize> {
        let mut id = id;
        while let Some((next, _)) = self.rotated.get(&id) {
            id = *next;
        }
        self.sessions.contains_key(&id).then_some(id)
    }

    fn ids_of(&self, user: usize) -> Vec<usize> {
        self.sessions.iter().filter(|(_, session)| session.user == user).map(|(id, _)| *id).collect()
    }

    /// A use between these times, after which the server said `expires`.
    fn used(&mut self, id: usize, expires: i64, from: i64, to: i64) {
        let session = self.sessions.get_mut(&id).unwrap();
        let limit = session.created + ABSOLUTE;
        let renewed = (from + IDLE).min(limit)..=(to + IDLE).min(limit);
        if expires == session.expires {
            let is_within_interval = session.expires > from + IDLE - TOUCH - SKEW;
            assert!(is_within_interval || renewed.contains(&expires), "{session:?} was not renewed at {to}");
        } else {
            assert!(renewed.contains(&expires), "{session:?} renewed to {expires} between {from} and {to}");
        }
        session.expires = expires;
    }
}

fn key(id: usize) -> String {
    format!("web:{{t}}s:{id}")
}

fn index(user: usize) -> String {
    format!("web:{{t}}u:{}", USERS[user])
}

/// Waits until nothing ends in the next few milliseconds: a call's time. Answers the clock.
async fn wait_until_no_expiry(connection: &Connection, model: &Model) -> i64 {
    eventually("a quiet moment", SOON, async || {
        let now = server_time(connection).await;
        !model.is_unsure(now, now + 4)
    })
    .await;
    server_time(connection).await
}

/// Makes one move on both. Answers false if the clock does not let the model say what must come out.
async fn play(connection: &Connection, model: &mut Model, step: &Move) -> bool {
    let from = wait_until_no_expiry(connection, model).await;
    model.expire(from);
    let answer = ask(connection, step).await;
    if matches!(step, Move::Wait(_)) {
        return indexes_are_the_live_sessions(connection, model).await;
    }
    let to = server_time(connection).await;
    if model.is_unsure(from, to) {
        return false;
    }
    match *step {
        Move::Create { id, user } => {
            if model.sessions.contains_key(&id) || model.rotated.contains_key(&id) {
                assert!(matches!(&answer, Err(code) if code == "EXISTS"), "{answer:?}");
                return true;
            }
            let Ok(Value::Int(expires)) = answer else { panic!("{answer:?}") };
            let mut ids = model.ids_of(user);
            ids.sort_by_key(|id| (model.sessions[id].created, id.to_string()));
            let excess = (ids.len() + 1).saturating_sub(CAP);
            for id in ids.into_iter().take(excess) {
                model.sessions.remove(&id);
            }
            assert!((from + IDLE..=to + IDLE).contains(&expires));
            model.sessions.insert(id, Session { user, created: expires - IDLE, expires });
        }
        Move::Get(id) => match model.resolve(id) {
            None => assert_eq!(answer, Ok(Value::Nil)),
            Some(id) => {
                let Ok(Value::Array(parts)) = answer else { panic!("{answer:?}") };
                let [_, Value::Int(created), Value::Int(expires), ..] = parts[..] else { panic!("{parts:?}") };
                assert_eq!(created, model.sessions[&id].created);
                model.used(id, expires, from, to);
            }
        },
        Move::Save(id) => match model.resolve(id) {
            None => assert_eq!(answer, Err("NOSESSION".to_owned())),
            Some(id) => {
                assert!(answer.is_ok(), "{answer:?}");
                let expires = connection.query(cmd("PEXPIRETIME").arg(key(id))).await.unwrap();
                if expires > 0 {
                    model.used(id, expires, from, to);
                }
            }
        },
        Move::Revoke(id) => {
            let ended = model.resolve(id);
            model.rotated.remove(&id);
            assert_eq!(answer, Ok(Value::Int(i64::from(ended.is_some()))));
            if let Some(id) = ended {
                model.sessions.remove(&id);
            }
        }
        Move::RevokeAll(user) => {
            let ids = model.ids_of(user);
            assert_eq!(answer, Ok(Value::Int(i64::try_from(ids.len()).unwrap())));
            model.sessions.retain(|id, _| !ids.contains(id));
        }
        Move::Rotate { from: old, to: new, grace } => match model.resolve(old) {
            None => assert_eq!(answer, Err("NOSESSION".to_owned())),
            Some(id) if id != old => assert_eq!(answer, Err("CONFLICT".to_owned())),
            Some(_) if model.sessions.contains_key(&new) || model.rotated.contains_key(&new) => {
                assert_eq!(answer, Err("EXISTS".to_owned()));
            }
            Some(_) => {
                let Ok(Value::Int(expires)) = answer else { panic!("{answer:?}") };
                model.used(old, expires, from, to);
                let session = model.sessions.remove(&old).unwrap();
                model.sessions.insert(new, session);
                if grace > 0 {
                    // The server's own deadline: the model knows its clock only to a call's length.
                    let until = connection.query(cmd("PEXPIRETIME").arg(key(old))).await.unwrap();
                    if until > 0 {
                        assert!((from + grace..=to + grace).contains(&until));
                        model.rotated.insert(old, (new, until));
                    }
                }
            }
        },
        Move::Delete(id) => {
            model.sessions.remove(&id);
            model.rotated.remove(&id);
        }
        Move::Wait(_) => unreachable!("nothing to compare but the indexes"),
    }
    indexes_are_the_live_sessions(connection, model).await
}

async fn ask(connection: &Connection, step: &Move) -> Result<Value, String> {
    let called = match *step {
        Move::Create { id, user } => call(connection, "session_create", &[&key(id)], &[USERS[user]]).await,
        Move::Get(id) => call(connection, "session_get", &[&key(id)], &[]).await,
        Move::Save(id) => call(connection, "session_set", &[&key(id)], &["", "1", "field", "value"]).await,
        Move::Revoke(id) => call(connection, "session_revoke", &[&key(id)], &[]).await,
        Move::RevokeAll(user) => call(connection, "session_revoke_all", &[&index(user)], &[]).await,
        Move::Rotate { from, to, grace } => {
            call(connection, "session_rotate", &[&key(from), &key(to)], &[&grace.to_string()]).await
        }
        Move::Delete(id) => connection.query(cmd("DEL").arg(key(id))).await,
        Move::Wait(milliseconds) => {
            let until = server_time(connection).await + milliseconds;
            eventually("a later time", SOON, async || server_time(connection).await >= until).await;
            Ok(Value::Nil)
        }
    };
    called.map_err(|error| error.server_text().unwrap_or_default().split(' ').next().unwrap_or_default().to_owned())
}

async fn indexes_are_the_live_sessions(connection: &Connection, model: &mut Model) -> bool {
    for (user, name) in USERS.iter().enumerate() {
        let from = wait_until_no_expiry(connection, model).await;
        let mut listed = list(connection, &index(user)).await;
        let to = server_time(connection).await;
        if model.is_unsure(from, to) {
            return false;
        }
        model.expire(from);
        listed.sort();
        let expected: Vec<(String, i64, i64)> = model
            .ids_of(user)
            .into_iter()
            .map(|id| (id.to_string(), model.sessions[&id].created, model.sessions[&id].expires))
            .collect();
        assert_eq!(listed, expected, "sessions of {name}");
    }
    true
}

#[test]
fn the_index_is_the_set_of_live_sessions_whatever_happens() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let capped = SessionPolicy {
        idle_timeout_milliseconds: IDLE.unsigned_abs(),
        absolute_lifetime_milliseconds: ABSOLUTE.unsigned_abs(),
        touch_interval_milliseconds: TOUCH.unsigned_abs(),
        max_per_user: Some(3),
        on_exceed: OnExceed::EvictOldest,
        ..policy("web")
    };
    for engine in engines() {
        let (_process, connection) = runtime.block_on(server_with(&engine, std::slice::from_ref(&capped), &[]));
        // 25 moves take up to a second: cases are few here and many with PROPTEST_CASES.
        let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
        let (played, given_up) = (Cell::new(0_u32), Cell::new(0_u32));
        let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..Default::default() });
        let outcome = runner.run(&moves(), |steps| {
            runtime.block_on(async {
                connection.query::<()>(&cmd("FLUSHALL")).await.unwrap();
                let mut model = Model::default();
                for step in &steps {
                    played.set(played.get() + 1);
                    if !play(&connection, &mut model, step).await {
                        given_up.set(given_up.get() + 1);
                        break;
                    }
                }
                // Whatever was left undecided, nothing stays.
                for user in 0..USERS.len() {
                    number(&connection, "session_revoke_all", &[&index(user)], &[]).await;
                    assert_eq!(list(&connection, &index(user)).await, []);
                }
                eventually("every key expires", SOON, async || {
                    connection.query::<i64>(&cmd("DBSIZE")).await.unwrap() == 0
                })
                .await;
            });
            Ok(())
        });
        let (played, given_up) = (played.get(), given_up.get());
        println!("{}: {played} moves, {given_up} cases cut short by the clock", engine.name);
        outcome.unwrap();
        assert!(played > 4 * cases, "{played} moves in {cases} cases");
    }
}
