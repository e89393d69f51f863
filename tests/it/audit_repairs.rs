//! What the agent of a primary does about keys that an audit found: it gives them an expiry, or removes them. Agents with real engines.

use std::collections::BTreeMap;

use redis::cmd;
use redoubt::model::audit::{AuditMode, MemoryBudget};
use redoubt::redis::users::let_agents_repair;
use redoubt::redis::{Connection, server};

use crate::agent_prefix_jobs::{declare, give_agents};
use crate::audit::{A_PASS, HOUR, application, declared, logged, no_write_asks_for_much, reported, send};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// Percent of its time that a primary gives to repairs and to what shrinks a cache: 2, and what a busy machine adds.
const MOST_OF_PRIMARY: u64 = 5;

/// Keys without an expiry, of which the primary has repaired some when it dies.
const FORGOTTEN: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_primary_repairs_what_the_one_before_left_and_no_value_is_lost() {
    for engine in engines() {
        println!("{}", engine.name);
        let layer = Layer::in_sync(&Options { engine: Some(engine), ..Options::default() }).await;
        let connection = application(&layer).await;
        let script = "for i = ARGV[2], ARGV[3] do redis.call('SET', ARGV[1] .. i, i) end";
        for first in (0..FORGOTTEN).step_by(10_000) {
            let fill = cmd("EVAL").arg(script).arg(0).arg("web:").arg(first).arg(first + 9_999).clone();
            connection.query::<()>(&fill).await.unwrap();
        }
        let fill = cmd("EVAL").arg(script).arg(0).arg("of-nobody").arg(0).arg(99).clone();
        connection.query::<()>(&fill).await.unwrap();
        give_agents(&layer, let_agents_repair).await;
        let (logs, is_first) = logged(&layer).await;
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
        layer.wait_until_in_sync().await;
        let next = layer.primary().await.unwrap();
        let operator = Connection::open(&layer.operator_on(next)).await.unwrap();
        eventually("the next primary has repaired the rest", A_PASS, async || {
            let info = server::info(&operator).await.unwrap();
            info.databases().next().is_some_and(|database| database.expiring == FORGOTTEN as u64)
        })
        .await;
        no_write_asks_for_much(&logs[&next].calls().await, is_first, MOST_OF_PRIMARY);
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

/// Whether the alert of caches above their budget has a reason to fire in what an agent tells of this prefix: all that it compares has the
/// same labels.
fn is_alarming(metrics: &str, prefix: &str) -> bool {
    let alerts = std::fs::read_to_string("charts/redoubt/files/alerts.yaml").unwrap();
    let rule = alerts.split("- alert: RedoubtCacheAboveBudget").nth(1).unwrap();
    let expression = rule.split("expr: ").nth(1).unwrap().lines().next().unwrap();
    let words: Vec<&str> = expression.split(' ').collect();
    let [bytes, "-", error, ">", budget] = words[..] else { panic!("{expression}") };
    let value = |metric: &str| -> f64 {
        let series = format!("{metric}{{prefix=\"{prefix}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&series));
        found.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
    };
    value(bytes) - value(error) > value(budget)
}

/// Entries of a cache above its budget: half of them end in an hour, half in ten.
const ENTRIES: usize = 8_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_above_its_budget_loses_what_ends_soonest_and_nothing_of_others() {
    for engine in engines() {
        println!("{}", engine.name);
        let layer = Layer::in_sync(&Options { engine: Some(engine), ..Options::default() }).await;
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

        assert!(is_alarming(&text, "web:"), "{text}");
        let (logs, is_first) = logged(&layer).await;
        let goal = full.bytes * 3 / 4;
        let after = budget(goal, true);
        layer.declare(&after);
        let (auditor, report) = reported("it is within its budget", &layer, &after, |report| {
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
        assert!(!is_alarming(&layer.metrics(auditor).await.unwrap(), "web:"));
        let primary = layer.primary().await.unwrap();
        let calls = logs[&primary].calls().await;
        assert!(calls.iter().any(|call| call.is("UNLINK")), "{} calls", calls.len());
        no_write_asks_for_much(&calls, is_first, MOST_OF_PRIMARY);
        let shrunk = ENTRIES - soon - late;
        let text = layer.metrics(primary).await.unwrap();
        assert!(text.contains(&format!("redoubt_audit_shrunk_keys_total {shrunk}")), "{shrunk}: {text}");
    }
}
