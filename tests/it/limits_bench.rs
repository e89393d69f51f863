//! What a decision costs beside `INCR`, beside the leanest script that does the same, and beside stock libraries on the same server;
//! what a library of 10,000 policies and a key cost. Writes the tables of `docs/uses/rate-limits.md`.

use std::fmt::Write as _;
use std::fs;

use redis::cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::UseKind;
use redoubt::model::limit_policy::{Algorithm, LimitPolicy};
use redoubt::redis::{Connection, users};
use tokio::process::Command;

use crate::limits_cost::many;
use crate::sessions_cost::put;
use crate::support::bound_layer::{BoundLayer, connect, installed, node, python};
use crate::support::engine_process::{Engine, PORT, Process, engines};
use crate::support::figures::server_micros;
use crate::support::limit_calls::{
    MINUTE, admit, algorithms, limit, limit_call, one_of_each, policy, server_with, single,
};

const PAGE: &str = "docs/uses/rate-limits.md";
/// GCRA by hand, as lean as it gets: parameters from the caller, and no more in the reply than a client needs.
const LEAN: &str = "local time = redis.call('TIME') \
    local now, interval, most, cost = time[1] * 1000000 + time[2], ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0 \
    local tat = redis.call('GET', KEYS[1]) \
    tat = tat and tat + 0 or now \
    if tat < now then tat = now end \
    local used = tat - now + cost * interval \
    if used > most then \
      return {0, 100, math.floor((most - tat + now) / interval), math.ceil((tat - now) / 1000), math.ceil((used - most) / 1000)} \
    end \
    local ms = math.ceil(used / 1000) \
    redis.call('SET', KEYS[1], now + used, 'PX', ms) \
    return {1, 100, math.floor((most - used) / interval), ms, 0}";
/// Subjects among which calls are spread.
const SUBJECTS: u64 = 5_000;
/// How often each way is measured, all ways in turn: what else the machine does falls on all alike.
const ROUNDS: usize = 3;
/// Connections, calls of one that are under way at a time, and calls in all.
const SHAPES: [(u32, u32, u32); 4] = [(1, 1, 10_000), (50, 1, 40_000), (1, 16, 60_000), (50, 16, 80_000)];
/// Commands whose server time counts; what a function or script runs is in its own.
const COUNTED: [&str; 5] = ["fcall", "fcall_ro", "eval", "evalsha", "incr"];

/// What is measured: how it is called, and the command, in which `KEY` stands for a subject.
struct Way {
    name: &'static str,
    command: Vec<String>,
}

fn way(name: &'static str, command: &str) -> Way {
    Way { name, command: command.split(' ').map(|word| word.replace("KEY", "{__rand_int__}")).collect() }
}

/// The commands that are measured. The first is what calls per second are compared with, the second what server time is.
fn ways(script: &str) -> Vec<Way> {
    vec![
        way("`INCR`", "INCR x:KEY"),
        way("lean GCRA script", &format!("EVALSHA {script} 1 lean:KEY 360000 3600000000 1")),
        way("`GCRA`", "FCALL redoubt_limit 1 g:KEY"),
        way("`TokenBucket`", "FCALL redoubt_limit 1 b:KEY"),
        way("`LeakyBucket`, `Meter`", "FCALL redoubt_limit 1 m:KEY"),
        way("`LeakyBucket`, `Shaper`", "FCALL redoubt_limit 1 s:KEY"),
        way("`FixedWindow`, `Clock`", "FCALL redoubt_limit 1 f:KEY"),
        way("`FixedWindow`, `FirstHit`", "FCALL redoubt_limit 1 h:KEY"),
        way("`SlidingCounter`", "FCALL redoubt_limit 1 c:KEY"),
        way("`SlidingLog`", "FCALL redoubt_limit 1 l:KEY"),
        way("three `GCRA` in one call", "FCALL redoubt_limit 1 three:KEY"),
        way("`GCRA`, denied", "FCALL redoubt_limit 1 denied:KEY"),
        way("`GCRA`, peek", "FCALL_RO redoubt_limit_peek 1 g:KEY"),
    ]
}

/// Calls per second, and microseconds of the server for each.
#[derive(Clone, Copy, Debug)]
struct Figure {
    rate: f64,
    micros: f64,
}

/// The one in the middle.
fn median(mut figures: Vec<Figure>) -> Figure {
    let mut micros: Vec<f64> = figures.iter().map(|figure| figure.micros).collect();
    micros.sort_by(f64::total_cmp);
    figures.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    Figure { rate: figures[figures.len() / 2].rate, micros: micros[micros.len() / 2] }
}

async fn counted_micros(admin: &Connection, further: &[&str]) -> f64 {
    let mut sum = 0;
    for name in COUNTED.iter().chain(further) {
        sum += server_micros(admin, Some(name)).await;
    }
    f64::from(u32::try_from(sum).unwrap())
}

/// Runs `redis-benchmark`, a client in C, which is the same for all ways.
async fn benchmark(
    process: &Process,
    admin: &Connection,
    (connections, depth, calls): (u32, u32, u32),
    way: &Way,
) -> Figure {
    admin.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &process.address, "-p", &PORT.to_string(), "--csv", "-r", &SUBJECTS.to_string()]);
    command
        .args(["-c", &connections.to_string(), "-P", &depth.to_string(), "-n", &calls.to_string()])
        .args(&way.command);
    let output = command.output().await.expect("redis-benchmark, of Debian's redis-tools");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The command, quoted, then calls per second and times.
    let rate = text.lines().last().and_then(|line| line.split("\",\"").nth(1)?.parse().ok());
    let rate = rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    Figure { rate, micros: counted_micros(admin, &[]).await / f64::from(calls) }
}

/// Quotas that no run uses up, but the log's, which has at most 10,000 entries; and one that the first call uses up.
fn policies() -> Vec<LimitPolicy> {
    let mut policies = one_of_each(10_000, 60 * MINUTE);
    let three = ["a", "b", "c"].map(|name| limit(name, Algorithm::Gcra { burst: 10_000 }, 10_000, 60 * MINUTE));
    policies.push(policy("three", three.to_vec()));
    policies.push(policy("denied", vec![limit("only", Algorithm::Gcra { burst: 1 }, 1, 24 * 60 * MINUTE)]));
    policies
}

/// Each way in each shape: rows of ways, columns of shapes.
async fn decisions(process: &Process, connection: &Connection) -> Vec<(&'static str, Vec<Figure>)> {
    let script: String = connection.query(cmd("SCRIPT").arg("LOAD").arg(LEAN)).await.unwrap();
    let ways = ways(&script);
    let mut rows: Vec<(&'static str, Vec<Figure>)> = ways.iter().map(|way| (way.name, Vec::new())).collect();
    for shape in SHAPES {
        let mut runs: Vec<Vec<Figure>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (way, runs) in ways.iter().zip(&mut runs) {
                runs.push(benchmark(process, connection, shape, way).await);
            }
        }
        rows.iter_mut().zip(runs).for_each(|((_, row), runs)| row.push(median(runs)));
    }
    rows
}

fn table_of_decisions(engine: &Engine, rows: &[(&'static str, Vec<Figure>)]) -> String {
    let (incr, lean) = (&rows[0].1, &rows[1].1);
    let mut text = format!(
        "| {} | server time | 1 connection | 50 connections | 1, 16 calls deep | 50, 16 calls deep |\n|---|---|---|---|---|---|\n",
        engine.name
    );
    for (name, row) in rows {
        let _ = write!(text, "| {name} | {:.1} µs, {:.2} × lean |", row[1].micros, row[1].micros / lean[1].micros);
        for (figure, of) in row.iter().zip(incr) {
            let _ = write!(text, " {:.1} k/s, {:.0} % |", figure.rate / 1e3, figure.rate / of.rate * 100.0);
        }
        text.push('\n');
    }
    text
}

/// Milliseconds that the server takes to load 10,000 policies, and what a decision costs among few and among all, with one in use.
async fn many_policies(process: &Process, connection: &Connection) -> (f64, f64, f64) {
    let few = policies();
    let all: Vec<LimitPolicy> = few.iter().cloned().chain(many()).collect();
    let gcra = way("", "FCALL redoubt_limit 1 g:KEY");
    let (mut loads, mut among_few, mut among_all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        load(connection, &limit_library(&few)).await.unwrap();
        among_few.push(benchmark(process, connection, SHAPES[1], &gcra).await);
        connection.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
        load(connection, &limit_library(&all)).await.unwrap();
        let micros = server_micros(connection, Some("function|load")).await;
        loads.push(f64::from(u32::try_from(micros).unwrap()) / 1e3);
        among_all.push(benchmark(process, connection, SHAPES[1], &gcra).await);
        assert_eq!(admit(connection, "p9999:api:{a}", &[]).await.allowed, 1);
    }
    loads.sort_by(f64::total_cmp);
    (loads[loads.len() / 2], median(among_few).micros, median(among_all).micros)
}

async fn used_memory(connection: &Connection) -> u64 {
    let text: String = connection.query(cmd("INFO").arg("memory")).await.unwrap();
    let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// Bytes of the server for one subject of 12 bytes, by what it called.
async fn bytes_of_a_subject(connection: &Connection) -> Vec<(&'static str, u64)> {
    let mut rows = Vec::new();
    for (name, prefix, arguments) in [
        ("`GCRA`, `TokenBucket`, `LeakyBucket`", "g", vec![]),
        ("`FixedWindow`, `Clock`", "f", vec![]),
        ("`FixedWindow`, `FirstHit`", "h", vec![]),
        ("`SlidingCounter`", "c", vec![]),
        ("`SlidingLog`, 1 entry", "l", vec![]),
        ("`SlidingLog`, 100 entries", "l", vec!["100"]),
        ("`SlidingLog`, 1,000 entries", "l", vec!["1000"]),
        ("`GCRA` and a remembered `ID` of 16 bytes", "g", vec!["1", "ID", "0123456789abcdef"]),
    ] {
        connection.query::<()>(cmd("FLUSHALL").arg("SYNC")).await.unwrap();
        let count: u64 = if arguments == ["1000"] { 1_000 } else { SUBJECTS };
        let before = used_memory(connection).await;
        for first in (0..count).step_by(500) {
            let calls: Vec<redis::Cmd> = (first..first + 500)
                .map(|number| limit_call(&format!("{prefix}:{{user{number:08}}}"), &arguments))
                .collect();
            for reply in connection.query_all(&calls).await.unwrap() {
                reply.unwrap();
            }
        }
        rows.push((name, (used_memory(connection).await - before) / count));
    }
    rows
}

/// The libraries, and beside each what does the same work here: program's argument, and words.
const PYTHON: [(&str, &str); 11] = [
    ("incr", "`INCR`"),
    ("fixed", "`limits`, fixed window"),
    ("fixed+stats", "… and its statistics"),
    ("redoubt-h", "`FixedWindow`, `FirstHit`"),
    ("moving", "`limits`, moving window"),
    ("moving+stats", "… and its statistics"),
    ("redoubt-l", "`SlidingLog`"),
    ("sliding", "`limits`, sliding window counter"),
    ("sliding+stats", "… and its statistics"),
    ("redoubt-c", "`SlidingCounter`"),
    ("redoubt-g", "`GCRA`"),
];
const NODE: [(&str, &str); 4] = [
    ("incr", "`INCR`"),
    ("flexible", "`rate-limiter-flexible`"),
    ("redoubt-h", "`FixedWindow`, `FirstHit`"),
    ("redoubt-g", "`GCRA`"),
];
const GO: [(&str, &str); 3] = [("incr", "`INCR`"), ("redis_rate", "`redis_rate`"), ("redoubt-g", "`GCRA`")];
/// A language, its ways, and its program.
type Program<'a> = (&'static str, &'a [(&'static str, &'static str)], Box<dyn Fn() -> Command + 'a>);
/// Connections of a library's program, and calls in all.
const LIBRARY_SHAPES: [(u32, u32); 2] = [(1, 4_000), (50, 10_000)];

/// Runs a program with a way, connections and calls; it prints its calls per second.
async fn library(layer: &BoundLayer, mut program: Command, way: &str, (connections, calls): (u32, u32)) -> Figure {
    layer.observer.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
    program.args(["direct", way, &connections.to_string(), &calls.to_string()]);
    let rate = layer.run(program).await[0].parse().unwrap();
    // The statistics of a fixed window are plain commands; elsewhere these run within a script.
    let further: &[&str] = if way == "fixed+stats" { &["get", "ttl"] } else { &[] };
    Figure { rate, micros: counted_micros(&layer.observer, further).await / f64::from(calls) }
}

/// What the libraries are told too.
fn library_policies() -> Vec<LimitPolicy> {
    let of = |algorithm: Algorithm| single(&format!("rate:{}", algorithm.letter()), algorithm, 10_000, 60 * MINUTE);
    algorithms(10_000).into_iter().map(of).collect()
}

async fn libraries(engine: &Engine) -> Vec<(&'static str, &'static str, Vec<Figure>)> {
    let (of_python, of_node, of_go) = (installed("python").await, installed("node").await, installed("go").await);
    // `redis_rate` has a prefix of its own; each program calls under its own subjects.
    let layer = BoundLayer::start_for(engine, UseKind::RateLimitPolicy, "rate:", true).await;
    let operator = connect(&layer.primary, users::OPERATOR).await;
    load(&operator, &limit_library(&library_policies())).await.unwrap();
    let mut rows = Vec::new();
    let programs: [Program<'_>; 3] = [
        ("Python", &PYTHON, Box::new(|| python(&of_python, "tests/clients/python/cost_of_limits.py"))),
        ("Node", &NODE, Box::new(|| node(&of_node, "tests/clients/node/cost-of-limits.mjs"))),
        ("Go", &GO, Box::new(|| Command::new(of_go.join("cost_of_limits")))),
    ];
    for (language, ways, program) in programs {
        let mut runs: Vec<Vec<Vec<Figure>>> = ways.iter().map(|_| vec![Vec::new(); LIBRARY_SHAPES.len()]).collect();
        for _ in 0..ROUNDS {
            for (at, shape) in LIBRARY_SHAPES.into_iter().enumerate() {
                for ((way, _), runs) in ways.iter().zip(&mut runs) {
                    runs[at].push(library(&layer, program(), way, shape).await);
                }
            }
        }
        rows.extend(
            ways.iter().zip(runs).map(|((_, words), runs)| (language, *words, runs.into_iter().map(median).collect())),
        );
    }
    rows
}

/// The mean load of the machine in the last minute, processes.
fn load_of_the_machine() -> String {
    fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: make bench"]
async fn limits_are_measured_and_written() {
    let (before, mut text) = (load_of_the_machine(), String::new());
    let (mut among, mut sizes, mut beside) = (String::new(), Vec::new(), Vec::new());
    for engine in engines() {
        let (process, connection) = server_with(&engine, &policies(), &[]).await;
        let rows = decisions(&process, &connection).await;
        text += &table_of_decisions(&engine, &rows);
        text.push('\n');
        // Before the large library: a server frees it in the background, and its bytes would be missing here.
        sizes.push(bytes_of_a_subject(&connection).await);
        let (loaded, few, all) = many_policies(&process, &connection).await;
        let dearer = all - few;
        let _ = writeln!(among, "| {} | {loaded:.1} ms | {few:.1} µs | {all:.1} µs | {dearer:+.1} µs |", engine.name);
        beside.push(libraries(&engine).await);
        println!("{text}\n{among}\n{sizes:?}\n{beside:?}");
    }
    let names: Vec<String> = engines().into_iter().map(|engine| engine.name).collect();
    let rule = |columns: usize| format!("|{}\n", "---|".repeat(columns));
    let mut bytes = format!("| bytes of a subject | {} |\n{}", names.join(" | "), rule(names.len() + 1));
    for (at, (name, _)) in sizes[0].iter().enumerate() {
        let row: Vec<String> = sizes.iter().map(|sizes| sizes[at].1.to_string()).collect();
        let _ = writeln!(bytes, "| {name} | {} |", row.join(" | "));
    }
    let mut libraries = format!("| client | what | {} |\n{}", names.join(" | "), rule(names.len() + 2));
    for (at, (language, words, _)) in beside[0].iter().enumerate() {
        let cell = |figures: &[Figure]| {
            format!("{:.1} µs; {:.1}, {:.1} k/s", figures[1].micros, figures[0].rate / 1e3, figures[1].rate / 1e3)
        };
        let row: Vec<String> = beside.iter().map(|rows| cell(&rows[at].2)).collect();
        let _ = writeln!(libraries, "| {language} | {words} | {} |", row.join(" | "));
    }
    let text = format!(
        "Written by `make bench`: {SUBJECTS} subjects, loopback, two cores that client and server share; load of the machine {before} before \
         and {} after. Client: `redis-benchmark`. The middle of {ROUNDS} runs, all ways in turn. Percent: calls per second against \
         `INCR` in the same shape. Server time: `INFO commandstats`, at 50 connections.\n\n{text}\
         Of libraries, with their own client each: server time; calls per second with 1 and with 50 connections. One decision is a \
         `hit`, `consume` or `Allow`; what `limits` needs for headers is a second call, its statistics.\n\n{libraries}\n\
         10,000 further policies in the library, one policy in use:\n\n\
         | | load | among ten policies | among 10,010 | |\n|---|---|---|---|---|\n{among}",
        load_of_the_machine(),
    );
    let page = fs::read_to_string(PAGE).unwrap();
    let page = put(&page, "<!-- decisions: written by `make bench` -->", "<!-- end of decisions -->", &text);
    fs::write(PAGE, put(&page, "<!-- bytes: written by `make bench` -->", "<!-- end of bytes -->", &bytes)).unwrap();
}
