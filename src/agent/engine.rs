//! The server process: which program, how it is started, how it ended.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::stderr_tail::StderrTail;

/// Programs that are an engine, in the order in which they are looked for.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];

/// What is wrong with the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image holds none.
    #[error("this image is neither Redis nor Valkey: no {} in {searched}", PROGRAMS.join(" or "))]
    NotFound {
        /// The folders that were looked in.
        searched: String,
    },
    /// It cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// Path of `redis-server` or `valkey-server`.
        program: String,
        /// What the kernel answered.
        #[source]
        source: std::io::Error,
    },
    /// It ends before it answers, again and again.
    #[error("{program} ended {times} times before it answered ({status}){said}")]
    EndsAtOnce {
        /// Path of `redis-server` or `valkey-server`.
        program: String,
        /// Starts in a row that ended before the engine served.
        times: u32,
        /// How it ended last.
        status: String,
        /// Its last output on standard error, or where it is.
        said: String,
    },
}

/// An engine that ends this often before it says a word has a configuration or an image that will not get better: the pod
/// shows it (`CrashLoopBackOff`). Some 15 s, in which a port that was still bound is free again.
const MAX_FAILED_STARTS: u32 = 6;
/// The first pause before a start; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest: what keeps an engine from loading (want of memory, a full disk) may end at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An engine that served for less than this and ended again did not end by chance.
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// How far an engine came before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartupProgress {
    /// It never answered, or could not be started.
    Nothing,
    /// It answered, but never had its dataset.
    Loading,
    Serving,
}

impl StartupProgress {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Loading => "loading",
            Self::Serving => "serving",
        }
    }
}

/// Starts in a row that came to nothing.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// Ends in a row before it served, or soon after.
    unserved: u32,
    unanswered: u32,
    was_short: bool,
}

impl Restarts {
    /// Counts an end after a life of `lived`. How long to wait before the next start; `None`: there is no hope.
    pub(crate) fn pause_after(&mut self, reached: StartupProgress, lived: Duration) -> Option<Duration> {
        match reached {
            // The first death after a short life may be chance, and the node that is to take over waits for this one.
            StartupProgress::Serving if lived < SHORT_LIFE && self.was_short => {
                (self.unserved, self.unanswered) = (self.unserved + 1, 0);
            }
            StartupProgress::Serving => *self = Self { was_short: lived < SHORT_LIFE, ..Self::default() },
            StartupProgress::Loading => (self.unserved, self.unanswered) = (self.unserved + 1, 0),
            StartupProgress::Nothing => (self.unserved, self.unanswered) = (self.unserved + 1, self.unanswered + 1),
        }
        if self.unanswered >= MAX_FAILED_STARTS {
            return None;
        }
        Some(match self.unserved {
            // It served: the node that is to take over waits for this one to follow.
            0 => Duration::ZERO,
            count => FIRST_PAUSE.saturating_mul(1 << (count - 1).min(10)).min(LONGEST_PAUSE),
        })
    }

    /// The error of an engine that ended too often before it answered.
    pub(crate) fn ends_at_once(&self, program: &Path, status: String, said: &str) -> Error {
        let said =
            if said.is_empty() { "; its last output is in the log of its pod".to_owned() } else { format!(": {said}") };
        Error::EndsAtOnce { program: program.display().to_string(), times: self.unanswered, status, said }
    }
}

/// Finds the engine's program.
pub(crate) fn find() -> Result<PathBuf, Error> {
    let searched = env::var("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        env::split_paths(&searched).chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from)).collect();
    PROGRAMS
        .iter()
        .flat_map(|program| folders.iter().map(move |folder| folder.join(program)))
        .find(|path| path.is_file())
        .ok_or(Error::NotFound { searched })
}

/// Starts it with a configuration file. Its log goes to standard output, ours to standard error. What it says on standard error, which
/// is why it does not take its configuration, is passed on and kept in `stderr_tail`.
pub(super) fn start(
    program: &Path,
    configuration: &Path,
    as_sentinel: bool,
    stderr_tail: &StderrTail,
) -> Result<Child, Error> {
    let mut command = Command::new(program);
    command.arg(configuration);
    if as_sentinel {
        command.arg("--sentinel");
    }
    // If the agent is killed, its container ends and with it the engine; on a developer's machine this does it.
    command.kill_on_drop(true);
    command.stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|source| Error::Start { program: program.display().to_string(), source })?;
    stderr_tail.listen(child.stderr.take());
    Ok(child)
}

/// Orders a server or Sentinel to write what it has to and end. A server refuses while it writes its first append-only file of what its
/// primary sent ("Writing initial AOF, can't exit"), and forgets the order.
pub(super) fn order_to_end(engine: &Child) {
    if let Some(pid) = engine.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
        // SIGTERM is Redis' own clean shutdown (documentation, "Redis signals handling").
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            tracing::warn!(%error, "cannot send SIGTERM to the engine");
        }
    }
}

/// Reaps what an ended engine left to us, the first process: a child that was saving, for example.
pub(crate) fn reap_orphans(engine: Option<u32>) {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let Ok(children) = std::fs::read_to_string("/proc/self/task/self/children")
        .or_else(|_| std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())))
    else {
        return;
    };
    let pids = children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
    for pid in pids.filter(|pid| u32::try_from(*pid).ok() != engine) {
        // Still running: nothing happens. Already gone: neither.
        let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_there_is_no_hope_and_a_loading_engine_always_has_some() {
        let mut restarts = Restarts::default();
        let (soon, late) = (Duration::from_secs(1), Duration::from_mins(1));
        let pauses: Vec<_> = (0..6).map(|_| restarts.pause_after(StartupProgress::Nothing, soon)).collect();
        let milliseconds = |pause: &Option<Duration>| pause.map(|pause| pause.as_millis());
        assert_eq!(
            pauses.iter().map(milliseconds).collect::<Vec<_>>(),
            [Some(500), Some(1_000), Some(2_000), Some(4_000), Some(8_000), None]
        );
        let mut restarts = Restarts::default();
        for _ in 0..100 {
            assert!(restarts.pause_after(StartupProgress::Loading, late).is_some_and(|pause| pause <= LONGEST_PAUSE));
        }
        assert_eq!(restarts.pause_after(StartupProgress::Loading, late), Some(LONGEST_PAUSE));
        assert_eq!(restarts.pause_after(StartupProgress::Serving, late), Some(Duration::ZERO));
        assert_eq!(restarts.pause_after(StartupProgress::Nothing, soon), Some(FIRST_PAUSE));
    }

    #[test]
    fn an_engine_that_dies_soon_after_it_serves_is_started_at_once_and_then_less_and_less_often() {
        let mut restarts = Restarts::default();
        let (soon, late) = (Duration::from_secs(1), Duration::from_mins(1));
        let pauses: Vec<_> = (0..4).filter_map(|_| restarts.pause_after(StartupProgress::Serving, soon)).collect();
        assert_eq!(pauses, [Duration::ZERO, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]);
        assert_eq!(restarts.pause_after(StartupProgress::Serving, late), Some(Duration::ZERO));
        assert_eq!(restarts.pause_after(StartupProgress::Serving, soon), Some(Duration::ZERO), "a long life forgives");
    }
}
