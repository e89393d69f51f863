//! The audit of a layer's keys: agents with real engines on loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Cmd, cmd};
use redoubt::model::NodeId;
use redoubt::model::audit::{
    AuditMode, AuditReport, DeclaredPrefix, DeclaredPrefixes, LONGEST_COMMAND, PREFIXES_FORMAT, short_hash,
};
use redoubt::model::desired::DesiredUser;
use redoubt::redis::users::{self, let_agents_repair};
use redoubt::redis::{Connection, server};

use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};
use crate::support::slow_log::{Call, SlowLog, dearest_writes, median, put_first};

/// A pass over 100,000 keys on a busy machine, and the rest before it.
pub const A_PASS: Duration = Duration::from_mins(10);
pub const HOUR: u64 = 3_600_000;
/// Commands that a log keeps.
const MOST_CALLS: usize = 200_000;
/// Keys under `web:` that expire.
const MANY: usize = 100_000;

pub fn declared(mode: AuditMode, prefixes: &[(&str, Option<u64>)]) -> DeclaredPrefixes {
    let prefix = |(prefix, lifetime_milliseconds): &(&str, Option<u64>)| DeclaredPrefix {
        prefix: (*prefix).to_owned(),
        lifetime_milliseconds: *lifetime_milliseconds,
        ..DeclaredPrefix::default()
    };
    DeclaredPrefixes { format: PREFIXES_FORMAT, mode, prefixes: prefixes.iter().map(prefix).collect() }
}

fn hash_of(declared: &DeclaredPrefixes) -> String {
    short_hash(serde_json::to_string(declared).unwrap().as_bytes())
}

pub async fn application(layer: &Layer) -> Connection {
    let primary = layer.primary().await.unwrap();
    Connection::open(&layer.endpoint(primary)).await.unwrap().with_response_timeout(SOON)
}

pub async fn send(connection: &Connection, commands: &[Cmd]) {
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
pub async fn reported(
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
/// It takes `share` percent of the server's time at most. `is_first`: the server had the machine to itself, so its dearest writes, which
/// are printed, say something.
pub fn no_write_asks_for_much(calls: &[Call], is_first: bool, share: u64) {
    let auditor = &calls.iter().rfind(|call| call.is("SCAN")).expect("an auditor was logged").client;
    let own: Vec<&Call> = calls.iter().filter(|call| call.client == *auditor).collect();
    let writes: Vec<&[&Call]> = own.split(|call| call.is("TIME")).filter(|write| !write.is_empty()).collect();
    assert!(writes.len() > 20, "{}", writes.len());
    for write in writes {
        let is_alone = ["SCAN", "UNLINK"].iter().any(|name| write.iter().any(|call| call.is(name)));
        let keys = match write[0].after("COUNT") {
            Some(count) => count.parse().unwrap(),
            None if write[0].is("UNLINK") => write[0].length - 1,
            None => write.len(),
        };
        assert!(keys <= 512 && (write.len() == 1 || !is_alone), "{keys}: {write:?}");
    }
    let dearest = dearest_writes(own.iter().copied());
    println!("the dearest writes in µs, with the machine to itself: {is_first}: {dearest:?}");
    for (name, together) in [("SCAN", 1), ("PTTL", 512), ("MEMORY", 512), ("PEXPIRE", 512), ("UNLINK", 1)] {
        let (half, count) =
            (median(own.iter().filter(|it| it.is(name)).copied()), own.iter().filter(|it| it.is(name)).count());
        println!("{name}: {count} calls, median {half} µs");
        let pause = Duration::from_micros(half) * together;
        assert!(pause < LONGEST_COMMAND, "{name}: {together} in one write take {pause:?}");
    }
    let busy = Duration::from_micros(own.iter().map(|call| call.microseconds).sum());
    let took = Duration::from_secs(own[own.len() - 1].at - own[0].at + 1);
    println!("busy {busy:.1?} in {took:.1?}");
    assert!(busy.as_micros() * 100 <= took.as_micros() * u128::from(share), "{busy:?} of {took:?}");
}

/// Begins a log of each node, and lets the servers run before all else of the machine, or says that they may not.
pub async fn logged(layer: &Layer) -> (BTreeMap<NodeId, SlowLog>, bool) {
    let (mut logs, mut is_first) = (BTreeMap::new(), true);
    for id in layer.data_ids() {
        is_first &= put_first(&layer.engine_pids(id));
        logs.insert(id, SlowLog::begin(layer, id, MOST_CALLS).await);
    }
    (logs, is_first)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_all_kinds_are_audited_on_a_replica_and_only_declared_ones_are_repaired() {
    for engine in engines() {
        println!("{}", engine.name);
        let layer = Layer::in_sync(&Options { engine: Some(engine), ..Options::default() }).await;
        let primary = layer.primary().await.unwrap();
        let connection = application(&layer).await;
        fill(&connection).await;
        let (logs, is_first) = logged(&layer).await;
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
        no_write_asks_for_much(&logs[&auditor].calls().await, is_first, 5);
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
    let layer = Layer::in_sync(&Options::default()).await;
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
    layer.wait_until_in_sync().await;
    let (id, report) = reported("it is whole again", &layer, &list, |_| true).await;
    assert_ne!(Some(id), layer.primary().await, "a replica does it");
    assert_eq!((report.keys, report.without_expiry, report.outside), (MANY as u64 + 11, 9, 3));
}

/// A layer of one node: its primary is audited, in a smaller share of its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_a_replica_is_audited_itself() {
    let options = Options { data_nodes: 1, sentinels: 1, min_replicas: 0, ..Options::default() };
    let layer = Layer::in_sync(&options).await;
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
