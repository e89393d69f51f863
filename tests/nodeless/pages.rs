//! The pages of tasks, command by command: each block that is marked `run` does what the page says, in the order in which a reader
//! would meet the pages.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::place;
use crate::plane::plane;

/// The pages, in the order in which they are walked: later ones use what earlier ones made.
const PAGES: [&str; 12] = [
    "first-store",
    "connect",
    "gitops",
    "network",
    "upgrade",
    "resize",
    "restart",
    "recover",
    "debug",
    "teams",
    "cluster",
    "uninstall",
];

/// Of what the chart installs, the pages need the roles of people.
const ROLES: &str =
    "helm template redoubt charts/redoubt --show-only templates/people.yaml --set image.repository=redoubt |
    kubectl apply -f -";

fn page(name: &str) -> String {
    format!("docs/tasks/{name}.md")
}

/// Runs a program with the control plane's `kubectl` and configuration. It must succeed: what it said is above.
async fn run(program: &str, arguments: Vec<String>) {
    let folder = plane().kubectl.parent().expect("kubectl is in a folder").display().to_string();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.env("KUBECONFIG", plane().folder.join("kubeconfig"));
    command.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap_or_default()));
    let ended = tokio::task::spawn_blocking(move || command.status()).await.unwrap().unwrap();
    assert!(ended.success(), "{program}: the last command above failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_pages_does_what_they_say() {
    let with_blocks = std::fs::read_dir("docs/tasks").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let has_blocks = std::fs::read_to_string(&path).unwrap().contains("<!-- run -->");
        has_blocks.then(|| path.display().to_string())
    });
    assert_eq!(
        with_blocks.collect::<BTreeSet<_>>(),
        BTreeSet::from(PAGES.map(page)),
        "each page with such a block is walked"
    );
    let _operator = place::operator_of("shop").await;
    run("bash", vec!["-euxo".to_owned(), "pipefail".to_owned(), "-c".to_owned(), ROLES.to_owned()]).await;
    run("tests/pages", PAGES.map(page).to_vec()).await;
}
