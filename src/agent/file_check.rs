//! What the engine's own programs say of the files that it does not load: `redis-check-aof` and `redis-check-rdb`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval};

use super::config::Environment;
use super::state::State;
use super::{Result, append_files, durable};

/// Between two signs of life of the agent while the files are read.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// What became known of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Examined {
    /// They load, or nothing is known: there is no file, or the image has no such program.
    Whole,
    /// The last append-only file ends with what is no whole command or transaction.
    TornEnd(TornEnd),
    /// They do not load.
    Damaged,
}

/// An append-only file of which only the begin can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TornEnd {
    /// Name of the file.
    pub name: String,
    /// Bytes up to the end of the last whole command.
    pub whole: u64,
}

impl TornEnd {
    /// Cuts off what is no whole command, as the engine would by itself.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn cut_off(&self, environment: &Environment) -> Result<()> {
        let path = environment.data.join("appendonlydir").join(&self.name);
        let cut = || {
            let file = fs::OpenOptions::new().write(true).open(&path)?;
            file.set_len(self.whole)?;
            file.sync_all()
        };
        cut().map_err(durable::failed("cut off the torn end of", &path))?;
        tracing::warn!(path = %path.display(), bytes = self.whole, "an end that is no whole command is cut off");
        Ok(())
    }
}

/// Whether the image has the program for append-only files.
pub(super) fn has_checker(program: &Path) -> bool {
    checker(program, "check-aof").is_some()
}

/// Examines what the engine loads: the append-only files, or the snapshot.
pub(super) async fn examine(state: &State, environment: &Environment, program: &Path, append_only: bool) -> Examined {
    let (path, name) = files(environment, append_only);
    // The program takes an empty manifest for a valid file.
    if fs::metadata(&path).is_ok_and(|found| found.len() == 0) {
        return Examined::Damaged;
    }
    let Some(checker) = checker(program, name).filter(|_| path.exists()) else { return Examined::Whole };
    let mut command = Command::new(&checker);
    command.arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut output = Box::pin(command.output());
    let mut beats = interval(HEARTBEAT_EVERY);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let output = loop {
        tokio::select! {
            output = &mut output => break output,
            _ = beats.tick() => state.refresh_config(environment),
        }
    };
    let examined = match output {
        Ok(output) if output.status.code().is_none_or(|code| code == 0) => Examined::Whole,
        Ok(output) => {
            let last = append_files::last(environment);
            let end = torn_end(&String::from_utf8_lossy(&output.stdout), last.as_deref());
            end.map_or(Examined::Damaged, Examined::TornEnd)
        }
        Err(error) => {
            tracing::warn!(%error, program = %checker.display(), "the files are not examined");
            Examined::Whole
        }
    };
    tracing::warn!(path = %path.display(), is_damaged = examined != Examined::Whole, "the files were examined");
    examined
}

/// What the engine loads, and the end of the name of the program that examines it.
fn files(environment: &Environment, append_only: bool) -> (PathBuf, &'static str) {
    let manifest = environment.data.join("appendonlydir/appendonly.aof.manifest");
    match (append_only, manifest.exists()) {
        (true, true) => (manifest, "check-aof"),
        (true, false) => (environment.data.join("appendonly.aof"), "check-aof"),
        (false, _) => (environment.data.join("dump.rdb"), "check-rdb"),
    }
}

/// `redis-check-aof` next to `redis-server`.
fn checker(program: &Path, name: &str) -> Option<PathBuf> {
    let engine = program.file_name()?.to_str()?.strip_suffix("server")?;
    Some(program.with_file_name(format!("{engine}{name}"))).filter(|path| path.is_file())
}

/// What the program says of a file that ends before a command or transaction does.
const TOO_SHORT: [&str; 3] = ["Expected to read ", "Unexpected EOF", "Reached EOF before reading EXEC"];
/// It says the same of an end within a line of a command as of a wrong byte. No such line is longer, bytes.
const LONGEST_LINE: u64 = 32;

/// Of what the program says of the file that it read last: `AOF analyzed: filename=appendonly.aof.1.incr.aof, size=568, ok_up_to=510,
/// ok_up_to_line=…, diff=58`. It stops at the first file that it cannot read, and only the last one may have a torn end. Other damage is
/// none: an engine refuses it whatever it is told.
fn torn_end(text: &str, last: Option<&str>) -> Option<TornEnd> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("AOF analyzed: "))?;
    let value = |key: &str| line.split(", ").find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let number = |key| value(key)?.parse::<u64>().ok();
    let name = value("filename").filter(|name| Some(*name) == last)?;
    let (size, whole) = (number("size")?, number("ok_up_to")?);
    let is_short = TOO_SHORT.iter().any(|words| text.contains(words)) || size.saturating_sub(whole) <= LONGEST_LINE;
    is_short.then(|| TornEnd { name: name.to_owned(), whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_file_is_torn_where_the_program_read_its_begin() {
        let text = "Start checking INCR files.\nStart to check INCR AOF (RESP format).\n\
                    0x            134a: Expected to read 52 bytes, got 5 bytes\n\
                    AOF analyzed: filename=appendonly.aof.2.incr.aof, size=4943, ok_up_to=4913, ok_up_to_line=712, diff=30\n\
                    AOF appendonly.aof.2.incr.aof is not valid. Use the --fix option to try fixing it.\n";
        let end = TornEnd { name: "appendonly.aof.2.incr.aof".to_owned(), whole: 4_913 };
        assert_eq!(torn_end(text, Some("appendonly.aof.2.incr.aof")), Some(end));
        assert_eq!(torn_end(text, Some("appendonly.aof.3.incr.aof")), None, "commands follow in another file");
        let wrong = text
            .replace("Expected to read 52 bytes, got 5 bytes", "Expected prefix '$', got: '")
            .replace("4943", "9943");
        assert_eq!(torn_end(&wrong, Some("appendonly.aof.2.incr.aof")), None, "no engine cuts that off");
        assert_eq!(torn_end("[offset 0] Checking RDB file\n--- RDB ERROR DETECTED ---\n", None), None);
    }
}
