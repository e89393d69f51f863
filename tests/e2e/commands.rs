//! The commands that a person would type.

use std::process::Command;

/// Runs the development cluster's command, or kubectl; its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// `tests/cluster/cluster`.
pub fn cluster(arguments: &[&str]) -> String {
    run("tests/cluster/cluster", arguments)
}

/// A node that is off the network for as long as this lives: also a claim that fails leaves the cluster whole to the next one.
pub struct CutOff {
    node: String,
}

impl CutOff {
    /// Cuts it off.
    pub fn begin(node: &str) -> Self {
        cluster(&["cut", node]);
        Self { node: node.to_owned() }
    }

    /// Puts it back.
    pub fn reconnect(self) {
        drop(self);
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        let done = Command::new("tests/cluster/cluster").args(["reconnect", &self.node]).status();
        if !done.is_ok_and(|status| status.success()) {
            println!("cannot put {} back on the network", self.node);
        }
    }
}

/// `kubectl`.
pub fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments)
}

/// `helm`.
pub fn helm(arguments: &[&str]) -> String {
    run("helm", arguments)
}
