//! The programs of `docs/uses/rate-limits.md`, as processes that are told subjects.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::bound_layer::{BoundLayer, built_example, installed, python};

/// No program takes longer for anything.
pub const SOON: Duration = Duration::from_mins(1);

/// Each language's program.
pub struct Programs {
    node: PathBuf,
    python: PathBuf,
    go: PathBuf,
    rust: PathBuf,
}

impl Programs {
    /// Builds them, where they are not built.
    pub async fn built() -> Self {
        Self {
            node: installed("node").await,
            python: installed("python").await,
            go: installed("go").await,
            rust: built_example("limit", "examples/clients/rust/limit.rs").await,
        }
    }

    /// Each with its language.
    pub fn all(&self) -> [(&'static str, Command); 4] {
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

/// A program that runs: it answers for each cost and subject that it is told.
pub struct Running {
    pub name: String,
    _child: Child,
    subjects: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts it with a deadline.
    pub fn start(name: String, mut program: Command, layer: &BoundLayer, deadline: Duration) -> Self {
        program.env("LIMIT_DEADLINE", deadline.as_secs_f64().to_string());
        Self::start_as_it_is(name, program, layer)
    }

    /// With the deadline that the example has.
    pub fn start_as_it_is(name: String, mut program: Command, layer: &BoundLayer) -> Self {
        program.env("SERVICE_BINDING_ROOT", layer.binding("limits").parent().unwrap());
        let mut child = program.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (subjects, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { name, _child: child, subjects, answers: BufReader::new(answers).lines() }
    }

    /// Whether a call of cost 1 of this subject is allowed, with the headers; and how long that took.
    pub async fn limit(&mut self, subject: &str) -> (Value, Duration) {
        self.limit_of(1, subject).await
    }

    /// The same for a call of this cost.
    pub async fn limit_of(&mut self, cost: u64, subject: &str) -> (Value, Duration) {
        let began = Instant::now();
        self.subjects.write_all(format!("{cost} {subject}\n").as_bytes()).await.unwrap();
        self.subjects.flush().await.unwrap();
        let line = timeout(SOON, self.answers.next_line()).await.unwrap_or_else(|_| panic!("{}: no answer", self.name));
        let line = line.unwrap().unwrap_or_else(|| panic!("{} ended", self.name));
        (serde_json::from_str(&line).unwrap(), began.elapsed())
    }
}
