//! The programs of `docs/uses/rate-limits.md`, each with its stock client: what they tell a caller, that they call nobody while a denial
//! holds, and what they do when the layer does not answer in time.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::UseKind;
use redoubt::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};
use redoubt::redis::users;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::bound_layer::{BoundLayer, PREFIX, STORE_USER, built_example, connect, installed, python};
use crate::support::engine_process::{Engine, engines};

/// No program takes longer for anything.
const SOON: Duration = Duration::from_mins(1);
/// The deadline where it has to hold, and how much later an answer may be on a machine that others use too.
const DEADLINE: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_millis(400);
/// Milliseconds of the short limit, no whole number of seconds.
const SHORT: u64 = 2_500;

fn policy() -> LimitPolicy {
    let limit = |name: &str, quota, window_milliseconds| Limit {
        name: name.to_owned(),
        algorithm: Algorithm::FixedWindowFromFirstHit,
        quota,
        window_milliseconds,
        mode: LimitMode::Enforce,
    };
    let draft = LimitPolicyDraft {
        policy: "shop/api".to_owned(),
        generation: 1,
        prefix: PREFIX.to_owned(),
        mode: LimitMode::Enforce,
        count_denied: false,
        shards: 1,
        limits: vec![limit("short", 3, SHORT), limit("minute", 1_000, 60_000)],
    };
    LimitPolicy::parse(draft).unwrap()
}

async fn layer(engine: &Engine) -> BoundLayer {
    let layer = BoundLayer::start_for(engine, UseKind::RateLimitPolicy, PREFIX, false).await;
    let operator = connect(&layer.primary, users::OPERATOR).await;
    load(&operator, &limit_library(&[policy()])).await.unwrap();
    let limits = json!([
        {"name": "short", "quota": 3, "windowMilliseconds": SHORT},
        {"name": "minute", "quota": 1_000, "windowMilliseconds": 60_000},
    ]);
    fs::write(layer.binding("limits").join("limits"), limits.to_string()).unwrap();
    layer
}

/// Each language's program.
struct Programs {
    node: PathBuf,
    python: PathBuf,
    go: PathBuf,
    rust: PathBuf,
}

impl Programs {
    async fn built() -> Self {
        Self {
            node: installed("node").await,
            python: installed("python").await,
            go: installed("go").await,
            rust: built_example("limit", "examples/clients/rust/limit.rs").await,
        }
    }

    fn all(&self) -> [(&'static str, Command); 4] {
        let mut node = Command::new("node");
        // Its standard input is for subjects.
        let source = fs::read_to_string("examples/clients/node/limit.mjs").unwrap();
        node.args(["--input-type=module", "--eval", &source]).current_dir(&self.node);
        [
            ("Python", python(&self.python, "examples/clients/python/limit.py")),
            ("Node", node),
            ("Go", Command::new(self.go.join("limit"))),
            ("Rust", Command::new(&self.rust)),
        ]
    }
}

/// A program that runs: it answers for each subject that it is told.
struct Running {
    name: String,
    _child: Child,
    subjects: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(name: String, mut program: Command, layer: &BoundLayer, deadline: Duration) -> Self {
        program.env("LIMIT_DEADLINE", deadline.as_secs_f64().to_string());
        program.env("SERVICE_BINDING_ROOT", layer.binding("limits").parent().unwrap());
        let mut child = program.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (subjects, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { name, _child: child, subjects, answers: BufReader::new(answers).lines() }
    }

    /// Whether a call of this subject is allowed, with the headers; and how long that took.
    async fn limit(&mut self, subject: &str) -> (Value, Duration) {
        let began = Instant::now();
        self.subjects.write_all(format!("{subject}\n").as_bytes()).await.unwrap();
        self.subjects.flush().await.unwrap();
        let line = timeout(SOON, self.answers.next_line()).await.unwrap_or_else(|_| panic!("{}: no answer", self.name));
        let line = line.unwrap().unwrap_or_else(|| panic!("{} ended", self.name));
        (serde_json::from_str(&line).unwrap(), began.elapsed())
    }
}

/// `FCALL`s that the server was sent.
async fn calls(layer: &BoundLayer) -> u64 {
    let text: String = layer.observer.query(cmd("INFO").arg("commandstats")).await.unwrap();
    let stats = text.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
    stats.map_or(0, |stats| stats.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn the_examples_tell_the_limits_and_ask_no_server_while_a_denial_holds() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine).await;
        for (language, program) in programs.all() {
            let name = format!("{} {language}", engine.name);
            // On a busy machine a call takes longer than the deadline of the example.
            let mut program = Running::start(name.clone(), program, &layer, SOON);
            let (subject, before) = (format!("ada-{language}"), calls(&layer).await);
            for left in [2, 1, 0] {
                let (answer, _) = program.limit(&subject).await;
                assert_eq!(answer["allowed"], true, "{name}: {answer}");
                assert_eq!(answer["RateLimit-Policy"], r#""short";q=3, "minute";q=1000;w=60"#, "{name}");
                let deciding = answer["RateLimit"].as_str().unwrap();
                let expected = [1, 2, 3].map(|seconds| format!("\"short\";r={left};t={seconds}"));
                assert!(expected.contains(&deciding.to_owned()), "{name}: {deciding}");
                assert_eq!(answer.get("Retry-After"), None, "{name}");
            }
            let (denial, _) = program.limit(&subject).await;
            assert_eq!(denial["allowed"], false, "{name}: {denial}");
            let seconds: u64 = denial["Retry-After"].as_str().unwrap().parse().unwrap();
            assert!((1..=3).contains(&seconds), "{name}: {denial}");
            assert_eq!(calls(&layer).await - before, 4, "{name}");
            // It is told until the denial ends, and then the first call that a server sees is allowed.
            let mut remembered = 0;
            let last = loop {
                let (answer, _) = program.limit(&subject).await;
                if answer["allowed"] == true {
                    break answer;
                }
                assert_eq!(answer, denial, "{name}");
                remembered += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert!(remembered > 5, "{name}: {remembered}");
            assert_eq!(calls(&layer).await - before, 5, "{name}: a server was asked while the denial held");
            assert!(last["RateLimit"].as_str().unwrap().starts_with("\"short\";r=2;"), "{name}: {last}");
        }
        let keys = layer.keys().await;
        assert!(keys.iter().all(|key| key.starts_with(PREFIX)), "{keys:?}");
    }
}

#[tokio::test]
async fn the_examples_obey_on_store_error_when_the_layer_is_slow() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine).await;
        for (setting, allows) in [("Allow", true), ("Deny", false)] {
            fs::write(layer.binding("limits").join("on-store-error"), setting).unwrap();
            for (language, program) in programs.all() {
                let name = format!("{} {language} {setting}", engine.name);
                let mut program = Running::start(name.clone(), program, &layer, DEADLINE);
                answers(&mut program, &format!("first-{name}")).await;
                // It stands still.
                layer.freeze(true);
                falls_back(&mut program, &format!("frozen-{name}"), allows).await;
                falls_back(&mut program, &format!("again-{name}"), allows).await;
                layer.freeze(false);
                answers(&mut program, &format!("back-{name}")).await;
                // It answers each step of a new connection in time, and several of them together not.
                let mut kill = cmd("CLIENT");
                kill.arg("KILL").arg("USER").arg(STORE_USER);
                layer.observer.query::<redis::Value>(&kill).await.unwrap();
                let crawl = layer.crawl(DEADLINE * 3 / 5);
                in_time(&mut program, &format!("crawling-{name}"), allows).await;
                drop(crawl);
                answers(&mut program, &format!("at-last-{name}")).await;
            }
        }
    }
}

/// Whether the program hears of the layer: not at the first try on a machine that others use too.
async fn answers(program: &mut Running, subject: &str) {
    let began = Instant::now();
    // Each a subject of its own: none comes near its limit.
    for call in 0.. {
        let (answer, _) = program.limit(&format!("{subject}-{call}")).await;
        if answer.get("RateLimit").is_some() {
            assert_eq!(answer["allowed"], true, "{}", program.name);
            return;
        }
        assert!(began.elapsed() < SOON, "{}: {answer}", program.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The layer or the setting decides, and no later than the deadline says.
async fn in_time(program: &mut Running, subject: &str, allows: bool) {
    let (answer, took) = program.limit(subject).await;
    assert!(answer.get("RateLimit").is_some() || answer == json!({"allowed": allows}), "{}: {answer}", program.name);
    assert!(took < DEADLINE + SLACK, "{}: {took:?}", program.name);
}

/// The setting decides, and no later than the deadline says.
async fn falls_back(program: &mut Running, subject: &str, allows: bool) {
    let (answer, took) = program.limit(subject).await;
    assert_eq!(answer, json!({"allowed": allows}), "{} after {took:?}", program.name);
    assert!(took < DEADLINE + SLACK, "{}: {took:?}", program.name);
}
