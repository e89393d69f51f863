//! The commands that a person would type.

use std::process::Command;

use crate::plane::plane;

/// `kubectl`; its output.
pub fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new(&plane().kubectl)
        .env("KUBECONFIG", plane().folder.join("kubeconfig"))
        .args(arguments)
        .output()
        .expect("kubectl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
