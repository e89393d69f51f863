//! The audit of a layer's keys: agents with real engines on loopback.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use redis::{Cmd, cmd};
use redoubt::model::NodeId;
use redoubt::model::audit::{
    AuditMode, AuditReport, DeclaredPrefix, DeclaredPrefixes, LONGEST_COMMAND, MemoryBudget, PREFIXES_FORMAT,
    short_hash,
};
use redoubt::model::desired::DesiredUser;
use redoubt::redis::users::{self, let_agents_repair};
use redoubt::redis::{Connection, server};

use crate::agent_prefix_jobs::{declare, give_agents};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};
use crate::support::slow_log::{Call, SlowLog, dearest_writes, median, put_first};

/// A pass over 100,000 keys on a busy machine, and the rest before it.
const A_PASS: Duration = Duration::from_mins(10);
const HOUR: u64 = 3_600_000;
/// Keys under `web:` that expire.
const MANY: usize = 100_000;

fn declared(mode: AuditMode, prefixes: &[(&str, Option<u64>)]) -> DeclaredPrefixes {
    let prefix = |(prefix, lifetime_milliseconds): &(&str, Option<u64>)| DeclaredPrefix {
        prefix: (*prefix).to_owned(),
        lifetime_milliseconds: *lifetime_milliseconds,
        budget: None,
    };
    DeclaredPrefixes { format: PREFIXES_FORMAT, mode, prefixes: prefixes.iter().map(prefix).collect() }
}

fn hash_of(declared: &DeclaredPrefixes) -> String {
    short_hash(serde_json::to_string(declared).unwrap().as_bytes())
}

async fn application(layer: &Layer) -> Connection {
    let primary = layer.primary().await.unwrap();
    Connection::open(&layer.endpoint(primary)).await.unwrap().with_response_timeout(SOON)
}

async fn send(connection: &Connection, commands: &[Cmd]) {
    for together in commands.chunks(1_000) {
        for reply in connection.query_all(together).await.unwrap() {
            reply.unwrap();
        }
    }
}

/// A command written as words.
fn words(text: &str) -> Cmd {
    let mut words = text.split(' ');
    let mut command = cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command
}

/// Keys of all kinds: many that expire, seven under a prefix that do not, some of no use, and large ones. In two databases.
async fn fill(connection: &Connection) {
    let value = "x".repeat(100);
    let many = (0..MANY).map(|number| cmd("SET").arg(format!("web:{number}")).arg(&value).arg("PX").arg(HOUR).clone());
    send(connection, &many.collect::<Vec<_>>()).await;
    let elements: Vec<String> = (0..50_000).map(|number| format!("element-{number}")).collect();
    let mut large = cmd("SADD");
    large.arg("api:{large}").arg(&elements);
    let mut odd = vec![large];
    odd.extend(
        [
            "SET web:never 1",
            "HSET web:{t}h f v",
            "RPUSH web:{t}l a b c",
            "ZADD web:{t}z 1 a",
            "XADD web:{t}x * f v",
            "PFADD web:{t}p a",
            "HSET web:{@jobs} 1 x",
            "SET of-nobody 1",
            "SET of-nobody-either 1 PX 3600000",
            "SELECT 1",
            "SET web:elsewhere 1",
            "SELECT 0",
        ]
        .map(words),
    );
    send(connection, &odd).await;
}

/// The newest report of any node that goes by this list.
async fn report(layer: &Layer, declared: &DeclaredPrefixes) -> Option<(NodeId, AuditReport)> {
    let list = hash_of(declared);
    let mut newest: Option<(NodeId, AuditReport)> = None;
    for id in layer.data_ids() {
        if let Some(report) = layer.audit(id).await.filter(|report| report.list == list)
            && newest.as_ref().is_none_or(|(_, known)| known.finished < report.finished)
        {
            newest = Some((id, report));
        }
    }
    newest
}

/// Waits for a report of which `holds` is true.
async fn reported(
    what: &str,
    layer: &Layer,
    declared: &DeclaredPrefixes,
    holds: impl Fn(&AuditReport) -> bool,
) -> (NodeId, AuditReport) {
    let mut found = None;
    let took = eventually(what, A_PASS, async || {
        found = report(layer, declared).await.filter(|(_, report)| holds(report));
        found.is_some()
    })
    .await;
    println!("{what}: after {took:.1?}");
    found.unwrap()
}

/// What an auditor sends in one write, between one `TIME` and the next, is carried out before other clients are served. It asks for few
/// keys, and each costs little: the product is the pause, whatever else the machine does.
/// Where the server had the machine to itself, no write took 5 ms.
fn no_write_asks_for_much(calls: &[Call], is_first: bool) {
    let auditor = &calls.iter().rfind(|call| call.is("SCAN")).expect("an auditor was logged").client;
    let own: Vec<&Call> = calls.iter().filter(|call| call.client == *auditor).collect();
    let writes: Vec<&[&Call]> = own.split(|call| call.is("TIME")).filter(|write| !write.is_empty()).collect();
    assert!(writes.len() > 20, "{}", writes.len());
    for write in writes {
        let keys = match write[0].after("COUNT") {
            Some(count) => count.parse().unwrap(),
            None => write.len(),
        };
        assert!(keys <= 512 && (write.len() == 1 || !write.iter().any(|call| call.is("SCAN"))), "{keys}: {write:?}");
    }
    let dearest = dearest_writes(own.iter().copied());
    println!("the dearest writes in µs, with the machine to itself: {is_first}: {dearest:?}");
    let longest = dearest.last().map(|(longest, ..)| *longest).unwrap();
    assert!(!is_first || Duration::from_micros(longest) < LONGEST_COMMAND, "{dearest:?}");
    for (name, together) in [("SCAN", 1), ("PTTL", 512), ("MEMORY", 512)] {
        let (half, count) =
            (median(own.iter().filter(|it| it.is(name)).copied()), own.iter().filter(|it| it.is(name)).count());
        println!("{name}: {count} calls, median {half} µs");
        let pause = Duration::from_micros(half) * together;
        assert!(pause < LONGEST_COMMAND, "{name}: {together} in one write take {pause:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_all_kinds_are_audited_on_a_replica_and_only_declared_ones_are_repaired() {
    for engine in engines() {
        println!("{}", engine.name);
        let layer = Layer::whole(&Options { engine: Some(engine), ..Options::default() }).await;
        let primary = layer.primary().await.unwrap();
        let connection = application(&layer).await;
        fill(&connection).await;
        let (mut logs, mut is_first) = (BTreeMap::new(), true);
        for id in layer.data_ids() {
            is_first &= put_first(&layer.engine_pids(id));
            logs.insert(id, SlowLog::begin(&layer, id, 30_000).await);
        }
        let before = declared(AuditMode::Report, &[("web:", Some(HOUR)), ("api:", None)]);
        layer.declare(&before);
        let (auditor, report) = reported("all is counted", &layer, &before, |report| report.keys > 100_000).await;
        assert_ne!(auditor, primary, "a replica does it");
        assert_eq!(report.keys, MANY as u64 + 11);
        assert_eq!((report.without_expiry, report.outside), (9, 2), "{report:?}");
        let of = |prefix: &str| report.prefixes[prefix];
        assert_eq!((of("web:").keys, of("web:").without_expiry), (MANY as u64 + 8, 7));
        assert_eq!((of("api:").keys, of("api:").without_expiry), (1, 1));
        assert_eq!(report.outside_examples.len(), 2);
        assert!(report.outside_examples.contains(&short_hash(b"of-nobody")));
        assert_eq!(
            (report.largest[0].prefix.as_str(), report.largest[0].key.clone()),
            ("api:", short_hash(b"api:{large}"))
        );
        assert!(report.largest[0].bytes > 1_000_000);
        // 100 bytes and what a key takes: 142 in all on Valkey, more on Redis.
        assert!((12_000_000..35_000_000).contains(&of("web:").bytes), "{report:?}");
        assert!(of("web:").bytes_error < of("web:").bytes / 100, "keys of one size");
        let share = report.busy_milliseconds * 100 / report.took_milliseconds.max(1);
        println!("{} ms, busy {} ms: {share} %", report.took_milliseconds, report.busy_milliseconds);
        assert!(share <= 5, "{share} %");
        no_write_asks_for_much(&logs[&auditor].calls().await, is_first);
        let text = layer.metrics(auditor).await.unwrap();
        for line in
            ["redoubt_audit_keys_without_expiry 9", "redoubt_audit_prefix_keys_without_expiry{prefix=\"web:\"} 7"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        let secret = ["web:never", "of-nobody", "{large}", "elsewhere"];
        let answer = serde_json::to_string(&report).unwrap();
        assert!(secret.iter().all(|name| !answer.contains(name) && !text.contains(name)), "no name of a key is told");

        // The operator gives the agents the list and the right, in whichever order.
        let after = declared(AuditMode::Repair, &[("web:", Some(HOUR)), ("api:", None)]);
        layer.declare(&after);
        let mut users = BTreeMap::from([(users::AGENT.to_owned(), DesiredUser { rules: Vec::new() })]);
        let_agents_repair(&mut users);
        let repairing = &users[users::AGENT].rules;
        for id in layer.data_ids() {
            let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
            server::acl_set_user(&operator, users::AGENT, repairing).await.unwrap();
        }
        let lifetime = async |key: &str| connection.query::<i64>(cmd("PTTL").arg(key)).await.unwrap();
        let repaired = ["web:never", "web:{t}h", "web:{t}l", "web:{t}z", "web:{t}x", "web:{t}p"];
        eventually("what is declared is repaired", A_PASS, async || {
            let mut left = Vec::new();
            for key in repaired {
                left.push(lifetime(key).await);
            }
            let by_primary = layer.metrics(primary).await.unwrap();
            left.iter().all(|left| *left > 0) && by_primary.contains("redoubt_audit_repaired_keys_total 7")
        })
        .await;
        // A new list is gone by at once, a known one after a rest.
        let again = declared(AuditMode::Repair, &[("web:", Some(HOUR)), ("api:", None), ("new:", None)]);
        layer.declare(&again);
        let (_, report) = reported("the repair is seen", &layer, &again, |report| report.without_expiry == 2).await;
        assert_eq!(report.prefixes["web:"].without_expiry, 0);
        for key in repaired {
            let left = lifetime(key).await;
            assert!(left > 0 && left <= i64::try_from(HOUR).unwrap(), "{key}: {left}");
        }
        for key in ["of-nobody", "api:{large}", "web:{@jobs}"] {
            assert_eq!(lifetime(key).await, -1, "{key} is left alone");
        }
        assert_eq!(connection.query::<String>(cmd("GET").arg("web:never")).await.unwrap(), "1");
        let repaired = layer.metrics(primary).await.unwrap();
        assert!(repaired.lines().any(|line| line == "redoubt_audit_repaired_keys_total 7"), "{repaired}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_outlives_a_cut_connection_and_begins_again_after_a_primary_change() {
    let layer = Layer::whole(&Options::default()).await;
    let connection = application(&layer).await;
    fill(&connection).await;
    let list = declared(AuditMode::Report, &[("web:", Some(HOUR)), ("api:", None)]);
    layer.declare(&list);
    let (primary, calls) = (layer.primary().await.unwrap(), async |id: NodeId| {
        let operator = Connection::open(&layer.operator_on(id)).await.ok()?;
        let info = server::info_with_commands(&operator).await.ok()?;
        Some(info.commands().find(|known| known.name == "scan").map_or(0, |known| known.calls))
    });
    let auditor = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let under_way = calls(auditor).await.unwrap();
    eventually("the pass is under way", SOON, async || calls(auditor).await.is_some_and(|now| now > under_way + 20))
        .await;
    let operator = Connection::open(&layer.operator_on(auditor)).await.unwrap();
    assert!(server::cut_clients(&operator).await.unwrap() > 0);
    let (id, report) = reported("it is whole", &layer, &list, |_| true).await;
    assert_eq!((id, report.keys, report.without_expiry), (auditor, MANY as u64 + 11, 9));

    // Another list: the pass begins at once, and in its middle the primary dies.
    let list = declared(AuditMode::Report, &[("web:", Some(HOUR))]);
    layer.declare(&list);
    let under_way = calls(auditor).await.unwrap();
    eventually("the pass is under way", SOON, async || calls(auditor).await.is_some_and(|now| now > under_way + 20))
        .await;
    layer.kill_engine(primary);
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    layer.wait_until_whole().await;
    let (id, report) = reported("it is whole again", &layer, &list, |_| true).await;
    assert_ne!(Some(id), layer.primary().await, "a replica does it");
    assert_eq!((report.keys, report.without_expiry, report.outside), (MANY as u64 + 11, 9, 3));
}

/// Keys without an expiry, of which the primary has repaired some when it dies.
const FORGOTTEN: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_primary_repairs_what_the_one_before_left_and_no_value_is_lost() {
    for engine in engines() {
        println!("{}", engine.name);
        let layer = Layer::whole(&Options { engine: Some(engine), ..Options::default() }).await;
        let connection = application(&layer).await;
        let script = "for i = ARGV[2], ARGV[3] do redis.call('SET', ARGV[1] .. i, i) end";
        for first in (0..FORGOTTEN).step_by(10_000) {
            let fill = cmd("EVAL").arg(script).arg(0).arg("web:").arg(first).arg(first + 9_999).clone();
            connection.query::<()>(&fill).await.unwrap();
        }
        let fill = cmd("EVAL").arg(script).arg(0).arg("of-nobody").arg(0).arg(99).clone();
        connection.query::<()>(&fill).await.unwrap();
        give_agents(&layer, let_agents_repair).await;
        let list = declared(AuditMode::Repair, &[("web:", Some(HOUR))]);
        layer.declare(&list);
        let primary = layer.primary().await.unwrap();
        let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
        let repaired = async || {
            let info = server::info(&operator).await.unwrap();
            info.databases().next().map_or(0, |database| database.expiring)
        };
        eventually("the primary repairs", A_PASS, async || repaired().await > 0).await;
        let by_first = repaired().await;
        layer.kill_engine(primary);
        assert!(usize::try_from(by_first).unwrap() < FORGOTTEN, "it dies in the middle");
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        layer.wait_until_whole().await;
        let operator = Connection::open(&layer.operator_on(layer.primary().await.unwrap())).await.unwrap();
        eventually("the next primary has repaired the rest", A_PASS, async || {
            let info = server::info(&operator).await.unwrap();
            info.databases().next().is_some_and(|database| database.expiring == FORGOTTEN as u64)
        })
        .await;
        // A new list is gone by at once, a known one after a rest.
        let again = declared(AuditMode::Repair, &[("web:", Some(HOUR)), ("new:", None)]);
        layer.declare(&again);
        let (_, report) = reported("all is repaired", &layer, &again, |report| report.without_expiry == 100).await;
        assert_eq!((report.keys, report.outside), (FORGOTTEN as u64 + 100, 100), "after {by_first} by the first");
        let connection = application(&layer).await;
        for number in (0..FORGOTTEN).step_by(97) {
            let key = format!("web:{number}");
            let left: i64 = connection.query(cmd("PTTL").arg(&key)).await.unwrap();
            assert!(left > 0 && left <= i64::try_from(HOUR).unwrap(), "{key}: {left}");
            assert_eq!(connection.query::<usize>(cmd("GET").arg(&key)).await.unwrap(), number);
        }
        assert_eq!(connection.query::<i64>(cmd("PTTL").arg("of-nobody7")).await.unwrap(), -1);
    }
}

/// Entries of a cache above its budget: half of them end in an hour, half in ten.
const ENTRIES: usize = 8_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_above_its_budget_loses_what_ends_soonest_and_nothing_of_others() {
    for engine in engines() {
        println!("{}", engine.name);
        let layer = Layer::whole(&Options { engine: Some(engine), ..Options::default() }).await;
        declare(&layer, &BTreeMap::from([("web:".to_owned(), "cache:invalidate:web:".to_owned())])).await;
        let connection = application(&layer).await;
        let value = "x".repeat(1_000);
        let mut commands = Vec::new();
        let mut set = |key: String, hours: u64| {
            commands.push(cmd("SET").arg(key).arg(&value).arg("PX").arg(hours * HOUR).clone());
        };
        for number in 0..ENTRIES / 2 {
            set(format!("web:{{0}}soon{number}"), 1);
            set(format!("web:{{0}}late{number}"), 10);
        }
        for number in 0..100 {
            set(format!("web:{{0}}@t:{number}"), 1);
            set(format!("web:{{0}}@l:{number}"), 1);
            set(format!("api:{{0}}{number}"), 1);
            set(format!("of-nobody{number}"), 1);
        }
        send(&connection, &commands).await;
        let budget = |bytes, shrinks| {
            let mut list = declared(AuditMode::Report, &[("web:", Some(HOUR)), ("api:", None)]);
            list.prefixes[0].budget = Some(MemoryBudget { bytes, shrinks });
            list
        };
        let before = budget(1 << 20, false);
        layer.declare(&before);
        let (auditor, report) = reported("it is told", &layer, &before, |_| true).await;
        let full = report.prefixes["web:"];
        assert_eq!((full.keys, full.budget_bytes), (ENTRIES as u64 + 200, Some(1 << 20)), "{report:?}");
        let text = layer.metrics(auditor).await.unwrap();
        let line = "redoubt_audit_prefix_budget_bytes{prefix=\"web:\"} 1048576";
        assert!(text.lines().any(|found| found == line), "{text}");

        let goal = full.bytes * 3 / 4;
        let after = budget(goal, true);
        layer.declare(&after);
        let (_, report) = reported("it is within its budget", &layer, &after, |report| {
            let found = report.prefixes["web:"];
            found.bytes.saturating_sub(found.bytes_error) <= goal
        })
        .await;
        let found = report.prefixes["web:"];
        println!("{full:?} → {found:?}");
        assert!(found.bytes >= goal * 85 / 100, "far below {goal}: {found:?}");
        let count = async |beginning: &str| {
            let keys = (0..ENTRIES / 2).map(|number| cmd("EXISTS").arg(format!("{beginning}{number}")).clone());
            let replies = connection.query_all(&keys.collect::<Vec<_>>()).await.unwrap();
            let is = |reply: redoubt::redis::Result<redis::Value>| reply.unwrap() == redis::Value::Int(1);
            replies.into_iter().map(is).filter(|is| *is).count()
        };
        let (soon, late) = (count("web:{0}soon").await, count("web:{0}late").await);
        assert!(soon < ENTRIES * 3 / 10 && late > ENTRIES * 49 / 100, "{soon} and {late} of {}", ENTRIES / 2);
        for kept in ["web:{0}@t:", "web:{0}@l:", "api:{0}", "of-nobody"] {
            assert_eq!(count(kept).await, 100, "{kept}");
        }
        let primary = layer.primary().await.unwrap();
        let shrunk = ENTRIES - soon - late;
        let text = layer.metrics(primary).await.unwrap();
        assert!(text.contains(&format!("redoubt_audit_shrunk_keys_total {shrunk}")), "{shrunk}: {text}");
    }
}

/// A layer of one node: its primary is audited, in a smaller share of its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_a_replica_is_audited_itself() {
    let options = Options { data_nodes: 1, sentinels: 1, min_replicas: 0, ..Options::default() };
    let layer = Layer::whole(&options).await;
    let connection = application(&layer).await;
    send(&connection, &["SET web:1 1", "SET other 1", "SET web:2 1 PX 3600000"].map(words)).await;
    let list = declared(AuditMode::Report, &[("web:", Some(HOUR))]);
    layer.declare(&list);
    let (_, report) = reported("it is whole", &layer, &list, |report| report.keys == 3).await;
    assert_eq!((report.without_expiry, report.outside), (2, 1));
    // What the agent read counts for nobody's hit ratio.
    let text = async || layer.metrics(layer.data_ids()[0]).await.unwrap_or_default();
    let has_none =
        |text: &str| text.contains("redoubt_audit_keys 3") && !text.contains("redoubt_keyspace_hit_ratio_5m");
    eventually("no read of an application is told", SOON, async || has_none(&text().await)).await;
}

const PAGE: &str = "docs/audit.md";
const BEGIN: &str = "<!-- audit: written by `make bench` -->";
const END: &str = "<!-- end of audit -->";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: make bench"]
async fn an_audit_of_a_million_keys_is_measured_and_written() {
    let mut rows = String::new();
    for engine in engines() {
        let name = engine.name.clone();
        let settings = &[("save", ""), ("appendonly", "no")];
        let layer =
            Layer::whole(&Options { engine: Some(engine), keeps_data: false, settings, ..Options::default() }).await;
        let connection = application(&layer).await;
        let script = "for i = ARGV[1], ARGV[1] + 9999 do redis.call('SET', 'web:' .. i, ARGV[2], 'PX', 3600000) end";
        for first in (0..1_000_000).step_by(10_000) {
            let fill = cmd("EVAL").arg(script).arg(0).arg(first).arg("x".repeat(100)).clone();
            connection.query::<()>(&fill).await.unwrap();
        }
        let primary = layer.primary().await;
        let replica = layer.data_ids().into_iter().find(|id| Some(*id) != primary).unwrap();
        eventually("the replica has them", SOON, async || layer.keys(replica).await == Some(1_000_000)).await;
        let server = Connection::open(&layer.operator_on(replica)).await.unwrap();
        let micros = async || {
            let info = server::info_with_commands(&server).await.unwrap();
            let ours = ["scan", "pttl", "memory|usage", "select"];
            info.commands()
                .filter(|known| ours.contains(&known.name.as_str()))
                .map(|known| known.microseconds)
                .sum::<u64>()
        };
        let (before, began) = (micros().await, Instant::now());
        let list = declared(AuditMode::Report, &[("web:", Some(HOUR))]);
        layer.declare(&list);
        let (_, report) = reported("it is whole", &layer, &list, |report| report.keys >= 1_000_000).await;
        let commands = Duration::from_micros(micros().await - before);
        let share = commands.as_secs_f64() * 1e5 / f64::from(u32::try_from(report.took_milliseconds).unwrap());
        println!("{name}: seen after {:.1?}", began.elapsed());
        writeln!(
            rows,
            "| {name} | {:.0} s | {:.1} s | {share:.1} % | {} ± {} MB |",
            Duration::from_millis(report.took_milliseconds).as_secs_f64(),
            commands.as_secs_f64(),
            report.bytes / 1_000_000,
            report.bytes_error.div_ceil(1_000_000),
        )
        .unwrap();
    }
    let table = format!(
        "| engine | a pass over 1,000,000 keys | the server's commands for it | share of its time | their bytes, as told |\n\
         |---|---|---|---|---|\n{rows}"
    );
    println!("{table}");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    std::fs::write(PAGE, format!("{head}{BEGIN}\n\n{table}\n{END}{tail}")).unwrap();
}
