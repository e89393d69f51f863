//! The lint of commit subjects: `tests/commits`, in a history that the test makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("redoubt-commits-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn git(folder: &Path, words: &[&str], date: &str) {
    let person = ["-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"];
    let mut command = Command::new("git");
    let command = command.current_dir(folder).args(person).args(words);
    let output = command.env("GIT_COMMITTER_DATE", date).env("GIT_AUTHOR_DATE", date).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn commit(folder: &Path, subject: &str, date: &str) {
    git(folder, &["commit", "--quiet", "--allow-empty", "-m", subject], date);
}

/// What the lint says of the history of a folder; `None`: it passes.
fn faults(folder: &Path) -> Option<String> {
    let script = std::env::current_dir().unwrap().join("tests/commits");
    let output = Command::new(script).current_dir(folder).env("GIT_CEILING_DIRECTORIES", "/").output().unwrap();
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

/// A date that git reads, so many seconds ago.
fn ago(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    format!("{} +0000", now - seconds)
}

#[test]
fn a_recent_commit_without_an_area_or_of_73_characters_is_found_and_an_old_one_is_not() {
    let folder = Folder::new("subjects");
    let folder = folder.0.as_path();
    git(folder, &["init", "--quiet"], &ago(0));
    commit(folder, "A subject of an older habit", &ago(5 * 3600));
    commit(folder, "plan, act: move a primary once", &ago(60));
    commit(folder, &format!("docs: {}", "m".repeat(66)), &ago(50));
    assert_eq!(faults(folder), None);
    commit(folder, "Count a removed Service as no disruption", &ago(40));
    commit(folder, &format!("docs: {}", "n".repeat(67)), &ago(30));
    let said = faults(folder).unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("“Count a removed Service as no disruption” does not begin with its area"), "{said}");
    assert!(said.contains("has 73 characters; at most 72"), "{said}");
}

#[test]
fn a_tree_without_a_history_passes() {
    let folder = Folder::new("archive");
    assert_eq!(faults(&folder.0), None);
}
