//! The commands that a person would type.

use std::process::Command;

use serde_json::{Value, json};

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

/// Refuses what a rule matches in one namespace unless `expression` holds: a policy of the namespace's name, in force a moment later.
pub fn refuse(namespace: &str, rule: &Value, expression: &str) {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": "a policy of the test refuses it"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {"policyName": namespace, "validationActions": ["Deny"], "matchResources": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        }},
    });
    for (file, object) in [("policy", policy), ("binding", binding)] {
        let path = std::env::temp_dir().join(format!("redoubt-{namespace}-{file}-{}.json", std::process::id()));
        std::fs::write(&path, object.to_string()).unwrap();
        kubectl(&["apply", "-f", &path.display().to_string()]);
        let _ = std::fs::remove_file(path);
    }
}
