//! What the caches publish, and how a process that keeps copies of entries notices what it missed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::PubSub;
use redis::cmd;
use redoubt::dataplane::{cache_library, load};
use redoubt::model::cache_policy::CachePolicy;
use redoubt::redis::{Connection, server};

use crate::support::cache_calls::{HOUR, cache_call, counter, ends_in, get, lease, policy, server_with};
use crate::support::cluster::{cluster, slot_of};
use crate::support::engine_process::{PORT, Process, engines};
use crate::support::function_calls::{call, number};
use crate::support::layer::SOON;
use crate::support::spread;

const CHANNEL: &str = "cache:invalidate:web:";
const KEY: &str = "web:{a b}product 42";

async fn subscriber(process: &Process) -> PubSub {
    let client = redis::Client::open(format!("redis://{}:{PORT}", process.address)).unwrap();
    let mut subscriber = client.get_async_pubsub().await.unwrap();
    subscriber.subscribe(CHANNEL).await.unwrap();
    subscriber
}

async fn next(subscriber: &mut PubSub) -> String {
    let message = tokio::time::timeout(SOON, subscriber.on_message().next()).await;
    message.expect("no message").expect("the connection ended").get_payload().unwrap()
}

async fn position(connection: &Connection) -> (String, i64) {
    redis::from_redis_value(call(connection, "caches_position", &[], &["web:"]).await.unwrap()).unwrap()
}

async fn invalidate(connection: &Connection, key: &str) {
    number(connection, "cache_invalidate", &[key], &[]).await;
}

#[tokio::test]
async fn each_invalidation_is_reported_in_its_order_to_subscribers_of_any_node() {
    for engine in engines() {
        let (first, primary) = server_with(&engine, &[policy("web"), policy("api")], &[]).await;
        let second = Process::server(&engine, &[]).await;
        let replica = second.connect().await;
        second.follow(&replica, &first).await;
        let mut subscribers = [subscriber(&first).await, subscriber(&second).await];
        let (run, sent) = position(&primary).await;
        assert_eq!(sent, 0);
        assert!(run.len() == 16 && run.bytes().all(|byte| byte.is_ascii_digit()), "{run}");

        cache_call(&primary, "set", KEY, &["", "value", "", "one"]).await;
        number(&primary, "cache_invalidate", &[KEY, "web:{0}b", KEY], &[]).await;
        number(&primary, "cache_invalidate", &["api:{0}a"], &[]).await;
        cache_call(&primary, "invalidate_tag", "web:{a b}", &["one", "two words"]).await;
        call(&primary, "cache_invalidate_prefix", &["web:{@jobs}"], &["web:{a b}pro"]).await.unwrap();
        let told = [
            format!("k {KEY}"),
            "k web:{0}b".to_owned(),
            format!("k {KEY}"),
            "t web:{a b} one".to_owned(),
            "t web:{a b} two words".to_owned(),
            "p web:{a b}pro".to_owned(),
        ];
        for subscriber in &mut subscribers {
            for (sequence, what) in (1..).zip(&told) {
                assert_eq!(next(subscriber).await, format!("{run} {sequence} {what}"), "{}", engine.name);
            }
        }
        assert_eq!(position(&primary).await, (run.clone(), 6));
        assert_eq!(counter(&primary, "web:", "invalidations").await, 6);
        assert_ne!(position(&replica).await.0, run, "a replica's is its own");

        // A library that is loaded forgets the number, so the run is another.
        load(&primary, &cache_library(&[CachePolicy { generation: 2, ..policy("web") }])).await.unwrap();
        let (later, sent) = position(&primary).await;
        assert!(later > run && sent == 0, "{}", engine.name);
    }
}

#[tokio::test]
async fn a_request_for_a_prefix_is_a_job_and_refuses_what_is_being_computed() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let (jobs, beginning) = ("web:{@jobs}", "web:{0}product ");
        let token = lease(&connection, KEY).await;
        let reply = call(&connection, "cache_invalidate_prefix", &[jobs], &[beginning]).await.unwrap();
        let id: String = redis::from_redis_value(reply).unwrap();
        let job: String = connection.query(cmd("HGET").arg(jobs).arg(&id)).await.unwrap();
        assert_eq!(job, format!("waiting 0 {beginning}"), "{}", engine.name);
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "old"]).await, 0, "{}", engine.name);
        let token = lease(&connection, KEY).await;
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "new"]).await, 1);
        for _ in 1..100 {
            call(&connection, "cache_invalidate_prefix", &[jobs], &["web:"]).await.unwrap();
        }
        let full = call(&connection, "cache_invalidate_prefix", &[jobs], &["web:"]).await.unwrap_err();
        assert!(full.server_text().unwrap().starts_with("BUSY "), "{full:?}");
        connection.query::<()>(cmd("HSET").arg(jobs).arg(&id).arg("done 7 web:{0}product ")).await.unwrap();
        call(&connection, "cache_invalidate_prefix", &[jobs], &["web:"]).await.unwrap();
        assert!(!connection.query::<bool>(cmd("HEXISTS").arg(jobs).arg(&id)).await.unwrap(), "it made room");
        assert_eq!(connection.query::<i64>(cmd("HLEN").arg(jobs)).await.unwrap(), 100);
        let left = ends_in(&connection, jobs).await;
        assert!(left > 0 && left.unsigned_abs() <= 7 * 24 * HOUR, "{left}");
    }
}

#[tokio::test]
async fn everything_is_removed_before_anything_is_published() {
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let rules = ["reset", "on", ">right", "~web:*", "+@all"].map(str::to_owned);
        server::acl_set_user(&connection, "mute", &rules).await.unwrap();
        let mute = Connection::open(&process.endpoint("mute", "right")).await.unwrap();
        let keys = ["web:{0}a", "web:{0}b"];
        for key in keys {
            cache_call(&connection, "set", key, &["", "value", "", "one"]).await;
        }
        let (run, sent) = position(&connection).await;
        call(&mute, "cache_invalidate", &keys, &[]).await.unwrap_err();
        for key in keys {
            assert_eq!(get(&connection, key).await.verdict, 0, "{}: {key}", engine.name);
        }
        let after_keys = position(&connection).await;
        assert!(after_keys.0 == run && after_keys.1 > sent, "who listens sees that a message is missing");
        cache_call(&connection, "set", "web:{0}c", &["", "value", "", "one", "two"]).await;
        cache_call(&connection, "set", "web:{0}d", &["", "value", "", "two"]).await;
        call(&mute, "cache_invalidate_tag", &["web:{0}"], &["one", "two"]).await.unwrap_err();
        for key in ["web:{0}c", "web:{0}d"] {
            assert_eq!(get(&connection, key).await.verdict, 0, "{}: {key}", engine.name);
        }
    }
}

/// The copies of a process, and what it heard last.
#[derive(Default)]
struct Copies {
    entries: BTreeMap<String, String>,
    heard: Option<(String, i64)>,
}

impl Copies {
    /// A message removes what it names; one after a gap, or of another run, removes all.
    fn hear(&mut self, message: &str) {
        let mut words = message.splitn(4, ' ');
        let mut word = || words.next().unwrap().to_owned();
        let (run, sequence, kind, what) = (word(), word().parse::<i64>().unwrap(), word(), word());
        let is_next = self.heard.as_ref().is_some_and(|(of, last)| *of == run && last + 1 == sequence);
        if !is_next || kind != "k" {
            self.entries.clear();
        }
        self.entries.remove(&what);
        self.heard = Some((run, sequence));
    }

    /// Asked now and then, and after each connection: another position than what was heard removes all.
    fn compare(&mut self, position: (String, i64)) -> bool {
        let is_equal = self.heard.as_ref() == Some(&position);
        if !is_equal {
            self.entries.clear();
            self.heard = Some(position);
        }
        is_equal
    }
}

#[tokio::test]
async fn a_subscriber_that_was_cut_off_notices_what_it_missed() {
    for engine in engines() {
        let (mut process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let mut listening = subscriber(&process).await;
        let mut copies = Copies::default();
        let fill = |copies: &mut Copies| copies.entries.insert(KEY.to_owned(), "value".to_owned());
        copies.compare(position(&connection).await);
        fill(&mut copies);
        invalidate(&connection, "web:{0}other").await;
        copies.hear(&next(&mut listening).await);
        assert!(copies.entries.contains_key(KEY), "another entry's message removes no more than it");
        assert!(copies.compare(position(&connection).await), "nothing was missed");

        // Cut off, connected again, and nothing was sent meanwhile; then something was.
        for missed in [0, 3] {
            assert_eq!(server::cut_subscribers(&connection).await.unwrap(), 1);
            for _ in 0..missed {
                invalidate(&connection, KEY).await;
            }
            listening = subscriber(&process).await;
            assert_eq!(copies.compare(position(&connection).await), missed == 0, "{}", engine.name);
            assert_eq!(copies.entries.contains_key(KEY), missed == 0);
            fill(&mut copies);
        }

        // Connected all the time to a network that lost some: the next message shows it.
        invalidate(&connection, KEY).await;
        next(&mut listening).await;
        invalidate(&connection, "web:{0}other").await;
        copies.hear(&next(&mut listening).await);
        assert!(copies.entries.is_empty(), "{}: a gap went by", engine.name);

        // A server that was started again has another run.
        fill(&mut copies);
        process.kill();
        process.run();
        process.wait_until_it_answers().await;
        let connection = process.connect().await;
        load(&connection, &cache_library(&[policy("web")])).await.unwrap();
        let mut listening = subscriber(&process).await;
        invalidate(&connection, "web:{0}other").await;
        copies.hear(&next(&mut listening).await);
        assert!(copies.entries.is_empty(), "{}: another run went by", engine.name);
    }
}

#[tokio::test]
async fn an_invalidation_reaches_a_subscriber_within_milliseconds() {
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let mut listening = subscriber(&process).await;
        let mut took = Vec::new();
        for _ in 0..200 {
            let began = std::time::Instant::now();
            invalidate(&connection, KEY).await;
            next(&mut listening).await;
            took.push(began.elapsed());
        }
        took.sort();
        println!("{}: {}", engine.name, spread(took.iter().step_by(20).copied().collect()));
        // A tenth of a millisecond on a machine at rest.
        assert!(took[100] < Duration::from_millis(100), "{}: {took:?}", engine.name);
    }
}

#[tokio::test]
async fn in_a_cluster_a_message_reaches_subscribers_of_all_nodes_and_a_call_stays_in_its_slot() {
    for engine in engines() {
        let nodes = cluster(&engine, &cache_library(&[policy("web")])).await;
        let mut keys = Vec::new();
        for number in 0..100 {
            let key = format!("web:{{{number}}}product");
            if (slot_of(&nodes[0].1, &key).await > 8_191) == (keys.len() == 1) && keys.len() < 2 {
                keys.push(key);
            }
        }
        let mut subscribers = [subscriber(&nodes[0].0).await, subscriber(&nodes[1].0).await];
        for ((_, connection), key) in nodes.iter().zip(&keys) {
            let token = lease(connection, key).await;
            assert_eq!(cache_call(connection, "set", key, &[&token, "value", "", "one", "two"]).await, 1);
            assert_eq!(get(connection, key).await.served(), (1, Some("value")), "{}", engine.name);
            let group = &key[..=key.find('}').unwrap()];
            assert_eq!(cache_call(connection, "invalidate_tag", group, &["two"]).await, 1);
            invalidate(connection, key).await;
            let (run, sent) = position(connection).await;
            assert_eq!(sent, 2, "each primary counts its own");
            for subscriber in &mut subscribers {
                assert_eq!(next(subscriber).await, format!("{run} 1 t {group} two"), "{}", engine.name);
                assert_eq!(next(subscriber).await, format!("{run} 2 k {key}"));
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let refused = call(&nodes[0].1, "cache_invalidate", &keys, &[]).await.unwrap_err();
        assert!(refused.server_text().unwrap().starts_with("CROSSSLOT"), "{refused:?}");
    }
}

/// `CLIENT TRACKING`: what it tells of the keys of a prefix, on a layer of this namespace alone.
#[tokio::test]
async fn tracking_by_prefix_tells_of_sets_and_invalidations_of_keys() {
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let client = redis::Client::open(format!("redis://{}:{PORT}", process.address)).unwrap();
        let mut listening = client.get_async_pubsub().await.unwrap();
        listening.subscribe("__redis__:invalidate").await.unwrap();
        let listener: Vec<String> = connection
            .query::<String>(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub"))
            .await
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("id=")?.split(' ').next().map(str::to_owned))
            .collect();
        let tracking = process.connect().await;
        let mut command = cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("REDIRECT").arg(&listener[0]).arg("BCAST").arg("PREFIX").arg("web:");
        tracking.query::<()>(&command).await.unwrap();

        cache_call(&connection, "set", "web:{0}a", &["", "value", "", "one"]).await;
        number(&connection, "cache_invalidate", &["web:{0}a"], &[]).await;
        cache_call(&connection, "invalidate_tag", "web:{0}", &["one"]).await;
        let mut told = Vec::new();
        while told.iter().filter(|key| *key == "web:{0}a").count() < 2 || told.last().unwrap() != "web:{0}@t:one" {
            let message = tokio::time::timeout(SOON, listening.on_message().next()).await.unwrap().unwrap();
            told.extend(message.get_payload::<Vec<String>>().unwrap());
            assert!(told.len() < 20, "{told:?}");
        }
    }
}
