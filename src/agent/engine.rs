//! The server process: which program, how it is started, how it ended.

use std::env;
use std::path::{Path, PathBuf};

use tokio::process::{Child, Command};

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
    #[error("starting {program}")]
    Start {
        /// The program.
        program: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// It ends before it answers, again and again.
    #[error("{program} ended {times} times before it answered; its last words are above ({status})")]
    EndsAtOnce {
        /// The program.
        program: String,
        /// How often.
        times: u32,
        /// How it ended last.
        status: String,
    },
}

/// Finds the engine's program.
pub fn find() -> Result<PathBuf, Error> {
    let searched = env::var("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        env::split_paths(&searched).chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from)).collect();
    PROGRAMS
        .iter()
        .flat_map(|program| folders.iter().map(move |folder| folder.join(program)))
        .find(|path| path.is_file())
        .ok_or(Error::NotFound { searched })
}

/// Starts it with a configuration file. Its log goes where ours goes: standard output.
pub fn start(program: &Path, configuration: &Path, as_sentinel: bool) -> Result<Child, Error> {
    let mut command = Command::new(program);
    command.arg(configuration);
    if as_sentinel {
        command.arg("--sentinel");
    }
    // If the agent is killed, its container ends and with it the engine; on a developer's machine this does it.
    command.kill_on_drop(true);
    command.spawn().map_err(|source| Error::Start { program: program.display().to_string(), source })
}

/// Reaps what an ended engine left to us, the first process: a child that was saving, for example.
pub fn reap_orphans(engine: Option<u32>) {
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
