//! What an audit of many keys costs: `make bench` writes it into the page.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use redis::cmd;
use redoubt::model::audit::AuditMode;
use redoubt::redis::{Connection, server};

use crate::audit::{HOUR, application, declared, reported};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

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
            Layer::in_sync(&Options { engine: Some(engine), keeps_data: false, settings, ..Options::default() }).await;
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
        "| engine | a pass over 1,000,000 keys | the server's commands for it | share of its time | their bytes, as reported |\n\
         |---|---|---|---|---|\n{rows}"
    );
    println!("{table}");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    std::fs::write(PAGE, format!("{head}{BEGIN}\n\n{table}\n{END}{tail}")).unwrap();
}
