//! Jobs that remove the keys of a cache that begin alike: on agents with their servers, one primary and agent after the other killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use redis::cmd;
use redoubt::dataplane::{cache_library, load};
use redoubt::model::NodeId;
use redoubt::model::audit::LONGEST_COMMAND;
use redoubt::model::desired::DesiredUser;
use redoubt::model::prefix_job::{JobState, PrefixJob};
use redoubt::redis::users::{self, AGENT, serve_caches};
use redoubt::redis::{Class, Connection, server};

use crate::support::cache_calls::{cache_call, ends_in, get, lease, policy};
use crate::support::engine_process::{Engine, engines};
use crate::support::eventually;
use crate::support::layer::{Layer, Options};
use crate::support::slow_log::{Call, SlowLog, dearest_writes, median, put_first};

const SOON: Duration = Duration::from_mins(2);
/// Keys that one job is to remove: some seconds of work at a twentieth of the server's time.
const MANY: usize = 120_000;

/// Large ones: a server frees each of them in some half a millisecond, while others wait.
const LARGE: usize = 40;
/// Keys that one command lists at most.
const TOGETHER: usize = 512;
/// Keys that one call of the function removes at most.
const REMOVED_TOGETHER: usize = 128;

/// A server that is slow for a moment, on a machine with other work, is not replaced.
fn options(engine: Engine) -> Options {
    Options { engine: Some(engine), keeps_data: false, min_replicas: 0, detection: 20_000, ..Options::default() }
}

/// Declares the caches to every node, as the operator does.
pub async fn declare(layer: &Layer, caches: &BTreeMap<String, String>) {
    layer.edit_documents(|config| config.caches.clone_from(caches));
    give_agents(layer, |users| serve_caches(users, caches)).await;
}

/// Gives the agents further rights: in each node's file of users, and on the running server.
pub async fn give_agents(layer: &Layer, give: impl Fn(&mut BTreeMap<String, DesiredUser>)) {
    for id in layer.data_ids() {
        let path = layer.data(id).with_file_name("secrets").join("users.acl");
        let text = fs::read_to_string(&path).unwrap();
        let line = |line: &str| {
            let (name, rules) = line.strip_prefix("user ").unwrap().split_once(' ').unwrap();
            let rules = rules.split(' ').map(str::to_owned).collect();
            (name.to_owned(), DesiredUser { rules })
        };
        let mut users: BTreeMap<String, _> = text.lines().map(line).collect();
        give(&mut users);
        fs::write(&path, users::acl_file(&users)).unwrap();
        let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
        server::acl_set_user(&operator, AGENT, &users[AGENT].rules).await.unwrap();
    }
}

/// Loads the caches' library with the policy of `web:`, as the operator does.
async fn load_library(layer: &Layer) {
    let operator = Connection::open(&layer.operator_on(layer.primary().await.unwrap())).await.unwrap();
    load(&operator, &cache_library(&[policy("web")])).await.unwrap();
}

async fn connect(layer: &Layer) -> (NodeId, Connection) {
    let mut found = None;
    eventually("a primary answers", SOON, async || {
        let Some(primary) = layer.primary().await else { return false };
        found = Connection::open(&layer.endpoint(primary)).await.ok().map(|connection| (primary, connection));
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn fill(connection: &Connection, beginning: &str, count: usize) {
    let script = "for at = ARGV[2], ARGV[3] do redis.call('SET', ARGV[1] .. at, 1) end";
    for from in (0..count).step_by(20_000) {
        let mut command = cmd("EVAL");
        command.arg(script).arg(0).arg(beginning).arg(from).arg(count.min(from + 20_000) - 1);
        connection.query::<()>(&command).await.unwrap();
    }
}

async fn count(connection: &Connection, beginning: &str) -> usize {
    let (mut cursor, mut keys) = (0_u64, BTreeSet::new());
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{beginning}*")).arg("COUNT").arg(5_000);
        let (next, found): (u64, Vec<String>) = connection.query(&scan).await.unwrap();
        keys.extend(found);
        cursor = next;
        if next == 0 {
            return keys.len();
        }
    }
}

async fn ask(connection: &Connection, id: &str, text: &str) {
    connection.query::<()>(cmd("HSET").arg("web:{@jobs}").arg(id).arg(text)).await.unwrap();
    connection.query::<()>(cmd("PEXPIRE").arg("web:{@jobs}").arg(600_000)).await.unwrap();
}

async fn job(layer: &Layer, id: &str) -> Option<PrefixJob> {
    let connection = Connection::open(&layer.endpoint(layer.primary().await?)).await.ok()?;
    let text: Option<Vec<u8>> = connection.query(cmd("HGET").arg("web:{@jobs}").arg(id)).await.ok()?;
    PrefixJob::read("web:", &text?)
}

async fn is_under_way(layer: &Layer, id: &str) -> bool {
    job(layer, id).await.is_some_and(|job| job.state == JobState::Running && job.removed > 0)
}

async fn done(layer: &Layer, id: &str) -> u64 {
    let mut removed = 0;
    eventually("the job is done", SOON, async || {
        let job = job(layer, id).await;
        removed = job.as_ref().map_or(0, |job| job.removed);
        job.is_some_and(|job| job.state == JobState::Done)
    })
    .await;
    removed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_carried_through_over_the_death_of_primaries_and_agents_and_touches_nothing_else() {
    for engine in engines() {
        println!("{}", engine.name);
        a_job_is_carried_through(engine).await;
    }
}

async fn a_job_is_carried_through(engine: Engine) {
    let mut layer = Layer::in_sync(&options(engine)).await;
    layer.mark_initialised();
    load_library(&layer).await;
    declare(&layer, &BTreeMap::from([("web:".to_owned(), "cache:invalidate:web:".to_owned())])).await;
    let (primary, connection) = connect(&layer).await;
    for (beginning, keys) in [("web:{g}", MANY), ("web:{h}", MANY), ("web:{*}", 50), ("api:{g}", 50)] {
        fill(&connection, beginning, keys).await;
    }
    // What the cache's own user could write there: nobody else's keys, and no job at all.
    ask(&connection, "1", "waiting 0 api:").await;
    ask(&connection, "2", "waiting 0 ").await;
    ask(&connection, "3", "web:").await;
    ask(&connection, "1000000", "waiting 0 web:{g}").await;
    eventually("the job is under way", SOON, async || is_under_way(&layer, "1000000").await).await;
    layer.kill_engine(primary);
    done(&layer, "1000000").await;
    let (new_primary, connection) = connect(&layer).await;
    assert_ne!(new_primary, primary);
    assert_eq!(count(&connection, "web:{g}").await, 0);
    assert_eq!(count(&connection, "web:{h}").await, MANY, "another beginning of the same cache");

    // The whole node: its agent may take over again, or another's.
    layer.wait_until_in_sync().await;
    ask(&connection, "2000000", "waiting 0 web:{h}").await;
    eventually("the job is under way", SOON, async || is_under_way(&layer, "2000000").await).await;
    layer.kill_node(new_primary);
    layer.start_node(new_primary);
    done(&layer, "2000000").await;
    let (_, connection) = connect(&layer).await;
    assert_eq!(count(&connection, "web:{h}").await, 0);
    // The pattern's characters mean themselves: of `*` only this.
    assert_eq!(count(&connection, "web:{\\*}").await, 50);
    ask(&connection, "3000000", "waiting 0 web:{*}").await;
    assert_eq!(done(&layer, "3000000").await, 50);
    assert_eq!(count(&connection, "api:{g}").await, 50);
    let texts: BTreeMap<String, String> = connection.query(cmd("HGETALL").arg("web:{@jobs}")).await.unwrap();
    assert_eq!(
        (texts["1"].as_str(), texts["2"].as_str(), texts["3"].as_str()),
        ("waiting 0 api:", "waiting 0 ", "web:")
    );
}

/// What was invalidated does not come back: an entry's version outlives the job, for as long as the entry would have lived.
#[tokio::test(flavor = "multi_thread")]
async fn no_older_version_is_stored_after_a_job_removed_the_entry() {
    for engine in engines() {
        let name = engine.name.clone();
        let layer = Layer::in_sync(&Options { data_nodes: 1, ..options(engine) }).await;
        layer.mark_initialised();
        load_library(&layer).await;
        declare(&layer, &BTreeMap::from([("web:".to_owned(), "cache:invalidate:web:".to_owned())])).await;
        let (_, connection) = connect(&layer).await;
        let version = async |key: &str, version: &str| {
            cache_call(&connection, "set_if_version", key, &[version, &format!("value {version}")]).await
        };
        let (old, other) = ("web:{g}old", "web:{h}other");
        for key in [old, other] {
            assert_eq!(version(key, "9").await, 1);
        }
        cache_call(&connection, "set", "web:{g}plain", &["", "value"]).await;
        connection.query::<()>(cmd("SET").arg("web:{g}string").arg("of a stock library")).await.unwrap();
        let before = ends_in(&connection, old).await;
        ask(&connection, "7", "waiting 0 web:{g}").await;
        assert_eq!(done(&layer, "7").await, 3, "{name}");
        assert_eq!(count(&connection, "web:{g}").await, 1, "{name}: only the version is left");
        assert!((1..=before).contains(&ends_in(&connection, old).await), "{name}: for the rest of its TTL");
        // The writer of version 5 was held up from before the job until after it.
        for (number, stored) in [("5", 0), ("9", 0)] {
            assert_eq!(version(old, number).await, stored, "{name}: version {number} comes back");
        }
        let token = lease(&connection, old).await;
        assert_eq!(cache_call(&connection, "set", old, &[&token, "read since"]).await, 1);
        assert_eq!(version(old, "8").await, 0, "{name}: a set without a version keeps what is known");
        assert_eq!(version(old, "10").await, 1);
        assert_eq!(get(&connection, old).await.served(), (1, Some("value 10")));
        assert_eq!(get(&connection, other).await.served(), (1, Some("value 9")), "{name}: of another beginning");
        // A job that goes through the keys again, as after a failover, counts no key twice.
        ask(&connection, "8", "waiting 0 web:{g}").await;
        assert_eq!(done(&layer, "8").await, 1, "{name}");
        ask(&connection, "9", "waiting 0 web:{g}").await;
        assert_eq!(done(&layer, "9").await, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_takes_a_small_part_of_the_servers_time_can_be_withdrawn_and_tells_its_end() {
    for engine in engines() {
        println!("{}", engine.name);
        let options = options(engine);
        a_job_takes_a_small_part(&Layer::in_sync(&Options { data_nodes: 1, ..options }).await).await;
    }
}

async fn a_job_takes_a_small_part(layer: &Layer) {
    layer.mark_initialised();
    load_library(layer).await;
    declare(layer, &BTreeMap::from([("web:".to_owned(), "news:web:".to_owned())])).await;
    let (primary, connection) = connect(layer).await;
    fill(&connection, "web:{g}", MANY).await;
    ask(&connection, "5", "waiting 0 web:{g}").await;
    eventually("the job is under way", SOON, async || is_under_way(layer, "5").await).await;
    connection.query::<()>(cmd("HDEL").arg("web:{@jobs}").arg("5")).await.unwrap();
    let mut left = usize::MAX;
    eventually("nothing goes any more", SOON, async || {
        let before = left;
        left = count(&connection, "web:{g}").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        before == left
    })
    .await;
    assert!(left > 0, "it was withdrawn in the middle");
    assert!(job(layer, "5").await.is_none(), "a job that was withdrawn comes back");

    for number in 0..LARGE {
        let mut set = cmd("HSET");
        set.arg(format!("web:{{g}}large{number}")).arg("h").arg("x").arg("v").arg("x".repeat(1 << 20));
        connection.query::<()>(&set).await.unwrap();
    }
    let mut subscriber =
        redoubt::redis::connection::open_subscriber(&layer.endpoint(primary), "news:web:").await.unwrap();
    let is_first = put_first(&layer.engine_pids(primary));
    let log = SlowLog::begin(layer, primary, 400_000).await;
    ask(&connection, "6", "waiting 0 web:{g}").await;
    let began = std::time::Instant::now();
    assert_eq!(done(layer, "6").await, u64::try_from(left + LARGE).unwrap());
    let took = began.elapsed();
    let told = futures::StreamExt::next(&mut subscriber.on_message()).await.unwrap();
    assert_eq!(told.get_payload::<String>().unwrap(), "6 1 p web:{g}");

    // How much one command does is counted: how long the machine lets it wait is not the server's.
    let calls = log.calls().await;
    let of_job = |name: &str| {
        let is_its = |call: &&Call| !call.is("SCAN") || call.after("MATCH") == Some("web:{g}*");
        calls.iter().filter(move |call| call.is(name)).filter(is_its).cloned().collect::<Vec<Call>>()
    };
    let (scans, removals, sizes) = (of_job("SCAN"), of_job("FCALL"), of_job("MEMORY"));
    for scan in &scans {
        assert!(scan.after("COUNT").unwrap().parse::<usize>().unwrap() <= TOGETHER, "{scan:?}");
    }
    // What a function runs is in its own time, and logged besides.
    let is_sent = |call: &&Call| ["TIME", "SCAN", "MEMORY", "FCALL"].iter().any(|name| call.is(name));
    let its = calls.iter().filter(|call| call.client == scans[0].client).filter(is_sent);
    let dearest = dearest_writes(its);
    println!("the dearest writes in us, with the machine to itself: {is_first}: {dearest:?}");
    // Without that right what is measured is also how long other processes ran meanwhile: then medians are asserted, below.
    let longest = dearest.last().map(|(longest, ..)| *longest).unwrap();
    assert!(!is_first || Duration::from_micros(longest) < LONGEST_COMMAND, "{dearest:?}");
    let mut large = 0;
    for removal in &removals {
        assert_eq!(removal.words[1], "redoubt_caches_remove");
        assert!(removal.length - 3 <= REMOVED_TOGETHER, "{removal:?}");
        if removal.words.iter().any(|word| word.contains("large")) {
            assert_eq!(removal.length, 4, "a large value is removed alone: {removal:?}");
            large += 1;
        }
    }
    assert_eq!(large, LARGE);
    assert_eq!(removals.iter().map(|removal| removal.length - 3).sum::<usize>(), left + LARGE);
    let mut spent = 0;
    for (name, calls) in [("SCAN", &scans), ("removal", &removals), ("MEMORY USAGE", &sizes)] {
        let (half, sum) = (median(calls.iter()), calls.iter().map(|call| call.microseconds).sum::<u64>());
        println!("{name}: {} calls, median {half} us, {} us in all", calls.len(), sum);
        assert!(Duration::from_micros(half) < LONGEST_COMMAND / 2, "{name} holds the server up for {half} us");
        spent += sum;
    }
    // The pauses are nineteen times what the server was busy. A command that waited for the processor counts as busy.
    println!("{} keys in {took:.1?}: {spent} us of the server", left + LARGE);
    assert!(Duration::from_micros(spent) < took / 10, "{spent} us of {took:?}");

    // What the agent may: the keys of the caches, and no other.
    let agent = Connection::open(&layer.agent_on(primary)).await.unwrap();
    for refused in [["UNLINK", "api:a"], ["GET", "web:a"], ["HGETALL", "api:{@jobs}"]] {
        let error = agent.query::<()>(cmd(refused[0]).arg(refused[1])).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied, "{refused:?}");
    }
}
