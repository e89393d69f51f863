//! An application of a session store, a rate limit policy and a cache, for `make demo`: takes one step, and prints what came of it as one line of JSON.
//!
//! Knows the mounted binding and the functions. What is done to the layer meanwhile, and what it means to a person, is
//! told by `examples/demo/tour`, which runs these steps in a pod: any cluster will do, and what is measured is what an application
//! there sees.
//!
//! It is part of the operator's program, because `make demo IMAGE=…` runs on a cluster of the reader's own with the released image and
//! nothing else; a program of its own would be a second image to publish.
#![expect(clippy::print_stdout, reason = "standard output is how a step answers")]

mod client;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::{FromRedisValue as _, Value as Reply, cmd};
use clap::Subcommand;
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

pub(crate) use client::Error;
use client::{Store, call};

use crate::redis::Connection;

/// Saves of each saver in a race: some before the revocation and some after it.
const SAVES: u32 = 8;
/// Writes that a gap is counted from: the stream must be steady before something is done to the layer, and after it.
const STEADY: u64 = 50;
/// Sessions that are created or looked at together.
const BATCH: u32 = 50;
/// How long the entry of a cache is fresh.
const FRESH: Duration = Duration::from_millis(300);
/// For how long a source that failed is left alone.
const LEFT_ALONE: Duration = Duration::from_mins(1);
/// How long replicas may take to confirm a write.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// What the application does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Step {
    /// Do nothing until told to end: the steps are run next to it.
    Wait,
    /// Log a user in: create the session ID.
    Login {
        /// The user that the session belongs to.
        user: String,
        /// Random, 128 bits.
        id: String,
    },
    /// Read a session, and what the reading did to its time to live.
    Read {
        /// The user that the session belongs to.
        user: String,
        /// ID of the session.
        id: String,
    },
    /// Sessions that many connections save while another revokes them.
    Race {
        /// Number of sessions.
        rounds: u32,
        /// Connections that save.
        savers: u32,
    },
    /// Create sessions and revoke every other one, confirmed by replicas.
    Promise {
        /// What the ids are derived of: random.
        seed: String,
        /// How many.
        count: u32,
    },
    /// Whether those that were to live do, and none of the revoked.
    Kept {
        /// That of the promise.
        seed: String,
        /// How many.
        count: u32,
    },
    /// Save one session again and again, until standard input ends and saves have gone on after an interruption.
    Gap,
    /// Log a user in on several devices, then revoke all.
    Everywhere {
        /// The user that the sessions belong to.
        user: String,
        /// Number of sessions, one for each device.
        devices: u32,
    },
    /// Call all limits of a policy for a subject, again and again.
    Limit {
        /// What the limits count the calls of.
        subject: String,
        /// How often.
        calls: u32,
    },
    /// Let an entry of a cache grow stale and read it again and again, while its source is down; then the source is back.
    Stale {
        /// How often.
        reads: u32,
    },
}

/// Takes one step with the binding that is mounted in `binding`.
pub(crate) async fn take(step: &Step, binding: PathBuf) -> Result<(), Error> {
    if matches!(step, Step::Wait) {
        signal(SignalKind::terminate())?.recv().await;
        return Ok(());
    }
    let store = Store::bound(&binding)?;
    let facts = match step {
        Step::Wait => Value::Null,
        Step::Login { user, id } => login(&store, user, id).await?,
        Step::Read { user, id } => read(&store, user, id).await?,
        Step::Race { rounds, savers } => race(&store, *rounds, *savers).await?,
        Step::Promise { seed, count } => promise(&store, seed, *count).await?,
        Step::Kept { seed, count } => kept(&store, seed, *count).await?,
        Step::Gap => gap(&store).await?,
        Step::Everywhere { user, devices } => everywhere(&store, user, *devices).await?,
        Step::Limit { subject, calls } => limit(&store, subject, *calls).await?,
        Step::Stale { reads } => stale(&store, *reads).await?,
    };
    println!("{facts}");
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

async fn login(store: &Store, user: &str, id: &str) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let key = store.session(user, id);
    let began = Instant::now();
    let _: u64 = connection.query(&call("redoubt_session_create", &key, &[user, "role", "admin"])).await?;
    let took = milliseconds(began);
    let left: i64 = connection.query(cmd("PTTL").arg(&key)).await?;
    Ok(json!({"milliseconds": took, "left": left}))
}

async fn read(store: &Store, user: &str, id: &str) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let key = store.session(user, id);
    let before: i64 = connection.query(cmd("PTTL").arg(&key)).await?;
    let began = Instant::now();
    let session: Reply = connection.query(&call("redoubt_session_get", &key, &[])).await?;
    let took = milliseconds(began);
    let after: i64 = connection.query(cmd("PTTL").arg(&key)).await?;
    Ok(json!({"found": session != Reply::Nil, "milliseconds": took, "before": before, "after": after}))
}

/// Whether a session lives, by a function that writes nothing.
async fn lives(connection: &Connection, key: &str) -> Result<bool, Error> {
    let ends: u64 = connection.query(&call("redoubt_session_exists", key, &[])).await?;
    Ok(ends > 0)
}

async fn race(store: &Store, rounds: u32, savers: u32) -> Result<Value, Error> {
    let connections = try_join_all((0..savers).map(|_| store.connect())).await?;
    let revoker = store.connect().await?;
    let (saved, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut returned = 0;
    for round in 0..rounds {
        let key = store.session("mallory", &id_of(&rand::random::<u128>().to_string(), round));
        let _: u64 = revoker.query(&call("redoubt_session_create", &key, &["mallory"])).await?;
        let first = Notify::new();
        let save = async |connection: &Connection| -> Result<(), Error> {
            for _ in 0..SAVES {
                let save = call("redoubt_session_set", &key, &["", "1", "cart", "book"]);
                match connection.query::<u64>(&save).await {
                    Ok(_) => saved.fetch_add(1, Ordering::Relaxed),
                    Err(error) if is_gone(&error) => refused.fetch_add(1, Ordering::Relaxed),
                    Err(error) => return Err(error.into()),
                };
                first.notify_one();
            }
            Ok(())
        };
        let revoke = async {
            first.notified().await;
            let _: u64 = revoker.query(&call("redoubt_session_revoke", &key, &[])).await?;
            Ok::<(), Error>(())
        };
        let (outcomes, ended) = tokio::join!(join_all(connections.iter().map(save)), revoke);
        ended?;
        for outcome in outcomes {
            outcome?;
        }
        returned += u32::from(lives(&revoker, &key).await?);
    }
    Ok(json!({"sessions": rounds, "saved": saved.into_inner(), "refused": refused.into_inner(), "returned": returned}))
}

fn is_gone(error: &crate::redis::Error) -> bool {
    error.server_text().is_some_and(|text| text.starts_with("NOSESSION"))
}

/// The id of one of many sessions: as random as its seed, and known to the step that looks for it later.
fn id_of(seed: &str, number: u32) -> String {
    hex::encode(&Sha256::digest(format!("{seed}:{number}"))[..16])
}

/// Key, user and fate of the sessions of a promise: every other one is revoked.
fn promised(store: &Store, seed: &str, count: u32) -> Vec<(String, String, bool)> {
    let session = |number: u32| {
        let user = format!("user-{number}");
        (store.session(&user, &id_of(seed, number)), user, number % 2 == 1)
    };
    (0..count).map(session).collect()
}

async fn promise(store: &Store, seed: &str, count: u32) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let (mut live, mut revoked) = (0, 0);
    for batch in promised(store, seed, count).chunks(BATCH as usize) {
        let make = async |(key, user, stays): &(String, String, bool)| -> Result<u32, Error> {
            let _: u64 = connection.query(&call("redoubt_session_create", key, &[user])).await?;
            if !stays {
                let _: u64 = connection.query(&call("redoubt_session_revoke", key, &[])).await?;
            }
            Ok(u32::from(*stays))
        };
        let stay: u32 = try_join_all(batch.iter().map(make)).await?.into_iter().sum();
        live += stay;
        revoked += u32::try_from(batch.len()).unwrap_or_default() - stay;
    }
    let confirmed = confirm(&connection, store.wait_replicas).await?;
    Ok(json!({"live": live, "revoked": revoked, "confirmed": confirmed}))
}

/// How many replicas have what this connection wrote.
async fn confirm(connection: &Connection, replicas: u32) -> Result<u32, Error> {
    let mut wait = cmd("WAIT");
    wait.arg(replicas).arg(u64::try_from(CONFIRMED_WITHIN.as_millis()).unwrap_or(u64::MAX));
    let waiting = connection.with_response_timeout(CONFIRMED_WITHIN + Duration::from_secs(1));
    Ok(waiting.query(&wait).await?)
}

async fn kept(store: &Store, seed: &str, count: u32) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let (mut live, mut lost, mut returned) = (0, 0, 0);
    for (key, _, stays) in promised(store, seed, count) {
        match (stays, lives(&connection, &key).await?) {
            (true, true) => live += 1,
            (true, false) => lost += 1,
            (false, true) => returned += 1,
            (false, false) => {}
        }
    }
    Ok(json!({"live": live, "lost": lost, "returned": returned}))
}

async fn gap(store: &Store) -> Result<Value, Error> {
    let mut connection = store.connect().await?;
    let key = store.session("writer", &id_of(&rand::random::<u128>().to_string(), 0));
    let _: u64 = connection.query(&call("redoubt_session_create", &key, &["writer"])).await?;
    // As for every session of the tour: what a replica confirmed must live, whatever is done to the layer.
    confirm(&connection, store.wait_replicas).await?;
    let input = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let (mut saves, mut since_interruption, mut interruptions) = (0_u64, 0_u64, 0_u64);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !input.is_finished() || interruptions == 0 || since_interruption < STEADY {
        let save = call("redoubt_session_set", &key, &["", "1", "saves", &saves.to_string()]);
        match connection.query::<u64>(&save).await {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Err(error.into()),
            Err(_) => {
                interruptions += 1;
                since_interruption = 0;
                connection = store.connect().await?;
                continue;
            }
        }
        if saves > 0 {
            longest = longest.max(last.elapsed());
        }
        last = Instant::now();
        saves += 1;
        since_interruption += 1;
        if saves == STEADY {
            println!("saving");
        }
    }
    let milliseconds = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    Ok(json!({"gap": milliseconds, "saved": saves, "interruptions": interruptions}))
}

async fn everywhere(store: &Store, user: &str, devices: u32) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let count = async || -> Result<usize, Error> {
        let list: Vec<Reply> = connection.query(&call("redoubt_session_list", &store.index(user), &[])).await?;
        Ok(list.len())
    };
    for device in 0..devices {
        let key = store.session(user, &id_of(&rand::random::<u128>().to_string(), device));
        let _: u64 =
            connection.query(&call("redoubt_session_create", &key, &[user, "device", &device.to_string()])).await?;
    }
    let before = count().await?;
    let began = Instant::now();
    let ended: u64 = connection.query(&call("redoubt_session_revoke_all", &store.index(user), &[])).await?;
    let confirmed = confirm(&connection, store.wait_replicas).await?;
    let took = milliseconds(began);
    Ok(json!({"before": before, "ended": ended, "after": count().await?, "confirmed": confirmed, "milliseconds": took}))
}

/// The reply of `redoubt_limit`: allowed, limit, remaining, reset, retry, name.
type Decision = (u8, u64, u64, i64, i64, String);

async fn limit(store: &Store, subject: &str, calls: u32) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let call = call("redoubt_limit", &store.subject(subject), &[]);
    let began = Instant::now();
    let (mut admitted, mut denied) = (0, None);
    for _ in 0..calls {
        let (allowed, _, _, _, retry, name): Decision = connection.query(&call).await?;
        if allowed == 0 { denied = denied.or(Some((name, retry))) } else { admitted += 1 }
    }
    let (by, retry) = denied.unzip();
    Ok(json!({"calls": calls, "admitted": admitted, "by": by, "retry": retry, "milliseconds": milliseconds(began)}))
}

/// The verdict of a read of a cache, the value, and the token of who is to compute; empty: no caller.
async fn read_cache(
    connection: &Connection,
    function: &str,
    key: &str,
) -> Result<(i64, Option<String>, String), Error> {
    let reply: Vec<Reply> = connection.query(&call(function, key, &[])).await?;
    let [verdict, value, token] = [0, 1, 2].map(|place| reply.get(place).cloned().unwrap_or(Reply::Nil));
    let form = |_| Error::Form("prefix");
    let verdict = i64::from_redis_value(verdict).map_err(form)?;
    let value = Option::<String>::from_redis_value(value).map_err(form)?;
    let token = Option::<String>::from_redis_value(token).map_err(form)?;
    Ok((verdict, value, token.unwrap_or_default()))
}

async fn stale(store: &Store, reads: u32) -> Result<Value, Error> {
    let connection = store.connect().await?;
    let key = store.entry("price");
    let milliseconds_of = |time: Duration| time.as_millis().to_string();
    let set = async |value: &str, time: Duration| -> Result<u64, Error> {
        Ok(connection.query(&call("redoubt_cache_set", &key, &["", value, &milliseconds_of(time)])).await?)
    };
    set("17", FRESH).await?;
    let began = Instant::now();
    // Verdict 1: it is fresh.
    while read_cache(&connection, "redoubt_cache_get_ro", &key).await?.0 == 1 {
        tokio::time::sleep(FRESH / 10).await;
    }
    let (mut served, mut asked, mut errors) = (0, 0, 0);
    for _ in 0..reads {
        let (verdict, value, token) = read_cache(&connection, "redoubt_cache_get", &key).await?;
        if verdict > 1 && value.as_deref() == Some("17") {
            served += 1;
        } else {
            errors += 1;
        }
        if !token.is_empty() {
            // This caller asks the source, which is down.
            asked += 1;
            let told = call("redoubt_cache_fail", &key, &[&token, &milliseconds_of(LEFT_ALONE)]);
            let _: u64 = connection.query(&told).await?;
        }
    }
    let took = milliseconds(began);
    set("18", LEFT_ALONE).await?;
    let (verdict, value, _) = read_cache(&connection, "redoubt_cache_get", &key).await?;
    let is_fresh = verdict == 1 && value.as_deref() == Some("18");
    Ok(
        json!({"reads": reads, "stale": served, "asked": asked, "errors": errors, "fresh": is_fresh, "milliseconds": took}),
    )
}
