//! The commands that a person would type.

use std::process::Command;

use crate::plane::plane;

/// `kubectl`; its output.
pub fn kubectl(arguments: &[&str]) -> String {
    try_kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}

/// `kubectl`; its output, or what it says on standard error.
pub fn try_kubectl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(&plane().kubectl)
        .env("KUBECONFIG", plane().folder.join("kubeconfig"))
        .args(arguments)
        .output()
        .expect("kubectl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
