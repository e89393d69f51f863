//! What an engine says on standard error: why it does not take its configuration. (Its log is on standard output, and is not touched.)
//!
//! The lines are passed on as they are, and the last ones are kept for the pod's termination message, which the status of the layer quotes.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::model::directives::{DirectiveClass, class};

const LINES: usize = 6;
/// Characters of a line that are kept.
const LONGEST: usize = 200;
/// How long the rest of what an engine said that has ended may take. A child of it that lives on keeps the pipe open.
const REST_WITHIN: Duration = Duration::from_millis(500);

/// The last lines on standard error of the engine that was started last.
#[derive(Default)]
pub(super) struct StderrTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl StderrTail {
    /// Forgets those of the engine before, and keeps those of this one.
    pub(super) fn listen(&self, errors: Option<ChildStderr>) {
        lock(&self.lines).clear();
        let Some(errors) = errors else { return };
        let reader = tokio::spawn(pass_on(errors, Arc::clone(&self.lines)));
        if let Some(before) = lock(&self.reader).replace(reader) {
            before.abort();
        }
    }

    /// What an engine that has ended said last, on one line. A line of the configuration that it quotes is kept only as far as it is the
    /// specification's: others hold passwords.
    pub(super) async fn text(&self) -> String {
        let reader = lock(&self.reader).take();
        if let Some(reader) = reader {
            // Too late is no words.
            let _ = timeout(REST_WITHIN, reader).await;
        }
        let lines = lock(&self.lines);
        let words: Vec<String> = lines.iter().map(|line| without_secrets(line)).collect();
        words.join("; ")
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pass_on(errors: ChildStderr, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut read = BufReader::new(errors).split(b'\n');
    while let Ok(Some(line)) = read.next_segment().await {
        let text = String::from_utf8_lossy(&line).trim().chars().take(LONGEST).collect::<String>();
        if !text.is_empty() {
            let mut lines = lock(&lines);
            lines.push_back(text);
            if lines.len() > LINES {
                lines.pop_front();
            }
        }
        // Without a reader of ours there is nothing to be passed on to.
        let _ = std::io::stderr().write_all(&[line.as_slice(), b"\n"].concat());
    }
}

/// The engine quotes the line that it does not take: `>>> 'hzz "20"'`.
fn without_secrets(line: &str) -> String {
    let Some(quoted) = line.strip_prefix(">>> '") else { return line.to_owned() };
    let name = quoted.split_whitespace().next().unwrap_or_default().trim_end_matches('\'').to_lowercase();
    match class(&name) {
        DirectiveClass::Ours(_) => format!(">>> '{name} …'"),
        DirectiveClass::Live
        | DirectiveClass::StartOnly
        | DirectiveClass::Field(_)
        | DirectiveClass::Renamed(_)
        | DirectiveClass::Unknown => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::engine::{Restarts, start};
    use super::*;

    /// What a shell says that is started as an engine is.
    async fn said(script: &str) -> String {
        let path = std::env::temp_dir().join(format!("redoubt-words-{}-{:x}", std::process::id(), script.len()));
        std::fs::write(&path, script).unwrap();
        let words = StderrTail::default();
        let mut child = start(Path::new("/bin/sh"), &path, false, &words).unwrap();
        child.wait().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        words.text().await
    }

    #[tokio::test]
    async fn what_an_engine_says_of_its_configuration_is_in_the_error_and_no_password_is() {
        let fatal = "echo 'a log' ; exec >&2 ; echo ; echo 'Reading the configuration file, at line 7'";
        let script =
            format!("{fatal}\necho \">>> 'hzz \\\"20\\\"'\"\necho 'Bad directive or wrong number of arguments'");
        let words = said(&script).await;
        assert_eq!(
            words,
            "Reading the configuration file, at line 7; >>> 'hzz \"20\"'; Bad directive or wrong number of arguments"
        );
        let error =
            Restarts::default().ends_at_once(Path::new("/bin/redis-server"), "exit status: 1".to_owned(), &words);
        assert!(error.to_string().ends_with(&format!("before it answered (exit status: 1): {words}")), "{error}");
        for secret in ["masterauth sesame", "requirepass sesame", "user default >sesame"] {
            let words = said(&format!("{fatal} # {secret}\necho \">>> '{secret}'\"")).await;
            assert!(words.contains(">>> '") && !words.contains("sesame"), "{words}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_says_nothing_or_much_is_told_of_all_the_same() {
        assert_eq!(said("exit 1").await, "");
        let error = Restarts::default().ends_at_once(Path::new("redis-server"), "exit status: 1".to_owned(), "");
        assert!(error.to_string().ends_with("(exit status: 1); its last output is in the log of its pod"), "{error}");
        let many = said("for number in 1 2 3 4 5 6 7 8 9; do echo line $number >&2; done").await;
        assert_eq!(many, "line 4; line 5; line 6; line 7; line 8; line 9");
    }
}
