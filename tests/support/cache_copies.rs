//! A process that keeps copies of entries by the documented example, and says what it has: `tests/clients/python/cache_copies.py`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What is copied.
pub const KEY: &str = "web:{0}product 42";
/// How often the example asks for the position: so long a lost message stays unnoticed.
pub const ASKS_EVERY: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);

/// The process. It ends when dropped, if the command says so.
pub struct Copies {
    _child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Copies {
    /// Starts it.
    pub fn start(mut program: Command) -> Self {
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, input, answers: BufReader::new(output).lines() }
    }

    /// Its answer to a line.
    pub async fn ask(&mut self, line: &str) -> String {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(SOON, self.answers.next_line()).await;
        answer.expect("it answers").unwrap().expect("it goes on")
    }

    /// Whether it has a copy.
    pub async fn is_copied(&mut self) -> bool {
        self.ask(&format!("copied {KEY}")).await == "yes"
    }

    /// What it reads.
    pub async fn read(&mut self) -> String {
        self.ask(&format!("read {KEY}")).await
    }

    /// Reads until it keeps a copy, and answers what it read last.
    pub async fn read_until_copied(&mut self) -> String {
        let began = Instant::now();
        loop {
            let value = self.read().await;
            if self.is_copied().await {
                return value;
            }
            assert!(began.elapsed() < SOON, "it keeps no copy");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
